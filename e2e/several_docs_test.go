// Here belongs that what docs/several-machines.md shows is what one gets.
package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const severalPage = "../docs/several-machines.md"

// blocksOf returns what the page has in blocks of a language.
func blocksOf(t *testing.T, page, language string) (blocks []string) {
	t.Helper()
	for _, block := range strings.Split(readFile(t, page), "\n```"+language+"\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

// shell is a bash that does what the page tells a reader to do, in a folder of its own and on ports
// of its own.
type shell struct {
	t     *testing.T
	in    io.Writer
	out   *bufio.Reader
	ports *strings.Replacer
}

// shellEnd is what bash prints after each command.
const shellEnd = "== the command has ended"

// newShell starts a bash, which ends with the test, and with it all that it has started.
func newShell(t *testing.T) *shell {
	t.Helper()
	for _, program := range []string{"bash", "curl", "etcd", "etcdctl"} {
		needs(t, program)
	}
	cmd := exec.Command("bash")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	cmd.Stderr = t.Output()
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // the whole group
	limit := time.AfterFunc(2*time.Minute, end)
	t.Cleanup(func() {
		limit.Stop()
		end()
		cmd.Wait()
	})
	if err := os.Symlink(binary, filepath.Join(cmd.Dir, "lobby")); err != nil {
		t.Fatal(err)
	}
	return &shell{t, in, bufio.NewReader(out), severalPorts(t)}
}

// severalPorts replaces the page's ports, which are 2371 to 2373, 2381 to 2383 and 8081 to 8083, by
// free ones. They stay below those that the system gives to whoever asks for any.
func severalPorts(t *testing.T) *strings.Replacer {
	t.Helper()
	var pairs []string
	for _, tens := range []string{"237", "238", "808"} {
		free := ""
		for free == "" {
			free = fmt.Sprint(1100 + rand.N(2000))
			for i := 1; i <= 3; i++ {
				listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", free, i))
				if err != nil {
					free = ""
					break
				}
				listener.Close()
			}
		}
		for _, i := range []string{"1", "2", "3", "$i"} {
			pairs = append(pairs, "127.0.0.1:"+tens+i, "127.0.0.1:"+free+i)
		}
	}
	return strings.NewReplacer(pairs...)
}

// do runs commands of the page and returns what they print.
func (s *shell) do(commands string) string {
	s.t.Helper()
	fmt.Fprintf(s.in, "%s\necho; echo '%s'\n", s.ports.Replace(commands), shellEnd)
	var printed strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("bash ended in %q: %v", commands, err)
		}
		if strings.TrimSpace(line) == shellEnd {
			return strings.TrimSpace(strings.ReplaceAll(printed.String(), "\r", ""))
		}
		printed.WriteString(line)
	}
}

// startEtcd runs the page's block that starts etcd, and returns the URLs that nodes get.
func (s *shell) startEtcd() (urls string) {
	s.t.Helper()
	blocks := s.blocks()
	s.do(blocks[0])
	_, urls, _ = strings.Cut(blocks[1], "\nurls=")
	urls, _, _ = strings.Cut(urls, "\n")
	return s.ports.Replace(urls)
}

// startNodes runs the page's block that starts the nodes, except that they were built before.
func (s *shell) startNodes() {
	s.t.Helper()
	started := s.do(strings.TrimPrefix(s.blocks()[1], "go build\n"))
	for strings.Count(started, "Starting server at http://127.0.0.1:") < 3 {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the nodes have printed only %q: %v", started, err)
		}
		started += line
	}
}

// blocks returns the two of the page that start something.
func (s *shell) blocks() []string {
	s.t.Helper()
	blocks := blocksOf(s.t, severalPage, "sh")
	if len(blocks) != 2 || !strings.HasPrefix(blocks[1], "go build\nurls=") {
		s.t.Fatalf("the page has %q; want a block that starts etcd and one that builds and starts nodes",
			blocks)
	}
	return blocks
}

// url returns an address of the page's as it is here.
func (s *shell) url(addr string) *server {
	addr = s.ports.Replace(addr)
	return &server{url: "http://" + addr, addr: addr}
}

// newIDs matches the epoch of ids, which is new each time.
var newIDs = regexp.MustCompile(`\b[0-9a-z]{8}(-[0-9]+\n|-[0-9]+$|",)`)

