package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A server that is told to stop while many speak ends all streams alike, after
// everything that it took.
func TestTermEndsAllStreamsAlike(t *testing.T) {
	t.Parallel()
	const streams, speakers = 200, 20
	s := startForMinutes(t)
	s.do(t, "POST", "/users/alice", "")
	var (
		opened            [streams]*stream
		read              [streams][]event
		taken             [speakers][]event
		reading, speaking sync.WaitGroup
	)
	for i := range opened {
		opened[i] = s.subscribe(t, fmt.Sprintf("/chat/reader-%d", i))
	}
	inFlight := make(chan struct{}) // closed when a stream has had many events
	for i, st := range opened {
		reading.Go(func() {
			for {
				e, err := st.next()
				if err != nil {
					if err != io.EOF {
						t.Errorf("stream %d ends with %v after %d events, want a proper end", i, err, len(read[i]))
					}
					return
				}
				if read[i] = append(read[i], e); i == 0 && len(read[i]) == 500 {
					close(inFlight)
				}
			}
		})
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
				taken[i] = append(taken[i], event{r.header.Get("Last-Event-ID"), "message", "alice: " + text})
			}
		})
	}
	select {
	case <-inFlight:
	case <-time.After(time.Minute):
		t.Error("waited a minute for 500 events")
	}
	if took, exit := s.stop(t); exit != nil || took >= 5*time.Second {
		t.Errorf("exit status %v after %v, want 0 in less than 5 s", exit, took)
	}
	speaking.Wait()
	reading.Wait()
	if t.Failed() {
		return
	}

	all, epoch := read[0], epochOf(read[0][0].id)
	for i, events := range read {
		checkIDs(t, epoch, numberOf(epoch, events[0].id), events)
		if !slices.Equal(events, all[len(all)-len(events):]) {
			t.Errorf("stream %d ends with %+v, want %+v", i, events[len(events)-1], all[len(all)-1])
		}
	}
	for _, e := range slices.Concat(taken[:]...) {
		if n := numberOf(epoch, e.id) - numberOf(epoch, all[0].id); n < 0 || n >= len(all) || all[n] != e {
			t.Errorf("%+v was answered with 200, and is on no stream", e)
		}
	}
}

// The end of a stream has as long to be taken as an event has, however long ago
// the last event was.
func TestTermEndsAQuietStreamProperly(t *testing.T) {
	t.Parallel()
	s := startForMinutes(t)
	st := s.subscribe(t, "/chat/alice")
	st.expect(t, "User alice connected to the chat.")
	time.Sleep(12 * time.Second) // which is more than a client has to take a write, and less than the keep-alive
	s.stop(t)
	if e, err := st.next(); err != io.EOF {
		t.Errorf("got %+v, %v, want the body's proper end", e, err)
	}
}

// Many requests, as load generators make them, are all served while 100 streams
// are told of each.
func TestLoadWithStreamsOpen(t *testing.T) {
	t.Parallel()
	const streams, callers = 100, 50
	requests := 20_000
	if testing.Short() {
		requests = 5_000
	}
	s := startForMinutes(t)
	var read [streams][]event
	var reading sync.WaitGroup
	for i := range read {
		st := s.subscribe(t, fmt.Sprintf("/chat/reader-%d", i))
		reading.Go(func() { read[i] = st.readToLastWord(t) })
	}
	joins := s.load(t, requests, callers, "/users/alice", "")
	if joins[200] != requests-1 || joins[201] != 1 {
		t.Errorf("joins: got the statuses %v, want 201 once and else 200", joins)
	}
	if messages := s.load(t, requests, callers, "/chat/alice", "hello"); messages[200] != requests {
		t.Errorf("messages: got the statuses %v, want 200 only", messages)
	}
	s.sayLastWord(t)
	reading.Wait()
	if t.Failed() {
		return
	}
	epoch := epochOf(read[0][0].id)
	for i, events := range read {
		checkIDs(t, epoch, i+1, events)
		hello := slices.DeleteFunc(events, func(e event) bool { return e.data != "alice: hello" })
		if len(hello) != requests {
			t.Errorf("stream %d got %d messages, want %d", i, len(hello), requests)
		}
	}
}

// load makes n POST requests from so many callers, and counts the answers'
// statuses.
func (s *server) load(t testing.TB, n, callers int, path, body string) map[int]int {
	t.Helper()
	statuses := make(chan int, n)
	var calling sync.WaitGroup
	for range callers {
		c := s.caller(t)
		calling.Go(func() {
			for range n / callers {
				r, err := c.call("POST", path, body)
				if err != nil {
					t.Error(err)
					return
				}
				statuses <- r.status
			}
		})
	}
	calling.Wait()
	close(statuses)
	counts := map[int]int{}
	for status := range statuses {
		counts[status]++
	}
	return counts
}

