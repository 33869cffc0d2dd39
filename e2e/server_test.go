// Package e2e tests the built binary from outside, as its users meet it: over sockets, with signals
// and by exit statuses. It shares no code with the server, so the tests and the server must both
// agree with the contract, not with each other.
//
// This file has the helpers that start, watch and end a server, and those that wait.
package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	url    string     // http://127.0.0.1:PORT, or https
	addr   string     // 127.0.0.1:PORT
	exited chan error // receives the result of Wait

	stdout, stderr *lines // what it has printed, if startCommand started it
}

// start runs the server on a free port, unless args contain an -addr, and waits for its start-up
// line. The server ends with the test.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	args = append([]string{"-addr", "127.0.0.1:0"}, args...)
	return startCommand(t, exec.Command(binary, args...))
}

// startForMinutes is start for tests that read streams without a time limit: after three minutes
// it kills the server, which ends every stream.
func startForMinutes(t *testing.T, args ...string) *server {
	t.Helper()
	s := start(t, args...)
	timer := time.AfterFunc(3*time.Minute, s.kill)
	t.Cleanup(func() { timer.Stop() })
	return s
}

// startCommand is start with the test's own command.
func startCommand(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	out, errs := &lines{}, &lines{}
	cmd.Stdout, cmd.Stderr = out, errs
	s := launch(t, cmd)
	s.stdout, s.stderr = out, errs
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	eventually(t, time.Minute, "the start-up line", func() bool {
		if s.hasEnded() {
			t.Fatalf("no start-up line: %v: %s", cmd.ProcessState, errs)
		}
		return strings.HasSuffix(out.String(), "\n")
	})
	var ok bool
	s.url, ok = strings.CutPrefix(strings.TrimSuffix(out.String(), "\n"), "Starting server at ")
	if !ok {
		t.Fatalf("the start-up line is %q", out)
	}
	_, s.addr, _ = strings.Cut(s.url, "://")
	return s
}

// kill ends the server as kill -9 does.
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.wait(5 * time.Second)
}

// stop ends the server with SIGTERM. It returns how long that took and how the server exited.
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

// wait waits for the end of the server. It may be called more than once.
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

// memory returns the server's VmRSS or VmHWM from /proc/PID/status, in bytes.
func (s *server) memory(t testing.TB, field string) int {
	t.Helper()
	status := readFile(t, fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	_, line, _ := strings.Cut(status, field+":")
	line, _, _ = strings.Cut(line, " kB")
	kib, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// needProc skips a test that looks into processes if there is no /proc, or if the test may not
// open that many files.
func needProc(t *testing.T, files uint64) {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		missing(t, "there is no /proc")
	}
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err != nil || uint64(limit.Cur) < files {
		missing(t, "%d files may be open, the test needs %d: raise the limit with ulimit -n",
			limit.Cur, files)
	}
}

// needs skips a test if the program is not in the PATH.
func needs(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		missing(t, "%s is not in the PATH", program)
	}
}

// missing skips a test that lacks what the format describes. Where nothing may be lacking, with
// the variable CI set to true, the test fails.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// readFile returns the content of the file.
func readFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits until holds reports true and returns how long that took. If that takes longer
// than limit, the test fails.
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

// await waits until c is closed or delivers. If that takes longer than a minute, the test fails.
func await(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("waited a minute for %s", what)
	}
}
