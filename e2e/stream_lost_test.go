// Tests that streams leave nothing behind, however they end.
package e2e

import (
	"fmt"
	"io"
	"net"
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

func TestLostStreamsLeaveNeitherMemoryNorDescriptors(t *testing.T) {
	t.Parallel()
	const (
		rounds, streams, atOnce = 2, 1500, 500

		// A stream that is kept costs more than 5 KiB, so all streams of a round would be 7 MB.
		drift = 2 << 20
	)
	needProc(t, 4*atOnce)
	s := startForMinutes(t, "-grace", "50ms")
	s.do(t, "GET", "/users", "")
	idle := s.descriptors(t)
	var memory [rounds]int
	for round := range rounds {
		for range streams / atOnce {
			for range atOnce / 10 {
				reset(s.ask(t, "/chat/early")) // before the response
			}
			s.mustLoseStreams(t, atOnce)
			eventually(t, time.Minute, "all descriptors to be closed", func() bool {
				return s.descriptors(t) <= idle
			})
		}
		memory[round] = s.memory(t, "VmRSS")
	}
	t.Logf("%d descriptors, %d bytes of memory after each round", idle, memory)
	if memory[1] > memory[0]+drift {
		t.Errorf("%d bytes of memory after %d streams and %d after as many again, "+
			"want at most %d more", memory[0], streams, memory[1], drift)
	}
}

// mustLoseStreams opens n streams, loses them in all ways, and waits until their users have left.
func (s *server) mustLoseStreams(t *testing.T, n int) {
	t.Helper()
	streams := make([]*stream, n)
	for i := range streams {
		streams[i] = s.subscribe(t, fmt.Sprintf("/chat/reader-%d", i))
		defer streams[i].body.Close()
	}
	for i, st := range streams {
		ways[i%len(ways)](st.conn)
	}
	eventually(t, time.Minute, "all users to leave", func() bool {
		return s.do(t, "GET", "/users", "").body == "Connected users:\n"
	})
}
