// Here belong clients that are slow: with their requests, with what they asked
// for, or with a stream.
package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A client that does not finish what it began is not waited for for ever. All of
// them are slow at the same time.
func TestSlowRequestsAreCut(t *testing.T) {
	t.Parallel()
	const (
		// A head has its time from its first byte on, however long the connection was idle.
		head, idle = 5 * time.Second, 7 * time.Second
		body       = 10 * time.Second
		refused    = `^(HTTP/1.1 4(00|08) (.|\n)*)?$`
		timedOut   = `^HTTP/1.1 408 `
	)
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	get := s.text("GET /users", "")
	most := strings.TrimSuffix(get, "\r\n")
	stuck := func(request string) string { return s.text(request, "", "Content-Length", "9") + "h" }
	s.mustNotChange(t, func() {
		var clients sync.WaitGroup
		for _, c := range []slowRequest{
			{name: "one byte of a head", first: "G", limit: head, answer: refused},
			{name: "most of a head", first: most, limit: head, answer: refused},
			{name: "head that trickles",
				first: most, more: "X: y\r\n", limit: head, answer: refused},
			{name: "one byte of a second head",
				before: get, idle: idle, first: "G", limit: head, answer: refused},
			{name: "three bytes of a second head",
				before: get, idle: idle, first: "GET", limit: head, answer: refused},
			{name: "most of a second head",
				before: get, idle: idle, first: most, limit: head, answer: refused},
			{name: "second head at once", before: get, first: most, limit: head, answer: refused},
			{name: "second head that trickles", before: get, idle: idle,
				first: most, more: "X: y\r\n", limit: head, answer: refused},

			{name: "join", first: stuck("POST /users/bob"), limit: body, answer: timedOut},
			{name: "join that trickles",
				first: s.text("POST /users/bob", "", "Content-Length", "4000"), more: "x",
				limit: body, answer: timedOut},
			{name: "leave", first: stuck("DELETE /users/alice"), limit: body, answer: timedOut},
			{name: "say", first: stuck("POST /chat/alice"), limit: body, answer: timedOut},
			{name: "say in chunks that trickle",
				first: s.text("POST /chat/alice", "", "Transfer-Encoding", "chunked"),
				more:  "1\r\nx\r\n", limit: body, answer: timedOut},
			{name: "list", first: stuck("GET /users"), limit: body, answer: timedOut},
			{name: "page", first: stuck("GET /"), limit: body, answer: timedOut},
			{name: "options", first: stuck("OPTIONS /users"), limit: body, answer: timedOut},
		} {
			conn := s.dial(t)
			clients.Go(func() {
				if err := c.makeOn(conn); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			})
		}
		clients.Wait()
	})
}

// slowRequest is a request that a client does not finish.
type slowRequest struct {
	name, before string // a request that is sent and answered before
	idle         time.Duration
	first        string // sent then, at once
	more         string // sent every now and then
	limit        time.Duration
	answer       string // a pattern of what comes until the connection is closed
}

// makeOn makes the request and returns an error unless it is answered and the
// connection closed when its time is over.
func (c slowRequest) makeOn(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(c.idle + c.limit + 5*time.Second))
	answers := bufio.NewReader(conn)
	if c.before != "" {
		io.WriteString(conn, c.before)
		if r, err := readAnswer(answers); err != nil || r.status != 200 {
			return fmt.Errorf("the request before got %d, %v", r.status, err)
		}
	}
	time.Sleep(c.idle)
	closed := make(chan struct{})
	defer close(closed)
	begin := time.Now()
	io.WriteString(conn, c.first)
	if c.more != "" {
		go trickleInto(conn, c.more, closed)
	}
	answer, err := io.ReadAll(answers)
	took := time.Since(begin)
	if errors.Is(err, os.ErrDeadlineExceeded) || took < c.limit-time.Second/2 {
		return fmt.Errorf("closed after %v with %v, want %v", took, err, c.limit)
	}
	if !regexp.MustCompile(c.answer).Match(answer) {
		return fmt.Errorf("got %.200q, want %s", answer, c.answer)
	}
	return nil
}