// Readers that do not keep up harm nobody: the others get everything, speakers
// do not wait for them, and what the server holds for them is bounded.
func TestSlowReadersHarmNobody(t *testing.T) {
	t.Parallel()
	const (
		healthy, frozen    = 199, 100
		speakers, messages = 4, 24_000
		size               = 4 << 10

		// What is alive: the history, the recent batches, and for each stream the
		// batch that it sends and the next: 61 MB. The messages are 98 MB, and
		// would be 9.8 GB if a copy were kept for each frozen reader.
		batch     = 64 << 10
		alive     = 4096*(size+300) + 64*batch + (healthy+frozen+1)*2*batch
		maxMemory = 2*alive + 16<<20 // as much again as garbage, and the program itself
	)
	needProc(t, 1000)
	const streams, users = healthy + frozen + 1, healthy + frozen + 2
	s := startForMinutes(t, "-grace", "0", "-max-streams", fmt.Sprint(streams), "-max-users", fmt.Sprint(users))
	s.do(t, "POST", "/users/alice", "")
	epoch := epochOf(s.do(t, "GET", "/users", "").header.Get("Last-Event-ID"))
	countFrozen := func() int { return strings.Count(s.do(t, "GET", "/users", "").body, "User: frozen-") }
	var frozenConns [frozen]*net.TCPConn
	for i := range frozenConns {
		frozenConns[i] = s.ask(t, fmt.Sprintf("/chat/frozen-%d", i))
	}
	eventually(t, "the frozen to be there", func() bool { return countFrozen() == frozen })
	var reading, speaking sync.WaitGroup
	for i := range healthy {
		st := s.subscribe(t, fmt.Sprintf("/chat/healthy-%d", i))
		reading.Go(func() {
			if gaps, err := skim(st.body, epoch); err != nil || gaps > 0 {
				t.Errorf("healthy reader %d: got %d gaps and %v, want every event to the last word", i, gaps, err)
			}
		})
	}
	trickling := trickle{s.subscribe(t, "/chat/trickling").body, make(chan struct{})}
	reading.Go(func() {
		gaps, err := skim(trickling, epoch)
		if errors.Is(err, errHole) || err == nil && gaps == 0 {
			t.Errorf("trickling reader: got %d gaps and %v, want a gap or a closed connection", gaps, err)
		}
	})

	begin := time.Now()
	for range speakers {
		c := s.caller(t)
		speaking.Go(func() {
			for range messages / speakers {
				begin := time.Now()
				r, err := c.call("POST", "/chat/alice", strings.Repeat("x", size))
				if took := time.Since(begin); err != nil || r.status != 200 || took > 5*time.Second {
					t.Errorf("say: got %d, %v after %v, want 200 long before a frozen reader is closed", r.status, err, took)
					return
				}
			}
		})
	}
	if _, err := s.trySubscribe("/chat/alice"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("one stream more than there may be: got %v, want 503", err)
	}
	if r := s.do(t, "POST", "/users/late", ""); r.status != 503 {
		t.Errorf("one user more than there may be: got %d, want 503", r.status)
	}
	eventually(t, "a frozen reader to be closed", func() bool { return countFrozen() < frozen })
	first := time.Since(begin)
	eventually(t, "all frozen readers to be closed", func() bool { return countFrozen() == 0 })
	if last := time.Since(begin); first < 10*time.Second || last > 30*time.Second {
		t.Errorf("the frozen were closed from %v to %v after the first message, want 10 s and little more", first, last)
	}
	speaking.Wait()
	for i, conn := range frozenConns {
		conn.SetDeadline(time.Now().Add(time.Minute))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := skim(resp.Body, epoch); err == nil || errors.Is(err, errHole) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("frozen reader %d: got %v, want some events without a hole and then the connection's end", i, err)
		}
	}
	s.subscribe(t, "/chat/late").expect(t, "User late connected to the chat.") // in a frozen reader's place
	close(trickling.enough)
	finished := make(chan struct{})
	go func() { reading.Wait(); close(finished) }()
	for done := false; !done; { // the trickling reader's gap may leave out a last word
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

// trickle reads 50 KB/s until it had enough, and then as fast as others.
type trickle struct {
	io.Reader
	enough chan struct{}
}

func (r trickle) Read(p []byte) (int, error) {
	select {
	case <-r.enough:
		return r.Reader.Read(p)
	case <-time.After(20 * time.Millisecond):
		return r.Reader.Read(p[:min(len(p), 1000)])
	}
}
