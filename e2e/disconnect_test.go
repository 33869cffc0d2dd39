package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ways are those in which a network loses a stream.
var ways = []func(conn *net.TCPConn){
	reset,
	func(conn *net.TCPConn) { // with a FIN from either side
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
		conn.Close()
	},
	func(conn *net.TCPConn) { conn.CloseWrite() },
	func(conn *net.TCPConn) {
		io.WriteString(conn, "stray bytes")
		conn.Close()
	},
	func(conn *net.TCPConn) {
		io.WriteString(conn, "stray bytes")
		reset(conn)
	},
	func(conn *net.TCPConn) {
		io.WriteString(conn, "POST /users/stray HTTP/1.1\r\nHost: localhost\r\n\r\n")
		conn.Close()
	},
}

// reset closes conn with an RST.
func reset(conn *net.TCPConn) {
	conn.SetLinger(0)
	conn.Close()
}

// The server gives back what it held for streams, in whatever way they are lost.
func TestLostStreamsLeaveNothing(t *testing.T) {
	t.Parallel()
	const (
		rounds, streams, atOnce = 2, 3000, 500

		// A stream that is kept costs more than 5 KiB, most of it the stacks of its
		// goroutines, so that all of a round would be 15 MB.
		drift = 4 << 20
	)
	needProc(t, 4*atOnce)
	quiet := startForMinutes(t, "-grace", "50ms", "-keepalive", "1h")
	for _, way := range ways { // alone, when nothing is written that would tell of the loss
		quiet.loseStreams(t, 1, way)
	}
	s := startForMinutes(t, "-grace", "50ms")
	s.do(t, "GET", "/users", "")
	idle := s.descriptors(t)
	var memory [rounds]int
	for round := range rounds {
		for range streams / atOnce {
			for range atOnce / 10 {
				reset(s.ask(t, "/chat/early")) // before the answer
			}
			s.loseStreams(t, atOnce, ways...)
			eventually(t, "all descriptors to come back", func() bool { return s.descriptors(t) <= idle })
		}
		memory[round] = s.memory(t, "VmRSS")
	}
	t.Logf("%d descriptors, %d bytes of memory after each round", idle, memory)
	if memory[1] > memory[0]+drift {
		t.Errorf("%d bytes of memory after %d streams and %d after as many again, want at most %d more", memory[0], streams, memory[1], drift)
	}
}

// loseStreams opens n streams, loses them in those ways, and waits until their
// users have left.
func (s *server) loseStreams(t *testing.T, n int, ways ...func(*net.TCPConn)) {
	t.Helper()
	streams, conns := make([]*stream, n), make([]*net.TCPConn, n)
	for i := range n {
		streams[i], conns[i] = s.dialStream(t, fmt.Sprintf("/chat/reader-%d", i))
		defer conns[i].Close()
	}
	for i, st := range streams {
		st.expect(t, fmt.Sprintf("User reader-%d connected to the chat.", i))
	}
	for i, conn := range conns {
		ways[i%len(ways)](conn)
	}
	eventually(t, "all users to leave", func() bool { return s.do(t, "GET", "/users", "").body == "Connected users:\n" })
}

// With no descriptor left, the server goes on with the connections that it has,
// and takes new ones when others are closed.
func TestServerWithoutDescriptorsGoesOn(t *testing.T) {
	t.Parallel()
	const limit, asked = 64, 80
	needProc(t, 1000)
	s := startForMinutes(t)
	alice := s.caller(t)
	if _, err := alice.call("POST", "/users/alice", ""); err != nil {
		t.Fatal(err)
	}
	bob := s.subscribe(t, "/chat/bob")
	bob.expect(t, "User bob connected to the chat.")
	prlimit := exec.Command("prlimit", fmt.Sprintf("--pid=%d", s.cmd.Process.Pid), fmt.Sprintf("--nofile=%d", limit))
	if out, err := prlimit.CombinedOutput(); err != nil {
		missing(t, "can't limit the server's descriptors: %v: %s", err, out)
	}
	conns := make([]*net.TCPConn, asked)
	for i := range conns {
		conns[i] = s.ask(t, fmt.Sprintf("/chat/reader-%d", i))
	}
	eventually(t, "the server to have no descriptor left", func() bool { return s.descriptors(t) >= limit })

	for n := range 20 {
		text := fmt.Sprintf("message %d", n)
		if r, err := alice.call("POST", "/chat/alice", text); err != nil || r.status != 200 {
			t.Fatalf("say: got %d, %v, want 200", r.status, err)
		}
		for e := (event{}); e.data != "alice: "+text; { // after arrivals
			var err error
			if e, err = bob.next(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, conn := range conns[:asked/2] {
		conn.Close()
	}
	for i, conn := range conns[asked/2:] {
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("stream %d, when others were closed: got %+v, %v, want 200", asked/2+i, resp, err)
		}
	}
}

// ask asks for path over a connection of its own.
func (s *server) ask(t testing.TB, path string) *net.TCPConn {
	t.Helper()
	conn := s.dial(t)
	if _, err := io.WriteString(conn, s.requestText("GET "+path, "")); err != nil {
		t.Fatal(err)
	}
	return conn
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

// memory returns the bytes that /proc/PID/status tells for the server's VmRSS
// or VmHWM.
func (s *server) memory(t testing.TB, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), field+":")
	line, _, _ = strings.Cut(line, " kB")
	kib, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// needProc is for tests that look into processes and open so many files.
func needProc(t *testing.T, files uint64) {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		missing(t, "there is no /proc")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) < files {
		missing(t, "%d files may be open, the test needs %d: raise it with ulimit -n", limit.Cur, files)
	}
}

// eventually waits for a condition that comes true within a minute.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}
