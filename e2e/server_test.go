// Package e2e meets the built binary as its users do: over sockets, signals
// and exit statuses. It shares no code with the server, so that both must agree
// with what the README says and not with each other.
package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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

// server is a running lobby.
type server struct {
	cmd    *exec.Cmd
	url    string // http://127.0.0.1:PORT
	addr   string // 127.0.0.1:PORT
	stderr bytes.Buffer
	exited chan error // gets what Wait returned
}

// start runs the server on a free port, unless args have an -addr of their
// own, and waits for its start-up line. The test ends it.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{cmd: exec.Command(binary, append([]string{"-addr", "127.0.0.1:0"}, args...)...), exited: make(chan error, 1)}
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
	if s.url, ok = strings.CutPrefix(strings.TrimSuffix(line, "\n"), "Starting server at "); !ok {
		t.Fatalf("start-up line %q", line)
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

// wait waits for the server's end, again and again if asked to.
func (s *server) wait(limit time.Duration) (exit error, ok bool) {
	select {
	case exit = <-s.exited:
		s.exited <- exit
		return exit, true
	case <-time.After(limit):
		return nil, false
	}
}

// response is an answer, read whole.
type response struct {
	status int
	header http.Header
	body   string
}

// do makes a request and reads its answer. headers are names and values in turn.
func (s *server) do(t testing.TB, method, path, body string, headers ...string) response {
	t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, string(b)}
}
