// Here belongs that streams that end in any way leave nothing behind.
package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// ways are how streams are lost.
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

// A stream's client has nothing to say. One that says more than a little loses its
// stream at once, so that its end is always noticed.
func TestStreamWhoseClientTalksIsClosed(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	s := start(t, "-grace", grace.String())
	watcher, quiet := s.subscribe(t, "/chat/watcher"), s.subscribe(t, "/chat/quiet")
	watcher.expectRun(t, arrives("watcher"), arrives("quiet"))
	if _, err := quiet.conn.Write(make([]byte, 32<<10)); err != nil {
		t.Fatal(err)
	}
	for _, stray := range []string{
		strings.Repeat("x", 256<<10),
		strings.Repeat(s.text("POST /users/stray", ""), 8000),
	} {
		loud := s.subscribe(t, "/chat/loud")
		watcher.expectRun(t, arrives("loud"))
		loud.expectRun(t, arrives("loud"))
		begin := time.Now()
		go io.WriteString(loud.conn, stray) // which may be more than the server takes
		loud.mustBeCut(t)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("the stream was closed after %v, want it closed at once", took)
		}
		watcher.expectRun(t, leaves("loud"))
		if took := time.Since(begin); took < grace || took > grace+3*time.Second {
			t.Errorf("the user left after %v, want %v", took, grace)
		}
	}
	quiet.body.Close() // is noticed too
	watcher.expectRun(t, leaves("quiet"))
}

// The server gives back what it held for streams, however they are lost.
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
		quiet.mustLoseStreams(t, 1, way)
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
			s.mustLoseStreams(t, atOnce, ways...)
			eventually(t, time.Minute, "all descriptors to come back", func() bool {
				return s.descriptors(t) <= idle
			})
		}
		memory[round] = s.memory(t, "VmRSS")
	}
	t.Logf("%d descriptors, %d bytes of memory after each round", idle, memory)
	if memory[1] > memory[0]+drift {
		t.Errorf("%d bytes of memory after %d streams, %d after as many again, want %d more",
			memory[0], streams, memory[1], drift)
	}
}

// mustLoseStreams opens n streams, loses them in those ways, and waits until their
// users have left.
func (s *server) mustLoseStreams(t *testing.T, n int, ways ...func(*net.TCPConn)) {
	t.Helper()
	streams := make([]*stream, n)
	for i := range streams {
		streams[i] = s.subscribe(t, fmt.Sprintf("/chat/reader-%d", i))
		defer streams[i].body.Close()
	}
	for i, st := range streams {
		st.expect(t, arrives(fmt.Sprintf("reader-%d", i)))
	}
	for i, st := range streams {
		ways[i%len(ways)](st.conn)
	}
	eventually(t, time.Minute, "all users to leave", func() bool {
		return s.do(t, "GET", "/users", "").body == "Connected users:\n"
	})
}
