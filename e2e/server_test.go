// Package e2e meets the built binary as its users do: over sockets, signals and
// exit statuses. It shares no code with the server, so that both must agree with
// the contract and not with each other.
//
// Here is how a test starts the server and makes requests. In every helper,
// headers are names and values in turn.
package e2e

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is the path of the server, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lobby-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "lobby")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

var fixedSeed = flag.Uint64("seed", 0, "the seed of random tests; 0 draws one")

// seed returns the seed of a random test. A test that fails logs it, so that the run can be
// repeated with the flag -seed.
func seed(t testing.TB) uint64 {
	n := *fixedSeed
	for n == 0 {
		n = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat this run with -seed=%d", n)
		}
	})
	return n
}

// server is a running lobby.
type server struct {
	cmd    *exec.Cmd
	url    string // http://127.0.0.1:PORT
	addr   string // 127.0.0.1:PORT
	stderr bytes.Buffer
	exited chan error // gets what Wait returned
}

// start runs the server on a free port, unless args have an -addr of their own,
// and waits for its start-up line. It ends with the test.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	args = append([]string{"-addr", "127.0.0.1:0"}, args...)
	return startCommand(t, exec.Command(binary, args...))
}

// startForMinutes is start for tests that read streams without a time limit:
// after three minutes it kills the server, which ends every stream.
func startForMinutes(t testing.TB, args ...string) *server {
	t.Helper()
	s := start(t, args...)
	timer := time.AfterFunc(3*time.Minute, s.kill)
	t.Cleanup(func() { timer.Stop() })
	return s
}

// startCommand is start with a command of the test's own.
func startCommand(t testing.TB, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, exited: make(chan error, 1)}
	s.cmd.Stderr = &s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("no start-up line: %v: %s", err, s.stderr.String())
	}
	var ok bool
	s.url, ok = strings.CutPrefix(strings.TrimSuffix(line, "\n"), "Starting server at ")
	if !ok {
		t.Fatalf("the start-up line is %q", line)
	}
	s.addr = strings.TrimPrefix(s.url, "http://")
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(func() { s.kill(); http.DefaultClient.CloseIdleConnections() })
	return s
}

// kill ends the server as kill -9 does.
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.wait(5 * time.Second)
}

// stop ends the server as SIGTERM does, and returns after how long and how it exited.
func (s *server) stop(t testing.TB) (took time.Duration, exit error) {
	t.Helper()
	begin := time.Now()
	s.cmd.Process.Signal(syscall.SIGTERM)
	exit, ok := s.wait(10 * time.Second)
	if !ok {
		t.Fatal("the server did not end within 10 s of SIGTERM")
	}
	return time.Since(begin), exit
}

// wait waits for the server's end. It may be called more than once.
func (s *server) wait(limit time.Duration) (exit error, ok bool) {
	select {
	case exit = <-s.exited:
		s.exited <- exit
		return exit, true
	case <-time.After(limit):
		return nil, false
	}
}

// descriptors returns how many files the server has open.
func (s *server) descriptors(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// memory returns the server's VmRSS or VmHWM in /proc/PID/status, in bytes.
func (s *server) memory(t testing.TB, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), field+":")
	line, _, _ = strings.Cut(line, " kB")
	kib, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// processorTime returns the processor time that the server has used.
func (s *server) processorTime(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the program's name
	fields, ticks := strings.Fields(after), 0
	for _, field := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// needProc skips a test that looks into processes if there is no /proc, or if the
// test may not open so many files.
func needProc(t *testing.T, files uint64) {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		missing(t, "there is no /proc")
	}
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err != nil || uint64(limit.Cur) < files {
		missing(t, "%d files may be open, the test needs %d: raise it with ulimit -n",
			limit.Cur, files)
	}
}

