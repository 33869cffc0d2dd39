//go:build linux

// Tests that a client whose network fails is noticed in time. They make network namespaces, so they
// run only as root and on request:
//
//	go test -count=1 -run Vanished -v . -netns
package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

var netns = flag.Bool("netns", false, "run the tests that make network namespaces")

// goneWithin is how long a user may stay whose client has vanished, the grace period included.
const goneWithin = 45 * time.Second

func TestUserWhoseClientHasVanishedLeavesInTime(t *testing.T) {
	if !*netns {
		t.Skip("it makes network namespaces; the flag -netns runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	const inside = "LOBBY_NETNS_INSIDE" // tells this test's second process, in the namespace
	if os.Getenv(inside) == "" {
		t.Parallel()
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v",
			"-test.parallel=8", "-test.timeout=2m", "-netns")
		again.Env = append(os.Environ(), inside+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := again.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}

	mustRun(t, "ip", "link", "set", "lo", "up")
	everySecond := make([]int, 60)
	for i := range everySecond {
		everySecond[i] = i
	}
	for i, test := range []struct {
		room      string
		keepAlive string
		messages  []int // seconds after the cut
	}{
		{"quiet", "15s", nil},
		{"quiet without comments", "10m", nil},
		{"busy", "15s", everySecond},
		{"busy without comments", "10m", everySecond},

		// While a message is unacknowledged, the kernel does not probe. So a connection lasts
		// longest if a message is sent just before the probes would have ended it.
		{"one message after 10 s", "10m", []int{10}},
		{"one message after 15 s", "10m", []int{15}},
		{"one message after 20 s", "10m", []int{20}},
		{"one message after 25 s", "10m", []int{25}},
	} {
		t.Run(test.room, func(t *testing.T) {
			t.Parallel()
			phone := newPhone(t, i)
			s := start(t, "-addr", phone.server+":0", "-keepalive", test.keepAlive)
			s.do(t, "POST", "/users/bob", "")
			phone.subscribe(t, s.url+"/chat/phone")
			phone.vanish()
			cut, messages := time.Now(), test.messages
			took := eventually(t, goneWithin, "the user to leave", func() bool {
				if len(messages) > 0 && time.Since(cut) >= time.Duration(messages[0])*time.Second {
					s.do(t, "POST", "/chat/bob", "still present?")
					messages = messages[1:]
				}
				return !strings.Contains(s.do(t, "GET", "/users", "").body, "User: phone")
			})
			t.Logf("it left %.1f s after the cut", took.Seconds())
		})
	}
}

// phone is a client in its own network namespace, which has a link to the server's.
type phone struct {
	server string    // the address of the server's end of the link
	stdin  io.Writer // of phoneScript
	stream sseReader
}

// phoneScript does its next step whenever it has read a line.
const phoneScript = `
	read -r address
	ip address add "$address" dev phone
	ip link set phone up
	read -r url
	curl -sN "$url" &
	read -r _
	ip link set phone down
	wait`

// newPhone returns a phone that uses the nth link.
func newPhone(t *testing.T, n int) *phone {
	t.Helper()
	cmd := exec.Command("sh", "-ec", phoneScript)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // The namespace ends with its processes, and the link with the namespace.
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	p := &phone{fmt.Sprintf("10.0.%d.1", n), stdin, sseReader{r: bufio.NewReader(stdout)}}
	link := fmt.Sprintf("phone%d", n)
	mustRun(t, "ip", "link", "add", link, "type", "veth",
		"peer", "name", "phone", "netns", fmt.Sprint(cmd.Process.Pid))
	mustRun(t, "ip", "address", "add", p.server+"/24", "dev", link)
	mustRun(t, "ip", "link", "set", link, "up")
	fmt.Fprintf(p.stdin, "10.0.%d.2/24\n", n)
	return p
}

// subscribe opens a stream and reads the arrival of its user, phone.
func (p *phone) subscribe(t *testing.T, url string) {
	t.Helper()
	fmt.Fprintln(p.stdin, url)
	if e, err := p.stream.next(); err != nil || e.data != arrives("phone") {
		t.Fatalf("the stream begins with %q, %v, want the arrival", e.data, err)
	}
}

// vanish takes the phone's end of the link down.
func (p *phone) vanish() {
	fmt.Fprintln(p.stdin)
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
