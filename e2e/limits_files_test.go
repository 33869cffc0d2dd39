// Tests what the server does when it may open only a few files.
package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestInheritedFilesCount(t *testing.T) {
	t.Parallel()
	needProc(t, 0)
	const inherited, limit = 100, 256
	cmd := exec.Command("sh", "-c", `ulimit -n 256; exec "$0" -addr 127.0.0.1:0`, binary)
	for range inherited {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	s := startCommand(t, cmd)
	streams := 0
	for ; streams < limit; streams++ {
		st, err := s.trySubscribe("/chat/alice")
		if err != nil {
			break
		}
		defer st.body.Close()
	}
	if streams < 50 || streams >= limit-inherited {
		t.Errorf("%d streams could be opened", streams)
	}
	c := s.caller(t)
	c.client.Timeout = 5 * time.Second
	if r, err := c.call("GET", "/users", ""); err != nil || r.status != 200 {
		t.Errorf("beside the streams, GET /users got %d, %v", r.status, err)
	}
}

func TestServerThatMayOpenTooFewFilesSaysSo(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", `ulimit -n 16; exec "$0" -addr 127.0.0.1:0`, binary)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "ulimit -n") {
		t.Errorf("it printed %q and exited with %v", out, err)
	}
}