// trickleInto writes text twice a second until done is closed.
func trickleInto(w io.Writer, text string, done <-chan struct{}) {
	for {
		select {
		case <-time.After(500 * time.Millisecond):
			io.WriteString(w, text)
		case <-done:
			return
		}
	}
}

// A reader that takes nothing is cut, and no other notices.
func TestReaderThatNeverReadsIsCut(t *testing.T) {
	t.Parallel()
	s := start(t, "-grace", "0")
	s.do(t, "POST", "/users/watcher", "")
	watcher := s.subscribe(t, "/chat/watcher")
	begin := time.Now()
	frozen := s.subscribeSlowly(t, "/chat/frozen")
	const times = 500
	s.mustFlood(t, "alice", times)
	watcher.expectRun(t, arrives("frozen"), arrives("alice"))
	watcher.expectRun(t, slices.Repeat([]string{"alice: " + strings.Repeat("x", 4096)}, times)...)
	defer watcher.closeAfter(30 * time.Second)()
	e, err := watcher.next()
	took := time.Since(begin)
	if err != nil || e.data != leaves("frozen") || took < 9*time.Second || took > 20*time.Second {
		t.Errorf("after %v got %q and %v, want the reader cut after about 10 s", took, e.data, err)
	}
	frozen.mustBeCut(t)
}

// A reader that falls behind gets what it missed if the server still has it, and
// otherwise a gap.
func TestReaderThatFallsBehindGetsAllOrAGap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		history string
		gap     bool
	}{
		{history: "10", gap: true},
		{history: "100000", gap: false},
	} {
		t.Run("history "+c.history, func(t *testing.T) {
			s := startForMinutes(t, "-history", c.history)
			late := s.subscribeSlowly(t, "/chat/late")
			s.mustFlood(t, "alice", 6000)
			last := s.do(t, "POST", "/chat/alice", "the end").header.Get("Last-Event-ID")
			gap, id := false, ""
			for id != last {
				e, err := late.next()
				if err != nil {
					t.Fatalf("after %s of %s: %v", id, last, err)
				}
				if e.name == "gap" {
					gap = true
				} else if id != "" && e.id != idPlus(t, id, 1) {
					t.Fatalf("%s follows %s without a gap", e.id, id)
				}
				id = e.id
			}
			if gap != c.gap {
				t.Errorf("gap: got %v, want %v", gap, c.gap)
			}
		})
	}
}

// A client that does not read what it asked for is cut: in the middle of a long
// list, and also if each of many answers is short.
func TestAnswersThatAreNotReadAreCut(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second
	s := start(t)
	const users = 10_000 // whose list is larger than all buffers on its way
	s.mustRepeat(t, users, func(n int) string {
		return s.text(fmt.Sprintf("POST /users/%064d", n), "")
	})
	say := s.text("POST /chat/"+strings.Repeat("0", 64), "hello")
	for _, c := range []struct{ name, requests string }{
		{name: "a list", requests: s.text("GET /users", "")},
		{name: "errors", requests: strings.Repeat(s.text("GET /nosuch", ""), 10_000)},
		{name: "messages", requests: strings.Repeat(say, 10_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := s.dial(t)
			conn.SetReadBuffer(64 << 10)
			begin := time.Now()
			var err error
			for err == nil { // what stands behind the first request is not read, and shows the end
				_, err = io.WriteString(conn, c.requests)
			}
			took := time.Since(begin)
			isOpen := errors.Is(err, os.ErrDeadlineExceeded)
			if isOpen || took < limit-time.Second || took > limit+8*time.Second {
				t.Errorf("%v after %v, want the connection cut after %v", err, took, limit)
			}
		})
	}
}