// Each command of the page prints what the page shows, apart from the epoch, which is the same
// everywhere.
func TestSeveralMachinesPageShowsWhatOneGets(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.startEtcd()
	s.startNodes()
	s.do("export ETCDCTL_ENDPOINTS=$urls")
	epoch := epochOf(s.url("127.0.0.1:8081").lastID(t))
	commands := 0
	for _, block := range blocksOf(t, severalPage, "console") {
		for _, entry := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, want, _ := strings.Cut(entry, "\n")
			want = newIDs.ReplaceAllString(strings.TrimSpace(want), epoch+"$1")
			if got := s.do(command); got != want {
				t.Errorf("%s\nprinted\n%s\nthe page has\n%s", command, got, want)
			}
			commands++
		}
	}
	if commands < 8 {
		t.Errorf("the page has only %d commands", commands)
	}
	s.do("kill $(jobs -p); wait")
}

// When etcd was restored from a backup with no node running, and the lobby's first key was removed,
// the list is the backup's, in a new epoch.
func TestSeveralMachinesPageRestoresABackup(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.startEtcd()
	s.startNodes()
	node := s.url("127.0.0.1:8081")
	node.do(t, "POST", "/users/alice", "")
	before := node.do(t, "GET", "/users", "")
	s.do("export ETCDCTL_ENDPOINTS=${urls%%,*}; etcdctl snapshot save backup.db 2>save.log")
	late := node.do(t, "POST", "/users/bob", "")
	s.do("kill -9 $(jobs -p); wait; rm -r e1 e2 e3")

	page := readFile(t, severalPage)
	_, restore, _ := strings.Cut(page, "\n    etcdctl snapshot restore ")
	restore, _, _ = strings.Cut(restore, "\n\n")
	if !strings.Contains(restore, "e1") || !strings.Contains(page, "`etcdctl del lobby/lobby`") {
		t.Fatal("the page no longer says how to restore a backup")
	}
	for _, i := range []string{"1", "2", "3"} {
		of := strings.NewReplacer("e1", "e"+i, "2381", "238"+i).Replace(restore)
		s.do("etcdctl snapshot restore " + of + " 2>restore.log")
	}
	s.startEtcd()
	s.do("until etcdctl endpoint health 2>health.log; do sleep 0.1; done")
	if got := s.do("etcdctl del lobby/lobby"); got != "1" {
		t.Fatalf("etcd has removed %q keys, want 1", got)
	}
	s.startNodes()
	after := node.do(t, "GET", "/users", "")
	id := after.header.Get("Last-Event-ID")
	if after.body != before.body || epochOf(id) == epochOf(late.header.Get("Last-Event-ID")) {
		t.Errorf("got %q at %s, want %q in another epoch than that of %s",
			after.body, id, before.body, late.header.Get("Last-Event-ID"))
	}
	bob := node.subscribe(t, "/chat/bob?lastEventId="+late.header.Get("Last-Event-ID"))
	if e, err := bob.next(); e.name != "gap" {
		t.Errorf("a stream from before goes on with %+v, %v; want a gap", e, err)
	}
}

// The user that the page makes in etcd is one that a node can be, and nobody else gets in.
func TestSeveralMachinesPageGuardsEtcd(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	urls := s.startEtcd()
	s.do("export ETCDCTL_ENDPOINTS=" + urls)
	s.do("until etcdctl endpoint health 2>health.log; do sleep 0.1; done")
	_, commands, _ := strings.Cut(readFile(t, severalPage), "\n    etcdctl user add root:")
	commands, _, _ = strings.Cut(commands, "\n\n")
	if !strings.HasSuffix(commands, "etcdctl auth enable") {
		t.Fatal("the page does not say how to enable passwords")
	}
	s.do("etcdctl user add root:" + commands)
	as := func(user, path string) (args []string) {
		args = []string{"-addr", "127.0.0.1:0", "-etcd"}
		all := strings.Split(urls, ",")
		for i := range all {
			all[i] = strings.Replace(all[i], "//", "//"+user, 1) + path
		}
		return append(args, strings.Join(all, ","))
	}
	node := start(t, as("lobby:PASSWORD@", "")...)
	if r := node.do(t, "POST", "/users/alice", ""); r.status != 201 {
		t.Errorf("got %d %q, want 201", r.status, r.body)
	}
	for _, args := range [][]string{as("", ""), as("lobby:WRONG@", ""), as("lobby:PASSWORD@", "/blue")} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
		cancel()
		exit, failed := errors.AsType[*exec.ExitError](err)
		if !failed || exit.ExitCode() != 1 || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q: got %v and %q, want status 1 and one line", args, err, out)
		}
	}
}

