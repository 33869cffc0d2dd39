// Tests that printing never holds up the process and never ends it.
package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startBlind starts a server whose start-up line the test cannot read, and waits until it serves.
func startBlind(t *testing.T, stdout, stderr *os.File) *server {
	t.Helper()
	addr := reserve(t)
	cmd := exec.Command(binary, "-addr", addr, "-max-streams", "1000000000") // causes a warning
	cmd.Stdout, cmd.Stderr = stdout, stderr
	s := launch(t, cmd)
	s.addr, s.url = addr, "http://"+addr
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	eventually(t, time.Minute, "the server to serve", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}

// fullPipe returns the end of a pipe to which nothing more can be written.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	_, w := newPipe(t)
	w.SetWriteDeadline(time.Now().Add(time.Second / 10))
	var err error
	for err == nil {
		_, err = w.Write(make([]byte, 4096))
	}
	return w
}

// brokenPipe returns the end of a pipe that nobody reads from any longer.
func brokenPipe(t *testing.T) *os.File {
	t.Helper()
	r, w := newPipe(t)
	r.Close()
	return w
}

func newPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestServerWorksWhileNobodyReadsWhatItPrints(t *testing.T) {
	t.Parallel()
	for name, pipe := range map[string]func(*testing.T) *os.File{
		"full": fullPipe, "broken": brokenPipe,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startBlind(t, pipe(t), pipe(t))
			st := s.subscribe(t, "/chat/alice")
			st.expect(t, arrives("alice"))
			if r := s.do(t, "GET", "/users", ""); !strings.HasSuffix(r.body, "User: alice") {
				t.Errorf("the list is %q", r.body)
			}
			if took, exit := s.stop(t); exit != nil || took >= 5*time.Second {
				t.Errorf("after SIGTERM it exited with %v after %v, want 0 in under 5 s", exit, took)
			}
		})
	}
}

func TestServerIgnoresSIGHUPUnderNohup(t *testing.T) {
	t.Parallel()
	s := startCommand(t, exec.Command("sh", "-c",
		`trap "" HUP; exec "$0" -addr 127.0.0.1:0`, binary))
	s.cmd.Process.Signal(syscall.SIGHUP)
	st := s.subscribe(t, "/chat/alice")
	st.expect(t, arrives("alice"))
	if _, ok := s.wait(time.Second); ok {
		t.Error("the server has ended")
	}
}