// Readers that do not keep up harm nobody: the others get everything, speakers
// do not wait for them, and the server holds a bounded amount for them.
func TestSlowReadersHarmNobody(t *testing.T) {
	t.Parallel()
	const (
		healthy, frozen    = 199, 100
		speakers, messages = 4, 24_000
		size               = 4 << 10

		// What is alive: the history, the recent batches, and for each stream the
		// batch that it sends and the next: 61 MB. The messages are 98 MB, and
		// would be 9.8 GB if there were a copy for each frozen reader.
		batch     = 64 << 10
		alive     = 4096*(size+300) + 64*batch + (healthy+frozen+1)*2*batch
		maxMemory = 2*alive + 16<<20 // as much again as garbage, and the program itself
	)
	needProc(t, 1000)
	const streams, users = healthy + frozen + 1, healthy + frozen + 2
	s := startForMinutes(t,
		"-grace", "0", "-max-streams", fmt.Sprint(streams), "-max-users", fmt.Sprint(users))
	s.do(t, "POST", "/users/alice", "")
	epoch := epochOf(s.lastID(t))
	countFrozen := func() int {
		return strings.Count(s.do(t, "GET", "/users", "").body, "User: frozen-")
	}
	var frozenConns [frozen]*net.TCPConn
	for i := range frozenConns {
		frozenConns[i] = s.ask(t, fmt.Sprintf("/chat/frozen-%d", i))
	}
	eventually(t, time.Minute, "the frozen to be there", func() bool { return countFrozen() == frozen })
	var reading, speaking sync.WaitGroup
	for i := range healthy {
		st := s.subscribe(t, fmt.Sprintf("/chat/healthy-%d", i))
		reading.Go(func() {
			if gaps, err := skim(st.r, epoch); err != nil || gaps > 0 {
				t.Errorf("healthy reader %d: got %d gaps and %v, want every event to the last word",
					i, gaps, err)
			}
		})
	}
	trickling := &slowly{ // 50 KB/s, until it has had enough
		s.subscribe(t, "/chat/trickling").r, 1000, 20 * time.Millisecond, make(chan struct{}),
	}
	reading.Go(func() {
		gaps, err := skim(trickling, epoch)
		if errors.Is(err, errHole) || err == nil && gaps == 0 {
			t.Errorf("trickling reader: got %d gaps and %v, want a gap or a closed connection",
				gaps, err)
		}
	})

	begin := time.Now()
	for range speakers {
		c := s.caller(t)
		speaking.Go(func() {
			for range messages / speakers {
				begin := time.Now()
				r, err := c.call("POST", "/chat/alice", strings.Repeat("x", size))
				took := time.Since(begin)
				if err != nil || r.status != 200 || took > 5*time.Second {
					t.Errorf("say: got %d, %v after %v, want 200 long before a reader is closed",
						r.status, err, took)
					return
				}
			}
		})
	}
	_, err := s.trySubscribe("/chat/alice")
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("one stream more than there may be: got %v, want 503", err)
	}
	if r := s.do(t, "POST", "/users/late", ""); r.status != 503 {
		t.Errorf("one user more than there may be: got %d, want 503", r.status)
	}
	eventually(t, time.Minute, "a frozen reader to be closed", func() bool { return countFrozen() < frozen })
	first := time.Since(begin)
	eventually(t, time.Minute, "all frozen readers to be closed", func() bool { return countFrozen() == 0 })
	if last := time.Since(begin); first < 10*time.Second || last > 30*time.Second {
		t.Errorf("the frozen were closed %v to %v after the first message, want some 10 s",
			first, last)
	}
	speaking.Wait()
	for i, conn := range frozenConns {
		conn.SetDeadline(time.Now().Add(time.Minute))
		_, err := skim(mustStream(t, conn, bufio.NewReader(conn)).r, epoch)
		if err == nil || errors.Is(err, errHole) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("frozen reader %d: got %v, want events without a hole and then the end",
				i, err)
		}
	}
	s.subscribe(t, "/chat/late").expect(t, arrives("late")) // in a frozen reader's place
	close(trickling.enough)
	finished := make(chan struct{})
	go func() { reading.Wait(); close(finished) }()
	for done := false; !done; { // the trickling reader's gap may swallow a last word
		s.sayLastWord(t)
		select {
		case <-finished:
			done = true
		case <-time.After(time.Second):
		}
	}
	memory := s.memory(t, "VmHWM")
	t.Logf("%d bytes of memory at the peak", memory)
	if memory > maxMemory {
		t.Errorf("%d bytes of memory at the peak, want at most %d", memory, maxMemory)
	}
}

