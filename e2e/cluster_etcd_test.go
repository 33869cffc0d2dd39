// Here is how a test starts etcd, and the nodes of a lobby on it. Whoever makes trouble between the
// two finds it in cluster_proxy_test.go.
package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// slack is added to each upper bound on time, because all tests share the machine.
const slack = 3 * time.Second

// clusters has room for as many clusters as may run at the same time. Each is six processes or
// more, and what is tested is not how they share a machine.
var clusters = make(chan struct{}, 3)

// lines keeps what a process writes. It may be read meanwhile.
type lines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// process is a program that can be killed and paused.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

// startProcess starts the command, and kills it when the test ends.
func startProcess(t *testing.T, cmd *exec.Cmd) process {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := process{cmd, make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

func (p process) isRunning() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// etcd is some etcd servers that the test has started, which are one cluster.
type etcd struct {
	program string   // that each server runs
	flags   []string // of each server, besides those about addresses
	members []*member
	client  http.Client // for the gateway
	scheme  string      // http or https
	suffix  string      // of each URL that a node gets, such as the lobby's name
}

// member is one of etcd's servers. It keeps its addresses and its data over its lives.
type member struct {
	process
	name, dir    string
	client, peer string // addresses, 127.0.0.1:PORT
	output       *lines
}

// startEtcd starts n servers and waits until they are a cluster that works.
func startEtcd(t *testing.T, n int) *etcd {
	t.Helper()
	needs(t, "etcd")
	return startEtcdOf(t, n, "etcd")
}

// startEtcdOf is startEtcd with a program and flags of the test's own.
func startEtcdOf(t *testing.T, n int, program string, flags ...string) *etcd {
	t.Helper()
	e := &etcd{program: program, flags: flags, scheme: "http"}
	e.prepare(t, n)
	e.start(t)
	e.mustWork(t)
	return e
}

// prepare waits until there is room for another cluster, and chooses the servers' addresses and
// folders.
func (e *etcd) prepare(t *testing.T, n int) {
	t.Helper()
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	e.client = http.Client{Transport: transport, Timeout: 2 * time.Second}
	dir := memoryDir(t)
	for i := range n {
		name := fmt.Sprint("etcd-", i)
		m := &member{name: name, dir: filepath.Join(dir, name), client: reserve(t), peer: reserve(t)}
		e.members = append(e.members, m)
	}
	t.Cleanup(func() {
		for _, m := range e.members {
			if t.Failed() && m.output != nil {
				t.Logf("%s said:\n%.2000s", m.name, m.output)
			}
		}
	})
}

// memoryDir returns a folder that is gone after the test, in memory if the system has one: etcd
// waits for its disk with each write, and so many servers would wait for one another. No test pulls
// a plug.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lobby-e2e-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start starts those servers that do not run.
func (e *etcd) start(t *testing.T) {
	t.Helper()
	for i, m := range e.members {
		if m.cmd == nil || !m.isRunning() {
			e.restart(t, i)
		}
	}
}

// restart starts a server that was killed.
func (e *etcd) restart(t *testing.T, i int) {
	t.Helper()
	m := e.members[i]
	client := e.scheme + "://" + m.client
	args := append([]string{
		"--name", m.name, "--data-dir", m.dir, "--log-level", "error", "--logger", "zap",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", "http://" + m.peer,
		"--initial-advertise-peer-urls", "http://" + m.peer, "--initial-cluster", e.peers(),
		"--snapshot-count", "5000",
	}, e.flags...)
	cmd := exec.Command(e.program, args...)
	m.output = &lines{}
	cmd.Stdout, cmd.Stderr = m.output, m.output
	m.process = startProcess(t, cmd)
}

// peers returns what --initial-cluster is to be.
func (e *etcd) peers() string {
	var peers []string
	for _, m := range e.members {
		peers = append(peers, m.name+"=http://"+m.peer)
	}
	return strings.Join(peers, ",")
}

// mustWork waits until each server says that it is healthy, which needs a leader.
func (e *etcd) mustWork(t *testing.T) {
	t.Helper()
	for _, m := range e.members {
		eventually(t, 30*time.Second, m.name+" to be healthy", func() bool {
			if !m.isRunning() {
				t.Fatalf("%s has ended:\n%s", m.name, m.output)
			}
			resp, err := e.client.Get(e.scheme + "://" + m.client + "/health")
			if err != nil {
				return false
			}
			r, err := readWhole(resp)
			return err == nil && r.status == 200 && strings.Contains(r.body, `"true"`)
		})
	}
}

// kill ends the servers with those numbers, or all, as kill -9 does.
func (e *etcd) kill(which ...int) {
	for _, m := range e.these(which) {
		m.cmd.Process.Kill()
	}
	for _, m := range e.these(which) {
		m.kill()
	}
}

// pause stops the servers with those numbers, or all, until resume.
func (e *etcd) pause(which ...int) {
	for _, m := range e.these(which) {
		m.cmd.Process.Signal(syscall.SIGSTOP)
	}
}

func (e *etcd) resume(which ...int) {
	for _, m := range e.these(which) {
		m.cmd.Process.Signal(syscall.SIGCONT)
	}
}

func (e *etcd) these(which []int) []*member {
	if len(which) == 0 {
		return e.members
	}
	var these []*member
	for _, i := range which {
		these = append(these, e.members[i])
	}
	return these
}

// leader returns the number of the server that leads the others.
func (e *etcd) leader(t *testing.T) (leader int) {
	t.Helper()
	eventually(t, 30*time.Second, "etcd to have a leader", func() bool {
		for i, m := range e.members {
			var status struct {
				Header struct {
					ID string `json:"member_id"`
				}
				Leader string
			}
			answer, err := e.ask(m, "maintenance/status", "{}")
			if err == nil && json.Unmarshal(answer, &status) == nil &&
				status.Leader == status.Header.ID && status.Leader != "" {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// follower returns the number of a server that does not lead.
func (e *etcd) follower(t *testing.T) int {
	t.Helper()
	return (e.leader(t) + 1) % len(e.members)
}

// ask makes a request to a server's gateway.
func (e *etcd) ask(m *member, path, body string) ([]byte, error) {
	resp, err := e.client.Post(e.scheme+"://"+m.client+"/v3/"+path, "application/json",
		strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return answer, err
}

// mustAsk makes a request that etcd must take.
func (e *etcd) mustAsk(t *testing.T, path string, body any) (answer []byte) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * len(e.members) {
		if answer, err = e.ask(e.members[i%len(e.members)], path, string(text)); err == nil {
			return answer
		}
	}
	t.Fatalf("etcd refuses %s: %v", path, err)
	return nil
}

// keyRange is a request for keys, or to delete them.
type keyRange struct {
	Key      []byte `json:"key"`
	RangeEnd []byte `json:"range_end,omitempty"`
	KeysOnly bool   `json:"keys_only,omitempty"`
}

// prefix is all keys that begin with it.
func prefix(p string) keyRange {
	end := []byte(p)
	end[len(end)-1]++
	return keyRange{Key: []byte(p), RangeEnd: end}
}

// wipe deletes the lobby's keys.
func (e *etcd) wipe(t *testing.T, lobby string) {
	t.Helper()
	e.mustAsk(t, "kv/deleterange", prefix(lobby+"/"))
}

// put sets a key.
func (e *etcd) put(t *testing.T, key, value string) {
	t.Helper()
	e.mustAsk(t, "kv/put", map[string][]byte{"key": []byte(key), "value": []byte(value)})
}

// keys returns the lobby's keys and etcd's newest revision.
func (e *etcd) keys(t *testing.T, lobby string) (keys []string, revision string) {
	t.Helper()
	request := prefix(lobby + "/")
	request.KeysOnly = true
	var answer struct {
		Header struct{ Revision string }
		KVs    []struct{ Key []byte }
	}
	if err := json.Unmarshal(e.mustAsk(t, "kv/range", request), &answer); err != nil {
		t.Fatal(err)
	}
	for _, kv := range answer.KVs {
		keys = append(keys, string(kv.Key))
	}
	return keys, answer.Header.Revision
}

// compact makes etcd forget all values but the newest.
func (e *etcd) compact(t *testing.T) {
	t.Helper()
	_, revision := e.keys(t, "lobby")
	e.mustAsk(t, "kv/compaction", map[string]any{"revision": revision, "physical": true})
}

// backup saves what etcd has into a file, and returns its name.
func (e *etcd) backup(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backup")
	etcdctl(t, "--endpoints", "http://"+e.members[0].client, "snapshot", "save", file)
	return file
}

// restore replaces what etcd has by a backup. It ends the servers, and starts them again.
func (e *etcd) restore(t *testing.T, backup string) {
	t.Helper()
	e.kill()
	for _, m := range e.members {
		if err := os.RemoveAll(m.dir); err != nil {
			t.Fatal(err)
		}
		etcdctl(t, "snapshot", "restore", backup, "--name", m.name, "--data-dir", m.dir,
			"--initial-cluster", e.peers(), "--initial-advertise-peer-urls", "http://"+m.peer)
	}
	e.start(t)
	e.mustWork(t)
}

// etcdctl runs etcd's command line client.
func etcdctl(t *testing.T, args ...string) {
	t.Helper()
	needs(t, "etcdctl")
	cmd := exec.Command("etcdctl", args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("etcdctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// url returns what -etcd is to be.
func (e *etcd) url() string {
	var urls []string
	for _, m := range e.members {
		urls = append(urls, e.scheme+"://"+m.client+e.suffix)
	}
	return strings.Join(urls, ",")
}

// node is a lobby on etcd. It keeps its address over its lives, and over those of its process.
type node struct {
	*server            // its present process
	program   string   // that it runs
	args      []string // its command line
	out, errs *lines   // what its present process has printed
}

// startNode starts a lobby on etcd at a free address and waits for its start-up line.
func startNode(t *testing.T, e *etcd, args ...string) *node {
	t.Helper()
	n := newNode(t, e.url(), args...)
	n.start(t)
	n.mustServe(t, 1, 10*time.Second+slack)
	return n
}

// startNodes starts so many lobbies on etcd, one after the other.
func startNodes(t *testing.T, e *etcd, count int, args ...string) (nodes []*node) {
	t.Helper()
	for range count {
		nodes = append(nodes, startNode(t, e, args...))
	}
	return nodes
}

// newNode returns a lobby that the test has yet to start.
func newNode(t *testing.T, etcdURL string, args ...string) *node {
	t.Helper()
	addr := reserve(t)
	args = append([]string{"-etcd", etcdURL, "-addr", addr}, args...)
	n := &node{server: &server{url: "http://" + addr, addr: addr}, program: binary, args: args}
	t.Cleanup(func() {
		if t.Failed() && n.errs != nil {
			t.Logf("the node at %s said:\n%.2000s%.4000s", n.addr, n.out, n.errs)
		}
	})
	return n
}

// start starts the node's process, and waits for nothing.
func (n *node) start(t *testing.T) {
	t.Helper()
	n.server = &server{
		cmd: exec.Command(n.program, n.args...), url: n.url, addr: n.addr, exited: make(chan error, 1),
	}
	n.out, n.errs = &lines{}, &lines{}
	s := n.server
	s.cmd.Stdout, s.cmd.Stderr = n.out, n.errs
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(s.kill)
}

// restart starts the node's process again and waits for its start-up line.
func (n *node) restart(t *testing.T) (took time.Duration) {
	t.Helper()
	n.start(t)
	return n.mustServe(t, 1, 10*time.Second+slack)
}

// lives returns how many start-up lines the process has printed.
func (n *node) lives() int {
	return strings.Count(n.out.String(), "Starting server at "+n.url+"\n")
}

// mustServe waits until the process has printed so many start-up lines.
func (n *node) mustServe(t *testing.T, lives int, limit time.Duration) (took time.Duration) {
	t.Helper()
	return eventually(t, limit, fmt.Sprintf("start-up line %d of %s", lives, n.addr), func() bool {
		if exit, ended := n.wait(0); ended {
			t.Fatalf("%q has ended with %v: %s", n.args, exit, n.errs)
		}
		return n.lives() >= lives
	})
}

// pause stops the process until resume.
func (n *node) pause() { n.cmd.Process.Signal(syscall.SIGSTOP) }

func (n *node) resume() { n.cmd.Process.Signal(syscall.SIGCONT) }

// startAll starts the nodes at the same time, and waits until all serve.
func startAll(t *testing.T, nodes []*node, limit time.Duration) {
	t.Helper()
	for _, n := range nodes {
		n.start(t)
	}
	for _, n := range nodes {
		n.mustServe(t, 1, limit)
	}
}

// servers returns the nodes as servers that clients may ask.
func servers(nodes []*node) (all []*server) {
	for _, n := range nodes {
		all = append(all, n.server)
	}
	return all
}

// mustHaveSaid fails the test unless the process has printed one line on standard error, besides
// those about entries that it has skipped.
func (n *node) mustHaveSaid(t *testing.T) {
	t.Helper()
	said, count := n.errs.String(), 0
	for line := range strings.Lines(said) {
		if !strings.Contains(line, "skipped") {
			count++
		}
	}
	if count != 1 {
		t.Errorf("the node at %s has said %q, want one line", n.addr, said)
	}
}

// The harness itself: servers come back with their data, and another one leads when one is killed.
func TestEtcdOfTheHarness(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	e.put(t, "lobby/a", "1")
	backup := e.backup(t)
	e.put(t, "lobby/b", "2")
	first := e.leader(t)
	e.kill(first)
	if second := e.leader(t); second == first {
		t.Errorf("%d leads, and was killed", second)
	}
	e.restart(t, first)
	e.mustWork(t)
	follower := e.follower(t)
	e.pause(follower)
	e.put(t, "lobby/c", "3")
	e.resume(follower)
	e.kill()
	e.start(t)
	e.mustWork(t)
	e.compact(t)
	if keys, _ := e.keys(t, "lobby"); !slices.Equal(keys, []string{"lobby/a", "lobby/b", "lobby/c"}) {
		t.Errorf("etcd has %q", keys)
	}
	e.restore(t, backup)
	if keys, _ := e.keys(t, "lobby"); !slices.Equal(keys, []string{"lobby/a"}) {
		t.Errorf("the restored etcd has %q", keys)
	}
	e.wipe(t, "lobby")
	if keys, _ := e.keys(t, "lobby"); len(keys) > 0 {
		t.Errorf("the wiped etcd has %q", keys)
	}
}
