// Tests that a slow reader delays nobody, costs little memory, and receives every event or a gap,
// or is cut off.
package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestReaderThatFallsBehindContinuesAfterAGap(t *testing.T) {
	t.Parallel()
	addr := reserve(t)
	s := startForMinutes(t, "-history", "10", "-metrics", addr)
	late := s.subscribeSlowly(t, "/chat/late")
	s.mustFlood(t, "alice", 6000)
	var reading sync.WaitGroup
	var gaps int
	reading.Go(func() {
		var err error
		if gaps, err = late.countGaps(); err != nil || gaps == 0 {
			t.Errorf("got %d gaps and %v, want a gap", gaps, err)
		}
	})
	s.sayLastWordUntilHeard(t, &reading)
	mustShow(t, addr, fmt.Sprintf("lobby_gaps_total %d", gaps))
	if figure(t, metrics(t, addr), "lobby_lags_total") < gaps {
		t.Error("each gap followed from falling behind, which the metrics do not count")
	}
}

// Among the readers here, many never read and one reads far too slowly.
func TestSlowReadersDelayNobody(t *testing.T) {
	t.Parallel()
	const (
		healthy, frozen    = 100, 100
		speakers, messages = 4, 12_000
	)
	needProc(t, 1000)
	s := startForMinutes(t, "-grace", "0")
	s.do(t, "POST", "/users/alice", "")
	var frozenConns [frozen]*net.TCPConn
	for i := range frozenConns {
		frozenConns[i] = s.ask(t, fmt.Sprintf("/chat/frozen-%d", i))
	}
	countFrozen := func() int {
		return strings.Count(s.do(t, "GET", "/users", "").body, "User: frozen-")
	}
	eventually(t, time.Minute, "the frozen readers to arrive", func() bool {
		return countFrozen() == frozen
	})
	var reading, speaking sync.WaitGroup
	for i := range healthy {
		st := s.subscribe(t, fmt.Sprintf("/chat/healthy-%d", i))
		reading.Go(func() {
			if gaps, err := st.countGaps(); err != nil || gaps > 0 {
				t.Errorf("healthy reader %d: got %d gaps and %v, want every event", i, gaps, err)
			}
		})
	}
	trickling := s.subscribe(t, "/chat/trickling")
	enough := make(chan struct{})
	trickling.r = bufio.NewReader(&slowly{trickling.r, 1000, 20 * time.Millisecond, enough})
	reading.Go(func() {
		gaps, err := trickling.countGaps()
		if errors.Is(err, errHole) || err == nil && gaps == 0 {
			t.Errorf("a reader of 50 KB/s got %d gaps and %v, want a gap or a closed connection",
				gaps, err)
		}
	})

	begin := time.Now()
	for range speakers {
		c := s.caller(t)
		speaking.Go(func() {
			for range messages / speakers {
				begin := time.Now()
				r, err := c.call("POST", "/chat/alice", strings.Repeat("x", 4096))
				took := time.Since(begin)
				if err != nil || r.status != 200 || took > 5*time.Second {
					t.Errorf("say: got %d, %v after %v, want 200 long before a reader is cut off",
						r.status, err, took)
					return
				}
			}
		})
	}
	eventually(t, 30*time.Second, "a frozen reader to be cut off", func() bool {
		return countFrozen() < frozen
	})
	if took := time.Since(begin); took < 9*time.Second {
		t.Errorf("the first frozen reader was cut off after %v, want 10 s", took)
	}
	eventually(t, 20*time.Second, "all frozen readers to be cut off", func() bool {
		return countFrozen() == 0
	})
	speaking.Wait()
	for i, conn := range frozenConns {
		conn.SetDeadline(time.Now().Add(time.Minute))
		_, err := mustStream(t, conn, bufio.NewReader(conn)).countGaps()
		if err == nil || errors.Is(err, errHole) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("frozen reader %d: got %v, want events without a hole and then the end",
				i, err)
		}
	}
	close(enough)
	s.sayLastWordUntilHeard(t, &reading)
}

// sayLastWordUntilHeard says the last word once a second until reading is done: a gap may swallow
// one.
func (s *server) sayLastWordUntilHeard(t *testing.T, reading *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() { reading.Wait(); close(done) }()
	for {
		s.sayLastWord(t)
		select {
		case <-done:
			return
		case <-time.After(time.Second):
		}
	}
}

// dialNarrow opens a connection on which the client's kernel accepts few bytes that the test does
// not read. It ends with the test.
func (s *server) dialNarrow(t testing.TB, bytes int) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		conn.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes)
		})
		return err
	}}
	conn, err := dialer.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// The kernel's own timeout for unacknowledged data must not end a connection whose client reads.
func TestReaderThatReadsLittleButSteadilyIsNotCutOff(t *testing.T) {
	t.Parallel()
	const (
		rate  = 20_000 // bytes a second that are read, of over 300,000 that are sent
		lasts = 40 * time.Second
	)
	s := startForMinutes(t, "-history", "100")
	s.do(t, "POST", "/users/alice", "")
	conn := s.dialNarrow(t, 8<<10)
	io.WriteString(conn, s.text("GET /chat/bob", ""))
	done := make(chan struct{})
	defer close(done)
	go func() {
		speaker := s.caller(t)
		for {
			select {
			case <-time.After(3 * time.Millisecond):
				speaker.call("POST", "/chat/alice", strings.Repeat("x", 1000))
			case <-done:
				return
			}
		}
	}()
	buffer := make([]byte, rate/10)
	for begin := time.Now(); time.Since(begin) < lasts; time.Sleep(time.Second / 10) {
		if _, err := io.ReadFull(conn, buffer); err != nil {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
	}
}
