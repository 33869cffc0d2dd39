//go:build linux

// Tests of the server's connections in the kernel, and the helpers that put a client behind a slow
// or broken network. The latter make network namespaces, so they run only as root and on request
// (-netns).
package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

var netns = flag.Bool("netns", false, "run the tests that make network namespaces")

// Over Multipath TCP, the options that detect vanished clients and bound memory fail.
func TestServerDoesNotSpeakMultipathTCP(t *testing.T) {
	t.Parallel()
	var dialer net.Dialer
	dialer.SetMultipathTCP(true) // where the system can
	conn, err := dialer.Dial("tcp", start(t).addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if speaks, err := conn.(*net.TCPConn).MultipathTCP(); speaks || err != nil {
		t.Errorf("the server speaks Multipath TCP: %v, %v", speaks, err)
	}
}

// Without a limit, the kernel would accept megabytes for each client that does not read. It sends
// what it has accepted even when the server is gone.
func TestKernelHoldsLittleForAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	const most = 128 << 10
	s := start(t)
	conn := s.dialNarrow(t, 4<<10)
	io.WriteString(conn, s.text("GET /chat/bob", ""))
	s.mustFlood(t, "alice", 1000)
	s.kill()
	held, err := io.Copy(io.Discard, conn)
	t.Logf("the kernel held %d KiB", held>>10)
	if held == 0 || held > most || err != nil {
		t.Errorf("the kernel held %d bytes (%v), want some and at most %d", held, err, most)
	}
}

// A send buffer of 64 KiB would allow 119 KB/s with this round trip.
func TestFarClientGetsALongListQuickly(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const users, roundTrip, limit = 15_000, 600 * time.Millisecond, 15 * time.Second
	phone := newPhone(t, 0, roundTrip/2)
	s := start(t, "-addr", phone.server+":0")
	const snowmen = 59 // of 3 bytes, in a name of 64 code points
	s.mustRepeat(t, users, func(n int) string {
		return s.text(fmt.Sprintf("POST /users/%s%05d", strings.Repeat("%E2%98%83", snowmen), n), "")
	})
	size := len("Connected users:") + users*(len("\nUser: ")+3*snowmen+5)
	begin := time.Now()
	fmt.Fprintln(phone.stdin, s.url+"/users")
	if _, err := io.CopyN(io.Discard, phone.stdout, int64(size)); err != nil {
		t.Fatalf("after %v: %v", time.Since(begin), err)
	}
	took := time.Since(begin)
	t.Logf("%d bytes in %v: %.0f KB/s", size, took, float64(size)/1000/took.Seconds())
	if took > limit {
		t.Errorf("%d bytes took %v, want at most %v", size, took, limit)
	}
}

// inNamespace runs the test once more in a process with its own network namespace, and reports
// whether that is where it was called.
func inNamespace(t *testing.T) bool {
	t.Helper()
	if !*netns {
		t.Skip("it makes network namespaces; the flag -netns runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	const inside = "LOBBY_NETNS_INSIDE" // tells the second process that it is in the namespace
	if os.Getenv(inside) != "" {
		mustRun(t, "ip", "link", "set", "lo", "up")
		return true
	}
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
	return false
}

// phone is a client in its own network namespace, which a wire connects with the server's.
type phone struct {
	server string // the address of the server's end of the wire
	wire   *wire
	stdin  io.Writer // of phoneScript
	stdout io.Reader // what curl receives
	stream sseReader // of stdout
}

// phoneScript does its next step whenever it has read a line.
const phoneScript = `
	read -r address
	ip address add "$address" dev phone
	ip link set phone up
	read -r url
	exec curl -skN "$url"`

// newPhone returns a phone with the nth wire, on which packets take delay in each direction.
func newPhone(t *testing.T, n int, delay time.Duration) *phone {
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
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	near, far := fmt.Sprintf("near%d", n), fmt.Sprintf("far%d", n)
	p := &phone{server: fmt.Sprintf("10.0.%d.1", n), wire: new(wire), stdin: stdin, stdout: stdout}
	p.stream = sseReader{r: bufio.NewReader(stdout)}
	nearEnd, farEnd := newTUN(t, near), newTUN(t, far)
	go p.wire.carry(nearEnd, farEnd, delay)
	go p.wire.carry(farEnd, nearEnd, delay)
	mustRun(t, "ip", "link", "set", far, "netns", fmt.Sprint(cmd.Process.Pid), "name", "phone")
	mustRun(t, "ip", "address", "add", p.server+"/24", "dev", near)
	mustRun(t, "ip", "link", "set", near, "up")
	fmt.Fprintf(stdin, "10.0.%d.2/24\n", n)
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

// wire carries packets between two network devices. While it is down, it drops them, and neither
// end notices.
type wire struct{ isDown atomic.Bool }

// carry carries packets in one direction, until the test closes the devices.
func (w *wire) carry(from, to *os.File, delay time.Duration) {
	type packet struct {
		due   time.Time
		bytes []byte
	}
	packets := make(chan packet, 10_000)
	defer close(packets)
	go func() {
		for p := range packets {
			time.Sleep(time.Until(p.due))
			to.Write(p.bytes)
		}
	}()
	for {
		buffer := make([]byte, 2000)
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if !w.isDown.Load() {
			packets <- packet{time.Now().Add(delay), buffer[:n]}
		}
	}
}

// newTUN returns a network device of that name: what the kernel sends through it can be read, and
// what is written arrives there. The device ends with the test.
func newTUN(t *testing.T, name string) *os.File {
	t.Helper()
	const tunSetIff, iffTUN, iffNoPI = 0x400454ca, 0x1, 0x1000 // see Linux's linux/if_tun.h
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], name)
	request.flags = iffTUN | iffNoPI
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetIff,
		uintptr(unsafe.Pointer(&request))); errno != 0 {
		syscall.Close(fd)
		t.Fatal(errno)
	}
	device := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { device.Close() })
	return device
}

func mustRun(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
