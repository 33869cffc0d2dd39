// Starts etcd and the nodes of a lobby on it, for all tests of several machines.
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

// What a lobby's keys and entries look like in etcd, for the tests that read or forge them.
const (
	settingsKey = "lobby/lobby"
	snapshotKey = "lobby/state"
	nodeKeys    = "lobby/nodes/"
	logKeys     = "lobby/log/"

	fieldEnd, recordEnd = "\x1f", "\x1e"
)

const (
	slack      = 3 * time.Second // added to each limit, because all tests share the machine
	startLimit = 10*time.Second + slack
)

// clusters limits how many clusters run at once. Each has at least six processes, and the tests are
// not about how these share a machine.
var clusters = make(chan struct{}, 3)

// lines collects the output of a process and can be read while the process runs.
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

// launch starts a program and returns it as a server without addresses. The test's end kills it.
func launch(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: cmd, exited: make(chan error, 1)}
	go func() { s.exited <- cmd.Wait() }()
	t.Cleanup(s.kill)
	return s
}

// hasEnded reports whether the process has ended.
func (s *server) hasEnded() bool {
	select {
	case exit := <-s.exited:
		s.exited <- exit
		return true
	default:
		return false
	}
}

// pause stops the process until resume.
func (s *server) pause() { s.cmd.Process.Signal(syscall.SIGSTOP) }

func (s *server) resume() { s.cmd.Process.Signal(syscall.SIGCONT) }

// etcd is a cluster of etcd servers.
type etcd struct {
	program string   // what each member runs
	flags   []string // of each member, in addition to those about addresses
	members []*member
	client  http.Client // for requests to the gateway
	scheme  string      // http or https
}

// member is one of the etcd servers. It keeps its addresses and its data when it is restarted.
type member struct {
	*server      // its process, or nil before the first
	name, dir    string
	client, peer string // addresses, 127.0.0.1:PORT
	output       *lines
}

// startEtcd starts n members and waits until their cluster works.
func startEtcd(t *testing.T, n int) *etcd {
	t.Helper()
	e := newEtcd(t, n)
	e.start(t)
	return e
}

// newEtcd chooses the addresses and folders of n members. It waits until another cluster may run.
func newEtcd(t *testing.T, n int) *etcd {
	t.Helper()
	needs(t, "etcd")
	clusters <- struct{}{}
	t.Cleanup(func() { <-clusters })
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	e := &etcd{
		program: "etcd", scheme: "http",
		client: http.Client{Transport: transport, Timeout: 2 * time.Second},
	}
	dir := memoryDir(t)
	for i := range n {
		name := fmt.Sprint("etcd-", i)
		e.members = append(e.members, &member{
			name: name, dir: filepath.Join(dir, name), client: reserve(t), peer: reserve(t),
		})
	}
	t.Cleanup(func() {
		for _, m := range e.members {
			if t.Failed() && m.output != nil {
				t.Logf("%s printed:\n%.2000s", m.name, m.output)
			}
		}
	})
	return e
}

// memoryDir returns a folder for the duration of the test, in memory if the system has one: etcd
// waits for its disk at each write, and so many members would wait for one another. No test pulls a
// plug.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lobby-e2e-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start starts the members that are not running, and waits until all are healthy.
func (e *etcd) start(t *testing.T) {
	t.Helper()
	for i, m := range e.members {
		if m.server == nil || m.hasEnded() {
			e.restart(t, i)
		}
	}
	e.mustWork(t)
}

// restart starts a member that is not running.
func (e *etcd) restart(t *testing.T, i int) {
	t.Helper()
	m := e.members[i]
	client, peer := e.scheme+"://"+m.client, "http://"+m.peer
	cmd := exec.Command(e.program, append([]string{
		"--name", m.name, "--data-dir", m.dir, "--log-level", "error", "--logger", "zap",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", e.peers(), "--snapshot-count", "5000",
	}, e.flags...)...)
	m.output = &lines{}
	cmd.Stdout, cmd.Stderr = m.output, m.output
	m.server = launch(t, cmd)
}

// peers returns the value of --initial-cluster.
func (e *etcd) peers() string {
	var peers []string
	for _, m := range e.members {
		peers = append(peers, m.name+"=http://"+m.peer)
	}
	return strings.Join(peers, ",")
}

