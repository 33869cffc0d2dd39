// Here belongs the process: its command line, what it prints, signals and exit
// statuses.
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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The server's one line is true as soon as it can be read, and no request makes
// the server print another.
func TestOneLineIsPrinted(t *testing.T) {
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
	startUp := regexp.MustCompile(`^Starting server at http://(127\.0\.0\.1:[1-9]\d*)\n$`)
	m := startUp.FindSubmatch(line[:n])
	if m == nil {
		t.Fatalf("the start-up line is %q", line[:n])
	}
	s := &server{url: "http://" + string(m[1]), addr: string(m[1])}
	s.send(t, "GET /users", "")
	s.send(t, "GET /nosuch", "")
	s.send(t, "POST /users/alice", "", "Host", "evil.example")
	s.exchange(t, "nonsense\r\n\r\n")
	s.subscribe(t, "/chat/alice").body.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil || len(rest) > 0 || stderr.Len() > 0 {
		t.Errorf("got %q, %q and %v, want nothing but the first line", rest, &stderr, err)
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		status int
		why    string   // a pattern of what is printed
		lines  []string // arguments, separated by spaces
	}{
		{status: 2, why: "-nosuch", lines: []string{
			"-nosuch", "-nosuch=1", "-addr 127.0.0.1:0 -nosuch",
		}},
		{status: 2, why: "-x", lines: []string{"-x\ny"}},
		{status: 2, why: "extra", lines: []string{
			"extra", "-addr 127.0.0.1:0 extra -h", "-history 5 extra",
		}},
		{status: 2, why: "history", lines: []string{
			"-history", "-history 0", "-history -1", "-history many",
			"-history 99999999999999999999",
		}},
		{status: 2, why: "users", lines: []string{"-max-users 0", "-max-users -1"}},
		{status: 2, why: "streams", lines: []string{
			"-max-streams 0", "-max-streams -1", "-max-streams 1.5",
		}},
		{status: 2, why: "grace", lines: []string{"-grace -1ns", "-grace soon"}},
		{status: 2, why: "keep-?alive", lines: []string{
			"-keepalive", "-keepalive 0", "-keepalive -1s",
		}},
		{status: 1, why: "-addr", lines: []string{
			"-addr ", "-addr nonsense", "-addr a\nb", "-addr [::1:0",
		}},
		{status: 1, why: "port.*-addr", lines: []string{
			"-addr 127.0.0.1", "-addr 127.0.0.1:", "-addr 127.0.0.1:65536", "-addr 127.0.0.1:99999",
		}},
		{status: 1, why: "192.0.2.1.*-addr", lines: []string{
			"-addr 192.0.2.1:0", // which is no machine's (RFC 5737)
		}},
		{status: 1, why: "in use.*-addr", lines: []string{"-addr " + s.addr}},
	} {
		for _, line := range c.lines {
			mustExit(t, c.status, c.why, strings.Split(line, " ")...)
		}
	}
}

// A -host that no request can have would silently allow nothing. The error says
// what to write instead.
func TestHostsThatNoRequestHasAreRefused(t *testing.T) {
	t.Parallel()
	for _, host := range []string{
		"", ".", "*", "*.chat.example", "chat.*", "a b", "a/b", "a@b", "http:x", "http://x/",
		"chat.example:", "chat.example:abc", "chat.example:80:80", "chat.example:99999", ":8080",
		"[::1", "[::1]x", "[chat.example]", "chat..example", "chat.example?x", "a\tb",
		"bücher.example",
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			help := `\b(write|give|instead|such as|use|try)\b`
			if host == "bücher.example" {
				help = `\bxn--`
			}
			mustExit(t, 2, "-host.*"+help, "-addr", "127.0.0.1:0", "-host", host)
		})
	}
	mustExit(t, 2, "-host", "-host")
}

// The start-up line is an address that can be opened as it stands, and names the
// versions of IP on which the server listens.
func TestStartUpLineCanBeOpened(t *testing.T) {
	for _, c := range []struct {
		addr   string
		prints string   // before the port
		others []string // further addresses that answer
		silent []string // addresses that do not
	}{
		{addr: "127.0.0.1:0", prints: "http://127.0.0.1:", silent: []string{"[::1]"}},
		{addr: "[::1]:0", prints: "http://[::1]:", silent: []string{"127.0.0.1"}},
		{addr: "0.0.0.0:0", prints: "http://0.0.0.0:",
			others: []string{"127.0.0.1"}, silent: []string{"[::1]"}},
		{addr: ":0", prints: "http://localhost:", others: []string{"127.0.0.1", "[::1]"}},
	} {
		t.Run(c.addr, func(t *testing.T) {
			if strings.Contains(c.addr+fmt.Sprint(c.others), "::1") {
				needIPv6(t)
			}
			s := start(t, "-addr", c.addr)
			port, ok := strings.CutPrefix(s.url, c.prints)
			if _, err := strconv.ParseUint(port, 10, 16); !ok || err != nil {
				t.Errorf("the address is %q, want %q and a port", s.url, c.prints)
			}
			if r := s.do(t, "GET", "/users", ""); r.status != 200 {
				t.Errorf("%s: got %d %q, want 200", s.url, r.status, r.body)
			}
			_, port, _ = net.SplitHostPort(s.addr)
			for _, host := range append(c.others, c.silent...) {
				conn, err := net.Dial("tcp", host+":"+port)
				if err == nil {
					conn.Close()
				}
				if answers := err == nil; answers != slices.Contains(c.others, host) {
					t.Errorf("%s answers: %v (%v)", host, answers, err)
				}
			}
		})
	}
}

