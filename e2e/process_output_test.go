// Tests that neither printing nor the end of a terminal ends the process.
package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// That printing does not wait for a reader is tested beside package lines.
func TestServerWorksWhenNobodyReadsWhatItPrintsAnyLonger(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	addr := reserve(t)
	cmd := exec.Command(binary, "-addr", addr, "-max-streams", "1000000000") // causes a warning
	cmd.Stdout, cmd.Stderr = w, w
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
	s.subscribe(t, "/chat/alice").expect(t, arrives("alice"))
	if took, exit := s.stop(t); exit != nil || took >= 5*time.Second {
		t.Errorf("after SIGTERM it exited with %v after %v, want 0 in under 5 s", exit, took)
	}
}

func TestServerIgnoresSIGHUPUnderNohup(t *testing.T) {
	t.Parallel()
	s := startCommand(t, exec.Command("sh", "-c",
		`trap "" HUP; exec "$0" -addr 127.0.0.1:0`, binary))
	s.cmd.Process.Signal(syscall.SIGHUP)
	s.subscribe(t, "/chat/alice").expect(t, arrives("alice"))
	if _, ok := s.wait(time.Second); ok {
		t.Error("the server has ended")
	}
}