// balancer is a proxy that the page puts in front of three nodes.
type balancer struct {
	proxy
	file     string // with its configuration, beside the page
	language string // of its block in docs/proxies.md
}

var balancers = []balancer{
	{nginx, "nginx.conf", "nginx"},
	{haproxy, "haproxy.cfg", "haproxy"},
}

// before puts the proxy in front of the nodes at three addresses, one of which is that of s, and
// returns the lobby as it is met through it.
func (b balancer) before(t *testing.T, s *server, addrs ...string) *server {
	t.Helper()
	config := readFile(t, "../docs/several-machines/"+b.file)
	for i, addr := range addrs {
		shown := fmt.Sprintf("10.0.0.%d:8080", i+1)
		if !strings.Contains(config, shown) {
			t.Fatalf("%s has no %s", b.file, shown)
		}
		config = strings.ReplaceAll(config, shown, addr)
	}
	for i := 0; i < len(b.set); i += 2 {
		config = strings.ReplaceAll(config, b.set[i], b.set[i+1])
	}
	blocks := blocksOf(t, "../docs/proxies.md", b.language)
	if len(blocks) != 1 {
		t.Fatalf("docs/proxies.md has %d blocks of %s, want 1", len(blocks), b.language)
	}
	p := b.proxy // with this configuration in place of that block
	p.set = append([]string{blocks[0], config}, p.set...)
	return p.before(t, &server{cmd: s.cmd, exited: s.exited, addr: "127.0.0.1:8080"})
}

// A node that closes connections without an answer is hidden from those who ask for the list, and
// those who speak are never repeated, which could be heard twice.
func TestSeveralMachinesPageRepeatsOnlyQuestions(t *testing.T) {
	t.Parallel()
	for _, b := range balancers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.do(t, "POST", "/users/alice", "")
			var broken atomic.Int32
			breaking := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "OPTIONS" { // of HAProxy, which finds it well
					return
				}
				broken.Add(1)
				panic(http.ErrAbortHandler)
			}))
			t.Cleanup(breaking.Close)
			addr := strings.TrimPrefix(breaking.URL, "http://")
			lobby := b.before(t, s, addr, s.addr, s.addr)

			before := s.lastID(t)
			said, failed := 0, 0
			for deadline := time.Now().Add(20 * time.Second); failed < 3 && time.Now().Before(deadline); {
				r, err := lobby.caller(t).call("POST", "/chat/alice", "hello")
				if err == nil && r.status == 200 {
					said++
				} else {
					failed++
				}
				time.Sleep(50 * time.Millisecond) // nginx avoids the node for a second
			}
			if want := idPlus(t, before, said); s.lastID(t) != want || failed < 3 {
				t.Fatalf("after %d answers and %d errors the last event is %s, want %s and 3 errors",
					said, failed, s.lastID(t), want)
			}
			broken.Store(0)
			for deadline := time.Now().Add(20 * time.Second); broken.Load() < 3; {
				r, err := lobby.caller(t).call("GET", "/users", "")
				if err != nil || r.status != 200 || time.Now().After(deadline) {
					t.Fatalf("after %d broken connections got %d, %v", broken.Load(), r.status, err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
}

// Behind each proxy of the page, nodes can be stopped one after the other, and one be killed:
// whoever asks for the list gets it, whoever listens misses nothing, and whoever speaks is heard
// once.
func TestSeveralMachinesPageBalancesLoad(t *testing.T) {
	t.Parallel()
	for _, b := range balancers {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			urls := s.startEtcd()
			var nodes []*server
			for range 3 {
				nodes = append(nodes, start(t, "-addr", reserve(t), "-etcd", urls))
			}
			lobby := b.before(t, nodes[1], nodes[0].addr, nodes[1].addr, nodes[2].addr)
			lobby.do(t, "POST", "/users/alice", "")
			first := lobby.lastID(t)

			stop := make(chan struct{})
			heard, listed, spoken := make(chan []string, 1), make(chan error, 1), make(chan speech, 1)
			asking, speaking := lobby.caller(t), lobby.caller(t)
			go func() { heard <- lobby.listen(first, "alice: the end") }()
			go func() { listed <- asking.keepAsking(stop) }()
			go func() { spoken <- speaking.keepSpeaking(stop) }()
			stops := len(nodes) + 1 // and one is killed
			for i, n := range nodes {
				time.Sleep(time.Second) // in which much is said
				n.stop(t)
				nodes[i] = start(t, "-addr", n.addr, "-etcd", urls)
			}
			time.Sleep(time.Second)
			nodes[0].kill()
			time.Sleep(3 * time.Second)
			close(stop)

			if err := <-listed; err != nil {
				t.Errorf("GET /users: %v", err)
			}
			said := <-spoken
			if len(said.failed) > stops || len(said.answered) < 100 {
				t.Errorf("%d messages were answered, %d were not: %v; one for each of %d stops may fail",
					len(said.answered), len(said.failed), said.why, stops)
			}
			nodes[1].do(t, "POST", "/chat/alice", "the end")
			got, failed := []string(nil), map[string]int{}
			for _, data := range <-heard {
				if !slices.Contains(said.failed, data) {
					got = append(got, data)
				} else if failed[data]++; failed[data] > 1 {
					t.Errorf("%q was not answered, and heard twice", data)
				}
			}
			if want := append(said.answered, "alice: the end"); !slices.Equal(got, want) {
				t.Errorf("heard %d messages, want %d, each once and in order: %q, want %q",
					len(got), len(want), got, want)
			}
		})
	}
}