// eventually waits until holds reports true, and returns how long that took. It fails the test after
// the limit.
func eventually(
	t testing.TB, limit time.Duration, what string, holds func() bool,
) (took time.Duration) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if holds() {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// response is an answer, read whole.
type response struct {
	status int
	header http.Header
	body   string
	closes bool // the answer says Connection: close
}

// do makes a request and reads its answer.
func (s *server) do(t testing.TB, method, path, body string, headers ...string) response {
	t.Helper()
	r, err := s.request(http.DefaultClient, method, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// request makes a request with client and reads its answer.
func (s *server) request(
	client *http.Client, method, path, body string, headers ...string,
) (response, error) {
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	setHeaders(req, headers)
	resp, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	return readWhole(resp)
}

func setHeaders(req *http.Request, headers []string) {
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
}

// readWhole reads an answer's body and closes it.
func readWhole(resp *http.Response) (response, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(body), resp.Close}, err
}

// caller makes requests over a connection of its own, from any goroutine.
type caller struct {
	server *server
	client http.Client
}

func (s *server) caller(t testing.TB) *caller {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{s, http.Client{Transport: transport, Timeout: time.Minute}}
}

// call makes a request and reads its answer.
func (c *caller) call(method, path, body string) (response, error) {
	return c.server.request(&c.client, method, path, body)
}

// dial opens a connection on which everything has to be over in a minute. The
// test closes it.
func (s *server) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

// text returns the text of a request whose line begins with METHOD TARGET. It has
// the server's own Host unless the headers have one.
func (s *server) text(line, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s HTTP/1.1\r\n", line)
	hasHost := false
	for i := 0; i < len(headers); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", headers[i], headers[i+1])
		hasHost = hasHost || headers[i] == "Host"
	}
	if !hasHost {
		fmt.Fprintf(&b, "Host: %s\r\n", s.addr)
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	return b.String() + "\r\n" + body
}

// send makes a request over a connection of its own, with line, METHOD TARGET, as
// it stands, and reads the answer.
func (s *server) send(t testing.TB, line, body string, headers ...string) response {
	t.Helper()
	return s.exchange(t, s.text(line, body, headers...))
}

// exchange sends text over a connection of its own and reads the answer, which
// must come at once: before any time limit of the server's.
func (s *server) exchange(t testing.TB, text string) response {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(4 * time.Second))
	go io.WriteString(conn, text) // which may be more than the server takes before it answers
	method, _, _ := strings.Cut(text, " ")
	return mustRead(t, bufio.NewReader(conn), method)
}

// ask asks for path over a connection of its own, and reads nothing.
func (s *server) ask(t testing.TB, path string) *net.TCPConn {
	t.Helper()
	conn := s.dial(t)
	if _, err := io.WriteString(conn, s.text("GET "+path, "")); err != nil {
		t.Fatal(err)
	}
	return conn
}

// mustRead reads the answer to a request with that method.
func mustRead(t testing.TB, r *bufio.Reader, method string) response {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	answer, err := readWhole(resp)
	if err != nil {
		t.Fatalf("%s with %q and no end: %v", resp.Status, answer.body, err)
	}
	return answer
}

// mustFlood makes the user, who stays afterwards, say 4 KiB so many times.
func (s *server) mustFlood(t testing.TB, name string, times int) {
	t.Helper()
	s.do(t, "POST", "/users/"+name, "")
	s.mustRepeat(t, times, func(int) string {
		return s.text("POST /chat/"+name, strings.Repeat("x", 4096))
	})
}

// mustRepeat makes so many POST requests over one connection without waiting for
// answers in between. Each must succeed.
func (s *server) mustRepeat(t testing.TB, times int, text func(n int) string) {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	go func() {
		for n := range times {
			io.WriteString(conn, text(n))
		}
	}()
	answers := bufio.NewReader(conn)
	for n := range times {
		if r := mustRead(t, answers, "POST"); r.status >= 300 {
			t.Fatalf("%.60q: got %d %q, want success", text(n), r.status, r.body)
		}
	}
}

// lastID returns the id of the server's last event.
func (s *server) lastID(t testing.TB) string {
	t.Helper()
	return s.do(t, "GET", "/users", "").header.Get("Last-Event-ID")
}

// mustNotChange fails the test if what do does changes who is there, makes an
// event or shows on a stream.
func (s *server) mustNotChange(t testing.TB, do func()) {
	t.Helper()
	s.do(t, "POST", "/users/watcher", "")
	watcher := s.subscribe(t, "/chat/watcher")
	defer watcher.body.Close()
	before := s.do(t, "GET", "/users", "")
	do()
	after := s.do(t, "GET", "/users", "")
	id, want := after.header.Get("Last-Event-ID"), before.header.Get("Last-Event-ID")
	if after.body != before.body || id != want {
		t.Errorf("got %q at %s, want still %q at %s", after.body, id, before.body, want)
	}
	s.do(t, "POST", "/chat/watcher", "nothing happened")
	watcher.expectRun(t, "watcher: nothing happened")
}

// sentence is what the body of an error must be if the contract does not give it
// to the letter.
var sentence = regexp.MustCompile(`^[A-Z][^\n]+\.\n?$`)

// isError reports whether r is an error as the contract has it.
func (r response) isError(status int) bool {
	return r.status == status && sentence.MatchString(r.body) && r.header.Get("Location") == "" &&
		r.header.Get("Content-Type") == "text/plain; charset=utf-8" &&
		r.header.Get("X-Content-Type-Options") == "nosniff"
}

// mustRefuse fails the test unless the server answers a request with that error.
func (s *server) mustRefuse(
	t testing.TB, status int, line, body string, headers ...string,
) response {
	t.Helper()
	r := s.send(t, line, body, headers...)
	if !r.isError(status) {
		t.Errorf("%.40q with %.20q and %.40q: got %d %v %q, want the error %d",
			line, body, headers, r.status, r.header, r.body, status)
	}
	return r
}
