// Tests how the process ends after a signal or two, and under load. What clients notice of kill -9
// is tested in clients_test.go and proxy_test.go.
package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A client has as long for the end of a stream as for an event, however long ago the last event
// was.
func TestServerStopsAtOnceIfNothingIsStuck(t *testing.T) {
	t.Parallel()
	for _, end := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(end.String(), func(t *testing.T) {
			t.Parallel()
			if signal.Ignored(end) {
				t.Skip("this process ignores the signal, and so do those that it starts")
			}
			s := startForMinutes(t)
			st := s.subscribe(t, "/chat/alice")
			st.expect(t, arrives("alice"))
			time.Sleep(12 * time.Second) // longer than a write may take, shorter than the keep-alive
			begin := time.Now()
			s.cmd.Process.Signal(end)
			if e, err := st.next(); err != io.EOF {
				t.Errorf("got %+v, %v, want the body's proper end", e, err)
			}
			exit, ok := s.wait(10 * time.Second)
			if took := time.Since(begin); !ok || exit != nil || took >= 3*time.Second {
				t.Errorf("got the exit %v after %v, want 0 at once", exit, took)
			}
		})
	}
}

// Whatever the server still accepts has an event, and every stream receives that event. Connections
// that do not end by themselves are cut off.
func TestServerThatStopsUnderLoadEndsAllStreamsAlike(t *testing.T) {
	t.Parallel()
	const streams, speakers = 100, 20
	s := startForMinutes(t)
	s.do(t, "POST", "/users/alice", "")
	var (
		read              [streams][]event
		accepted          [speakers][]event
		reading, speaking sync.WaitGroup
	)
	for i := range read {
		st := s.subscribe(t, fmt.Sprintf("/chat/reader-%d", i))
		reading.Go(func() { read[i] = st.readToEnd(t) })
	}
	for i := range speakers {
		c := s.caller(t)
		speaking.Go(func() {
			for n := 0; ; n++ {
				text := fmt.Sprintf("message %d of %d", n, i)
				r, err := c.call("POST", "/chat/alice", text)
				if err != nil || r.status != 200 {
					return
				}
				e := event{r.header.Get("Last-Event-ID"), "message", "alice: " + text}
				accepted[i] = append(accepted[i], e)
			}
		})
	}
	s.dial(t)
	io.WriteString(s.dial(t), "GET /users HTTP/1.1\r\n")
	io.WriteString(s.dial(t), s.text("POST /users/bob", "", "Content-Length", "9")+"x")
	s.subscribeSlowly(t, "/chat/frozen")
	s.mustFlood(t, "alice", 500)
	if took, exit := s.stop(t); exit != nil || took >= 5*time.Second {
		t.Errorf("got the exit %v after %v, want 0 in under 5 s", exit, took)
	}
	speaking.Wait()
	reading.Wait()
	if t.Failed() {
		return
	}

	all, epoch := read[0], epochOf(read[0][0].id)
	for i, events := range read {
		mustFollow(t, epoch, numberOf(epoch, events[0].id), events)
		if !slices.Equal(events, all[len(all)-len(events):]) {
			t.Errorf("stream %d ends with %+v, want %+v",
				i, events[len(events)-1], all[len(all)-1])
		}
	}
	for _, e := range slices.Concat(accepted[:]...) {
		n := numberOf(epoch, e.id) - numberOf(epoch, all[0].id)
		if n < 0 || n >= len(all) || all[n] != e {
			t.Errorf("the response for %+v was 200, but no stream has the event", e)
		}
	}
}

// Without the second signal, the server would end later, with exit status 0.
func TestSecondSignalEndsTheServerAtOnce(t *testing.T) {
	s := start(t)
	conn := s.dial(t)
	io.WriteString(conn, s.text("POST /users/alice", "",
		"Expect", "100-continue", "Content-Length", "2"))
	if r := mustRead(t, bufio.NewReader(conn), "POST"); r.status != 100 {
		t.Fatalf("got %d, want 100 from a server that waits for the body", r.status)
	}
	s.cmd.Process.Signal(os.Interrupt)
	s.cmd.Process.Signal(syscall.SIGTERM) // The same signal, forwarded: it does not count.
	eventually(t, time.Minute, "new connections to be refused", func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if _, ok := s.wait(600 * time.Millisecond); ok {
		t.Fatal("a second signal within half a second has ended the server")
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	if exit, ok := s.wait(10 * time.Second); !ok || fmt.Sprint(exit) != "exit status 1" {
		t.Errorf("got %v, want exit status 1", exit)
	}
}