// listen reads streams after an event, one after the other, until alice has said the last thing. It
// returns what she said, and each gap.
func (s *server) listen(after, last string) (heard []string) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		st, err := s.trySubscribe("/chat/listener", "Last-Event-ID", after)
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		timer := time.AfterFunc(time.Until(deadline), func() { st.body.Close() })
		for {
			e, err := st.next()
			if err != nil {
				break
			}
			after = e.id
			if e.name != "message" {
				heard = append(heard, e.name)
			}
			if strings.HasPrefix(e.data, "alice: ") {
				heard = append(heard, e.data)
			}
			if e.data == last {
				deadline = time.Time{}
				break
			}
		}
		timer.Stop()
		st.body.Close()
	}
	return heard
}

// keepAsking asks for the list until stop is closed or something else comes.
func (c *caller) keepAsking(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		r, err := c.call("GET", "/users", "")
		if err != nil || r.status != 200 || !strings.Contains(r.body, "User: alice") {
			return fmt.Errorf("got %d %.100q, %v", r.status, r.body, err)
		}
	}
}

// speech is what alice has said.
type speech struct {
	answered, failed []string // as streams have it
	why              []string // what came in place of the answers
}

// keepSpeaking speaks as alice, one message after the other, until stop is closed.
func (c *caller) keepSpeaking(stop <-chan struct{}) (said speech) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return said
		default:
		}
		text := fmt.Sprint("message ", n)
		if r, err := c.call("POST", "/chat/alice", text); err == nil && r.status == 200 {
			said.answered = append(said.answered, r.body)
		} else {
			said.failed = append(said.failed, "alice: "+text)
			said.why = append(said.why, fmt.Sprintf("%d %.100q %v", r.status, r.body, err))
		}
	}
}

// The flags in the unit and in the Deployment are some that the server knows.
func TestSeveralMachinesPageUsesFlagsThatExist(t *testing.T) {
	t.Parallel()
	const urls = "http://10.0.0.1:2379,http://10.0.0.2:2379"
	for file, line := range map[string]*regexp.Regexp{
		"lobby.service":   regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/lobby (.*)$`),
		"kubernetes.yaml": regexp.MustCompile(`(?m)^ +args: \[(.*)\]$`),
	} {
		found := line.FindStringSubmatch(readFile(t, "../docs/several-machines/"+file))
		if found == nil {
			t.Errorf("%s does not say how to start the server", file)
			continue
		}
		plain := strings.NewReplacer(",", "", `"`, "", "${ETCD}", urls, "$(ETCD)", urls)
		args := strings.Fields(plain.Replace(found[1]))
		if !slices.Contains(args, urls) {
			t.Errorf("%s starts the server with %q, want it to say where etcd is", file, args)
		}
		// With -h the server reads the flags before it, and says what is wrong with them.
		if out, err := exec.Command(binary, append(args, "-h")...).CombinedOutput(); err != nil {
			t.Errorf("%s starts the server with %q: %v: %s", file, args, err, out)
		}
	}
}
