package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The one line that the server prints is true when it can be read, and nothing
// that is asked of the server makes it print another.
func TestOutput(t *testing.T) {
	cmd := exec.Command(binary, "-addr", "127.0.0.1:0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { cmd.Process.Kill() })
	line := make([]byte, 100)
	n, _ := out.Read(line)
	m := regexp.MustCompile(`^Starting server at http://(127\.0\.0\.1:[1-9]\d*)\n$`).FindSubmatch(line[:n])
	if m == nil {
		t.Fatalf("the start-up line is %q", line[:n])
	}
	s := &server{url: "http://" + string(m[1]), addr: string(m[1])}
	s.send(t, "GET /users", "")
	s.send(t, "GET /nosuch", "")
	s.send(t, "POST /users/alice", "", "Host: evil.example")
	s.exchange(t, "nonsense\r\n\r\n")
	s.open(t, "/chat/alice").body.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || len(rest) > 0 || stderr.Len() > 0 {
		t.Errorf("got %q and %q and %v, want nothing but the first line", rest, stderr.String(), err)
	}
}

func TestExitStatus(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		status int
		why    string   // found in what is printed
		lines  []string // arguments, parted by spaces
	}{
		{2, "-nosuch", []string{"-nosuch", "-nosuch=1", "-addr 127.0.0.1:0 -nosuch"}},
		{2, "-x", []string{"-x\ny"}},
		{2, "extra", []string{"extra", "-addr 127.0.0.1:0 extra -h"}},
		{2, "history", []string{"-history", "-history 0", "-history -1", "-history many", "-history 99999999999999999999"}},
		{2, "users", []string{"-max-users 0", "-max-users -1"}},
		{2, "streams", []string{"-max-streams 0", "-max-streams 1.5"}},
		{2, "grace", []string{"-grace -1ns", "-grace soon"}},
		{2, "keep-?alive", []string{"-keepalive 0", "-keepalive -1s"}},
		{1, "-addr", []string{"-addr ", "-addr nonsense", "-addr a\nb", "-addr [::1:0"}},
		{1, "port.*-addr", []string{"-addr 127.0.0.1", "-addr 127.0.0.1:", "-addr 127.0.0.1:65536"}},
		{1, "192.0.2.1.*-addr", []string{"-addr 192.0.2.1:0"}}, // no machine's, RFC 5737
		{1, "in use.*-addr", []string{"-addr " + s.addr}},
	} {
		oneLine := regexp.MustCompile(`^[^\n]*` + c.why + `[^\n]*\n$`)
		for _, line := range c.lines {
			stdout, stderr, status := run(t, strings.Split(line, " ")...)
			if status != c.status || stdout != "" || !oneLine.MatchString(stderr) {
				t.Errorf("%q: got %d, %q and %q, want %d and one line with %q on standard error", line, status, stdout, stderr, c.status, c.why)
			}
		}
	}
	stdout, stderr, status := run(t, "-h")
	if status != 0 || stderr != "" {
		t.Errorf("-h: got %d and %q, want 0", status, stderr)
	}
	for flag, value := range map[string]string{
		"addr": `"127\.0\.0\.1:8080"`, "history": "4096", "max-users": "100000", "max-streams": "10000", "grace": "5s", "keepalive": "15s",
	} {
		if !regexp.MustCompile(`-` + flag + `\b[^\n]*\n[^\n]*\(default ` + value + `\)`).MatchString(stdout) {
			t.Errorf("-h: %q has no -%s with the default %s", stdout, flag, value)
		}
	}
	if !strings.Contains(stdout, "-host ") {
		t.Errorf("-h: %q has no -host", stdout)
	}
}

// run runs the server with args that it is to refuse.
func run(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	cmd.Run()
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// A server that is told to stop ends its streams after the last event, cuts what
// does not end, and exits in time: at once, where all ends by itself.
func TestStop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		signal os.Signal
		stuck  bool // there are connections that do not end by themselves
		within time.Duration
	}{
		{"SIGINT", os.Interrupt, false, 2 * time.Second},
		{"SIGTERM", syscall.SIGTERM, false, 2 * time.Second},
		{"SIGTERM with stuck connections", syscall.SIGTERM, true, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.do(t, "POST", "/users/alice", "")
			var streams [20]*stream
			for i := range streams {
				streams[i] = s.open(t, "/chat/alice")
			}
			if c.stuck {
				s.dial(t)
				io.WriteString(s.dial(t), "GET /users HTTP/1.1\r\n")
				io.WriteString(s.dial(t), s.requestText("POST /users/bob", "", "Content-Length: 9")+"x")
				s.dialStream(t, "/chat/frozen")
				s.flood(t, "alice", 500)
			}
			last := s.do(t, "POST", "/chat/alice", "the end").header.Get("Last-Event-ID")
			begin := time.Now()
			s.cmd.Process.Signal(c.signal)
			for _, st := range streams {
				var err error
				for err == nil {
					_, err = st.next()
				}
				if err != io.EOF || st.lastID != last {
					t.Errorf("a stream ends after %s with %v, want a proper end after %s", st.lastID, err, last)
				}
			}
			exit, ok := s.wait(10 * time.Second)
			if took := time.Since(begin); !ok || exit != nil || took >= c.within {
				t.Errorf("got the exit %v after %v, want status 0 in under %v", exit, took, c.within)
			}
		})
	}
}

// A server that waits for connections to end takes no new ones, and does not
// wait when it is told to stop again.
func TestSecondSignal(t *testing.T) {
	s := start(t)
	io.WriteString(s.dial(t), "GET /users HTTP/1.1\r\n")
	st := s.open(t, "/chat/alice")
	st.expectRun(t, "User alice connected to the chat.")
	s.cmd.Process.Signal(os.Interrupt)
	if e, err := st.next(); err != io.EOF {
		t.Errorf("the stream goes on with %+v and %v, want its end", e, err)
	}
	eventually(t, "new connections to be refused", func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	begin := time.Now()
	s.cmd.Process.Signal(syscall.SIGTERM)
	if exit, ok := s.wait(10 * time.Second); !ok || fmt.Sprint(exit) != "exit status 1" || time.Since(begin) > 2*time.Second {
		t.Errorf("got %v after %v, want exit status 1 at once", exit, time.Since(begin))
	}
}

// After kill -9 a server on the same address knows nothing of the one before,
// and its streams say so.
func TestKillAndRestart(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	st := s.open(t, "/chat/bob")
	st.expectRun(t, "User bob connected to the chat.")
	s.kill()
	if e, err := st.next(); err == nil || err == io.EOF {
		t.Errorf("got %+v and %v from a server that was killed, want no proper end", e, err)
	}

	again := start(t, "-addr", s.addr)
	if again.url != s.url {
		t.Errorf("the server is at %s, want %s", again.url, s.url)
	}
	list := again.do(t, "GET", "/users", "")
	id := list.header.Get("Last-Event-ID")
	epoch, seq, _ := strings.Cut(id, "-")
	if before, _, _ := strings.Cut(st.lastID, "-"); epoch == before || seq != "0" || list.body != "Connected users:\n" {
		t.Errorf("after %s got %s and %q, want another epoch and nobody", st.lastID, id, list.body)
	}
	back := again.subscribe(t, "/chat/bob", "Last-Event-ID", st.lastID)
	if m := openingBlock.FindStringSubmatch(back.block(t)); m == nil || m[2] != id || m[3] == "" {
		t.Errorf("the stream begins with %q, want a gap at %s", m, id)
	}
	back.lastID = id
	back.expectRun(t, "User bob connected to the chat.")
}