// needIPv6 skips a test if the machine has no IPv6.
func needIPv6(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		missing(t, "there is no IPv6: %v", err)
	}
	listener.Close()
}

// mustExit fails the test unless the server refuses args with that exit status and
// one line on standard error that has what the pattern describes.
func mustExit(t *testing.T, status int, pattern string, args ...string) {
	t.Helper()
	stdout, stderr, got := run(t, args...)
	oneLine := regexp.MustCompile(`^[^\n]*` + pattern + `[^\n]*\n$`)
	if got != status || stdout != "" || !oneLine.MatchString(stderr) {
		t.Errorf("%q: got %d, %q and %q, want %d and one line with %q on standard error",
			args, got, stdout, stderr, status, pattern)
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	stdout, stderr, status := run(t, "-h")
	if status != 0 || stderr != "" {
		t.Errorf("got %d and %q, want 0", status, stderr)
	}
	for flag, value := range map[string]string{
		"addr": `"127\.0\.0\.1:8080"`, "history": "4096", "max-users": "100000",
		"max-streams": "10000", "grace": "5s", "keepalive": "15s",
	} {
		help := regexp.MustCompile(`-` + flag + `\b[^\n]*\n[^\n]*\(default ` + value + `\)`)
		if !help.MatchString(stdout) {
			t.Errorf("%q has no -%s with the default %s", stdout, flag, value)
		}
	}
	if !strings.Contains(stdout, "-host ") {
		t.Errorf("%q has no -host", stdout)
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
// does not end, and exits in time: at once if everything ends by itself.
func TestServerStopsInTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		signal os.Signal
		stuck  bool // there are connections that do not end by themselves
		within time.Duration
	}{
		{name: "SIGINT", signal: os.Interrupt, within: 2 * time.Second},
		{name: "SIGTERM", signal: syscall.SIGTERM, within: 2 * time.Second},
		{name: "SIGTERM with stuck connections", signal: syscall.SIGTERM, stuck: true,
			within: 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.do(t, "POST", "/users/alice", "")
			var streams [20]*stream
			for i := range streams {
				streams[i] = s.subscribe(t, "/chat/alice")
			}
			if c.stuck {
				s.dial(t)
				io.WriteString(s.dial(t), "GET /users HTTP/1.1\r\n")
				io.WriteString(s.dial(t), s.text("POST /users/bob", "", "Content-Length", "9")+"x")
				s.subscribeSlowly(t, "/chat/frozen")
				s.mustFlood(t, "alice", 500)
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
					t.Errorf("a stream ends after %s with %v, want a proper end after %s",
						st.lastID, err, last)
				}
			}
			exit, ok := s.wait(10 * time.Second)
			if took := time.Since(begin); !ok || exit != nil || took >= c.within {
				t.Errorf("got the exit %v after %v, want 0 in under %v", exit, took, c.within)
			}
		})
	}
}

// A server that waits for connections to end takes no new ones, and does not
// wait when it is told to stop again.
func TestSecondSignalEndsTheServerAtOnce(t *testing.T) {
	s := start(t)
	io.WriteString(s.dial(t), "GET /users HTTP/1.1\r\n")
	st := s.subscribe(t, "/chat/alice")
	st.expectRun(t, arrives("alice"))
	s.cmd.Process.Signal(os.Interrupt)
	if e, err := st.next(); err != io.EOF {
		t.Errorf("the stream goes on with %+v and %v, want its end", e, err)
	}
	eventually(t, time.Minute, "new connections to be refused", func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	begin := time.Now()
	s.cmd.Process.Signal(syscall.SIGTERM)
	exit, ok := s.wait(10 * time.Second)
	took := time.Since(begin)
	if !ok || fmt.Sprint(exit) != "exit status 1" || took > 2*time.Second {
		t.Errorf("got %v after %v, want exit status 1 at once", exit, took)
	}
}

// After kill -9 a server on the same address knows nothing of the one before,
// and its streams say so.
func TestKilledServerBeginsANew(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	st := s.subscribe(t, "/chat/bob")
	st.expectRun(t, arrives("bob"))
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
	if epoch == epochOf(st.lastID) || seq != "0" || list.body != "Connected users:\n" {
		t.Errorf("after %s got %s and %q, want another epoch and nobody", st.lastID, id, list.body)
	}
	back := again.subscribe(t, "/chat/bob", "Last-Event-ID", st.lastID)
	if isGap := back.readOpening(t); !isGap || back.lastID != id {
		t.Errorf("the stream begins at %s with a gap: %v, want a gap at %s", back.lastID, isGap, id)
	}
	back.expectRun(t, arrives("bob"))
}