// Readers that stall at different places of a flood hold little each, so that 10,000
// of them stay below 600 MB. LOBBY_STALLED says how many there are to be, for which a
// machine is needed that opens that many streams in the 10 s until the first is cut.
func TestReadersStalledAtDifferentPlacesHoldLittle(t *testing.T) {
	t.Parallel()
	const (
		messages  = 16       // of 4 KiB, from one reader to the next: about a batch
		program   = 60 << 20 // bytes of memory for the program, the history and garbage
		perReader = 54 << 10 // bytes of memory
	)
	readers, err := strconv.Atoi(cmp.Or(os.Getenv("LOBBY_STALLED"), "2000"))
	if err != nil {
		t.Fatal(err)
	}
	needProc(t, uint64(readers)+2000)
	s := startForMinutes(t, "-grace", "0")
	s.do(t, "POST", "/users/alice", "")
	speaker := s.dial(t)
	speaker.SetDeadline(time.Time{})
	answers := bufio.NewReader(speaker)
	say := strings.Repeat(s.text("POST /chat/alice", strings.Repeat("x", 4096)), messages)
	for n := range readers {
		io.WriteString(s.dialNarrow(t), s.text(fmt.Sprintf("GET /chat/reader-%d", n), ""))
		io.WriteString(speaker, say)
		for range messages {
			if r := mustRead(t, answers, "POST"); r.status != 200 {
				t.Fatalf("say: got %d %q, want 200", r.status, r.body)
			}
		}
	}
	memory := s.memory(t, "VmHWM")
	stalled := strings.Count(s.do(t, "GET", "/users", "").body, "User: reader-")
	t.Logf("%d MiB of memory at the peak, with %d readers stalled", memory>>20, stalled)
	if most := program + stalled*perReader; memory > most {
		t.Errorf("%d MiB of memory at the peak, want at most %d", memory>>20, most>>20)
	}
}

// dialNarrow opens a connection on which the client's system takes a few KiB that the
// test does not read. The test closes it.
func (s *server) dialNarrow(t testing.TB) net.Conn {
	t.Helper()
	return s.dialWith(t, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
}

// dialWith opens a connection whose socket has an option. The test closes it.
func (s *server) dialWith(t testing.TB, level, option, value int) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		conn.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), level, option, value)
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

// A stream's reader that takes little, with a small window, gets everything or a gap,
// and goes on.
func TestReaderThatTakesLittleGoesOn(t *testing.T) {
	t.Parallel()
	const (
		rate  = 20_000 // bytes a second that the reader takes, of over 300,000 that are said
		lasts = 40 * time.Second
	)
	s := startForMinutes(t, "-history", "100")
	s.do(t, "POST", "/users/alice", "")
	conn := s.dialWith(t, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10)
	io.WriteString(conn, s.text("GET /chat/bob", ""))
	speaking := time.NewTicker(3 * time.Millisecond)
	defer speaking.Stop()
	done := make(chan struct{})
	go func() {
		speaker := s.caller(t)
		for {
			select {
			case <-speaking.C:
				speaker.call("POST", "/chat/alice", strings.Repeat("x", 1000))
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	buffer := make([]byte, rate/10)
	for begin := time.Now(); time.Since(begin) < lasts; time.Sleep(time.Second / 10) {
		if _, err := io.ReadFull(conn, buffer); err != nil {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
	}
}
