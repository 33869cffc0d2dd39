// Here belongs that the server does its work under load, up to its end.
package e2e

import (
	"fmt"
	"io"
	"slices"
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
						t.Errorf("stream %d ends with %v after %d events, want a proper end",
							i, err, len(read[i]))
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
				e := event{r.header.Get("Last-Event-ID"), "message", "alice: " + text}
				taken[i] = append(taken[i], e)
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
		mustFollow(t, epoch, numberOf(epoch, events[0].id), events)
		if !slices.Equal(events, all[len(all)-len(events):]) {
			t.Errorf("stream %d ends with %+v, want %+v",
				i, events[len(events)-1], all[len(all)-1])
		}
	}
	for _, e := range slices.Concat(taken[:]...) {
		n := numberOf(epoch, e.id) - numberOf(epoch, all[0].id)
		if n < 0 || n >= len(all) || all[n] != e {
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
	time.Sleep(12 * time.Second) // longer than a write may take, and shorter than the keep-alive
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
		mustFollow(t, epoch, i+1, events)
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
