// Tests that streams leave nothing behind, however they end.
package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ways are how a client can end its stream.
var ways = []func(conn *net.TCPConn){
	reset,
	func(conn *net.TCPConn) { conn.CloseWrite() },
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

func TestLostStreamsLeaveNeitherGoroutinesNorDescriptors(t *testing.T) {
	t.Parallel()
	const lost, few = 500, 100
	needProc(t, 4*lost)
	s := startForMinutes(t, "-grace", "50ms")
	s.do(t, "GET", "/users", "")
	idle := s.descriptors(t)
	for range lost / 10 {
		reset(s.ask(t, "/chat/early")) // before the response
	}
	streams := make([]*stream, lost)
	for i := range streams {
		streams[i] = s.subscribe(t, fmt.Sprintf("/chat/reader-%d", i))
	}
	for i, st := range streams {
		ways[i%len(ways)](st.conn)
	}
	eventually(t, time.Minute, "all users to leave", func() bool {
		return s.do(t, "GET", "/users", "").body == "Connected users:\n"
	})
	eventually(t, time.Minute, "all descriptors to be closed", func() bool {
		return s.descriptors(t) <= idle
	})
	s.cmd.Process.Signal(syscall.SIGQUIT) // Go prints all goroutines then.
	s.wait(time.Minute)
	if n := strings.Count(s.stderr.String(), "\ngoroutine "); n == 0 || n > few {
		t.Errorf("there are %d goroutines after %d streams, want fewer than %d", n, lost, few)
	}
}
