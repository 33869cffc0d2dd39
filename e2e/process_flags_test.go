// Tests the command line and what the process prints.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The start-up line is true as soon as it can be read, and no request causes another line.
func TestServerPrintsOnlyTheStartUpLine(t *testing.T) {
	s := start(t)
	s.send(t, "GET /users", "")
	s.send(t, "GET /nosuch", "")
	s.send(t, "POST /users/alice", "", "Host", "evil.example")
	s.exchange(t, "nonsense\r\n\r\n")
	s.subscribe(t, "/chat/alice").body.Close()
	_, err := s.stop(t)
	out, errs := s.stdout.String(), s.stderr.String()
	if err != nil || out != "Starting server at "+s.url+"\n" || errs != "" {
		t.Errorf("got %q, %q and %v, want nothing but the first line", out, errs, err)
	}
}

// What else makes no sense as a value is tested beside the hub (limits and times) and beside
// package origin (hosts).
func TestBadCommandLineGetsOneLineAndAStatus(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		args   string // separated by spaces
		status int
		prints string // a pattern
	}{
		{args: "-nosuch=1", status: 2, prints: "-nosuch"},
		{args: "-x\ny", status: 2, prints: "-x"},
		{args: "-addr 127.0.0.1:0 extra -h", status: 2,
			prints: `unexpected argument "extra": lobby takes only flags; -h lists the flags`},
		{args: "-etcd http://h http://user:secret@h", status: 2,
			prints: `unexpected argument, which may contain a password: lobby takes only flags`},
		{args: "-history many", status: 2, prints: "history"},
		{args: "-grace -1ns", status: 2, prints: "grace"},
		{args: "-host *.chat.example", status: 2, prints: `-host.*\b(write|give|use|try)\b`},
		{args: "-host bücher.example", status: 2, prints: `-host.*\bxn--`},
		{args: "-tls-cert cert.pem", status: 2, prints: "-tls-cert and -tls-key belong together"},
		{args: "-tls-cert nosuch.pem -tls-key nosuch.pem", status: 1, prints: "nosuch.pem"},
		{args: "-addr 127.0.0.1:0 -metrics nonsense", status: 1,
			prints: "try -metrics 127.0.0.1:9090"},
		{args: "-addr nonsense", status: 1,
			prints: `"nonsense" is not a valid address to listen at: .*; try -addr 127.0.0.1:8080`},
		{args: "-addr a\nb", status: 1, prints: "-addr"},
		{args: "-addr 127.0.0.1:", status: 1, prints: "port.*-addr"},
		{args: "-addr 192.0.2.1:0", status: 1, prints: "192.0.2.1.*-addr"}, // RFC 5737: nobody's
		{args: "-addr " + s.addr, status: 1, prints: "in use.*-addr"},
	} {
		mustExit(t, c.status, c.prints, strings.Split(c.args, " ")...)
	}
}

// mustExit fails the test unless the server rejects args with that exit status and one line on
// standard error that contains what the pattern describes.
func mustExit(t *testing.T, status int, pattern string, args ...string) {
	t.Helper()
	stdout, stderr, got := run(t, args...)
	oneLine := regexp.MustCompile(`^[^\n]*` + pattern + `[^\n]*\n$`)
	if got != status || stdout != "" || !oneLine.MatchString(stderr) {
		t.Errorf("%q: got %d, %q and %q, want %d and one line with %q on standard error",
			args, got, stdout, stderr, status, pattern)
	}
}

// run runs the server with args that do not start it.
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

func TestHelpNamesEveryFlagAndItsDefault(t *testing.T) {
	stdout, stderr, status := run(t, "-h")
	if status != 0 || stderr != "" {
		t.Errorf("got %d and %q, want 0", status, stderr)
	}
	for flag, end := range map[string]string{
		"addr": `\(default "127\.0\.0\.1:8080"\)`, "history": `\(default 4096\)`,
		"max-users": `\(default 100000\)`, "max-streams": `\(default 10000\)`,
		"grace": `\(default 5s\)`, "keepalive": `\(default 15s\)`, "host": "",
	} {
		if !regexp.MustCompile(`-` + flag + ` .*\n.*` + end).MatchString(stdout) {
			t.Errorf("%q has no -%s with %s", stdout, flag, end)
		}
	}
}

// The address in the start-up line also tells on which versions of IP the server listens.
func TestStartUpLineCanBeOpened(t *testing.T) {
	for _, c := range []struct {
		addr   string
		prints string   // before the port
		others []string // other addresses where the server responds
		silent []string // addresses where it does not
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
				if responds := err == nil; responds != slices.Contains(c.others, host) {
					t.Errorf("%s responds: %v (%v)", host, responds, err)
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