// mustWork waits until each member says that it is healthy, which requires a leader.
func (e *etcd) mustWork(t *testing.T) {
	t.Helper()
	for _, m := range e.members {
		eventually(t, 30*time.Second, m.name+" to be healthy", func() bool {
			if m.hasEnded() {
				t.Fatalf("%s ended with %v:\n%s", m.name, m.cmd.ProcessState, m.output)
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

// kill ends the members with these numbers, or all, as kill -9 does.
func (e *etcd) kill(which ...int) {
	for i, m := range e.members {
		if len(which) == 0 || slices.Contains(which, i) {
			m.kill()
		}
	}
}

// leader returns the number of the member that leads the others.
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

// ask makes a request to a member's gateway.
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

// mustAsk makes a request that etcd must accept.
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
	t.Fatalf("etcd rejects %s: %v", path, err)
	return nil
}

// keyRange is a request to get keys, or to delete them.
type keyRange struct {
	Key      []byte `json:"key"`
	RangeEnd []byte `json:"range_end,omitempty"`
	KeysOnly bool   `json:"keys_only,omitempty"`
}

// prefix is the range of all keys that begin with p.
func prefix(p string) keyRange {
	end := []byte(p)
	end[len(end)-1]++
	return keyRange{Key: []byte(p), RangeEnd: end}
}

// put sets a key.
func (e *etcd) put(t *testing.T, key, value string) {
	t.Helper()
	e.mustAsk(t, "kv/put", map[string][]byte{"key": []byte(key), "value": []byte(value)})
}

// remove deletes all keys that begin with p.
func (e *etcd) remove(t *testing.T, p string) {
	t.Helper()
	e.mustAsk(t, "kv/deleterange", prefix(p))
}

// keys returns the keys that begin with p, and etcd's newest revision.
func (e *etcd) keys(t *testing.T, p string) (keys []string, revision string) {
	t.Helper()
	request := prefix(p)
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

// compact makes etcd discard all values but the newest.
func (e *etcd) compact(t *testing.T) {
	t.Helper()
	_, revision := e.keys(t, "lobby/")
	eventually(t, startLimit, "etcd to compact", func() bool {
		_, err := e.ask(e.members[0], "kv/compaction", fmt.Sprintf(`{"revision":%q,"physical":true}`, revision))
		return err == nil || strings.Contains(err.Error(), "has been compacted") // by the lobby, or earlier
	})
}

// url returns the value of -etcd.
func (e *etcd) url() string {
	var urls []string
	for _, m := range e.members {
		urls = append(urls, e.scheme+"://"+m.client)
	}
	return strings.Join(urls, ",")
}

// node is a server that is part of a lobby in etcd. It keeps its address when it is restarted.
type node struct {
	*server            // its current process
	program   string   // what it runs
	args      []string // its command line
	out, errs *lines   // what its current process has printed
	allErrs   lines    // what all its processes have printed on standard error
}

// newNode returns a node that the test has yet to start.
func newNode(t *testing.T, etcdURL string, args ...string) *node {
	t.Helper()
	addr := reserve(t)
	args = append([]string{"-etcd", etcdURL, "-addr", addr}, args...)
	n := &node{server: &server{url: "http://" + addr, addr: addr}, program: binary, args: args}
	t.Cleanup(func() {
		if t.Failed() && n.errs != nil {
			t.Logf("the node at %s printed:\n%.2000s%.4000s", n.addr, n.out, n.errs)
		}
	})
	return n
}

// startNode starts a node at a free address and waits for its start-up line.
func startNode(t *testing.T, etcdURL string, args ...string) *node {
	t.Helper()
	n := newNode(t, etcdURL, args...)
	n.restart(t)
	return n
}

// startNodes starts count nodes, one after the other.
func startNodes(t *testing.T, e *etcd, count int, args ...string) (nodes []*node) {
	t.Helper()
	for range count {
		nodes = append(nodes, startNode(t, e.url(), args...))
	}
	return nodes
}

// startAll starts the nodes at the same time and waits until all serve. On an empty etcd they must
// agree on one epoch, as mustBeOneHistory shows.
func startAll(t *testing.T, nodes []*node, limit time.Duration) {
	t.Helper()
	for _, n := range nodes {
		n.start(t)
	}
	for _, n := range nodes {
		n.mustServe(t, 1, limit)
	}
}

// start starts the node's process and does not wait.
func (n *node) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command(n.program, n.args...)
	n.out, n.errs = &lines{}, &lines{}
	cmd.Stdout, cmd.Stderr = n.out, io.MultiWriter(n.errs, &n.allErrs)
	s := launch(t, cmd)
	s.url, s.addr = n.url, n.addr
	n.server = s
}

// restart starts the node's process and waits for its start-up line.
func (n *node) restart(t *testing.T) (took time.Duration) {
	t.Helper()
	n.start(t)
	return n.mustServe(t, 1, startLimit)
}

// starts returns how many start-up lines the process has printed.
func (n *node) starts() int {
	return strings.Count(n.out.String(), "Starting server at "+n.url+"\n")
}

// mustServe waits until the process has printed that many start-up lines.
func (n *node) mustServe(t *testing.T, starts int, limit time.Duration) (took time.Duration) {
	t.Helper()
	return eventually(t, limit, fmt.Sprintf("start-up line %d of %s", starts, n.addr), func() bool {
		if n.hasEnded() {
			t.Fatalf("%q ended with %v: %s", n.args, n.cmd.ProcessState, n.errs)
		}
		return n.starts() >= starts
	})
}

// mustHaveWarnedOnce fails the test unless the process has printed one line on standard error, not
// counting those about skipped entries.
func (n *node) mustHaveWarnedOnce(t *testing.T) {
	t.Helper()
	printed, count := n.errs.String(), 0
	for line := range strings.Lines(printed) {
		if !strings.Contains(line, "skipped") {
			count++
		}
	}
	if count != 1 {
		t.Errorf("the node at %s printed %q on standard error, want one line", n.addr, printed)
	}
}
