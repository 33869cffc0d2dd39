package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Streams that lose their connection at any byte, and resume as a browser does,
// get every event once and in order.
func TestStreamsCutAnywhereMissNothing(t *testing.T) {
	t.Parallel()
	const streams, messages, seed = 50, 2000, 20
	t.Logf("random seed %d", seed)
	s := startForMinutes(t)
	uncut := s.subscribe(t, "/chat/uncut")
	epoch := epochOf(uncut.header.Get("Last-Event-ID"))
	s.do(t, "POST", "/users/alice", "")

	var readers [streams]*cutReader
	var all []event
	var reading sync.WaitGroup
	reading.Go(func() { all = uncut.readToLastWord(t) })
	for i := range readers {
		path := fmt.Sprintf("/chat/reader-%d", i)
		if i%2 == 0 { // from the first event on, whether an opening block arrives or not
			path += "?lastEventId=" + epoch + "-0"
		}
		readers[i] = &cutReader{server: s, path: path, random: rand.New(rand.NewPCG(seed, uint64(i)))}
		reading.Go(func() {
			if err := readers[i].read(); err != nil {
				t.Errorf("stream %d, cut %d times: %v", i, readers[i].cuts, err)
			}
		})
	}
	for n := range messages {
		if r := s.do(t, "POST", "/chat/alice", fmt.Sprintf("message %d", n)); r.status != 200 {
			t.Fatalf("say: got %d %q, want 200", r.status, r.body)
		}
	}
	s.sayLastWord(t)
	reading.Wait()
	if t.Failed() {
		return
	}

	checkIDs(t, epoch, 1, all)
	early, middle := 0, 0
	for i, r := range readers {
		first := 1
		if i%2 == 1 {
			first = numberOf(epoch, r.firstID) + 1
		}
		if !slices.Equal(r.events, all[first-1:]) {
			t.Errorf("stream %d, cut %d times, has %d events, want those from %d to %d", i, r.cuts, len(r.events), first, len(all))
		}
		early += r.early
		middle += r.cuts - r.early
	}
	if early < streams/4 || middle < 10*streams {
		t.Errorf("%d streams cut %d times before their first event and %d times after it are no test", streams, early, middle)
	}
}

// cutReader reads a stream over connections that are lost again and again.
type cutReader struct {
	server  *server
	path    string
	random  *rand.Rand
	events  []event
	firstID string // of the first opening block that came whole
	cuts    int    // connections lost
	early   int    // of these, before the first event
}

// read reads up to the last word.
func (c *cutReader) read() error {
	for lastID := ""; ; c.cuts++ {
		var headers []string
		if lastID != "" {
			headers = []string{"Last-Event-ID", lastID}
		}
		st, err := c.server.trySubscribe(c.path, headers...)
		if err != nil {
			return err
		}
		size := c.random.Int64N(4000)
		if c.random.IntN(3) == 0 {
			size = c.random.Int64N(60) // about an opening block
		}
		var raw bytes.Buffer
		st.r = bufio.NewReader(io.TeeReader(io.LimitReader(st.body, size), &raw))
		e, err := st.next()
		for ; err == nil; e, err = st.next() {
			if c.events = append(c.events, e); e.data == lastWord {
				break
			}
		}
		st.body.Close()
		if st.lastID != "" { // no block came whole otherwise, and the client still has the id from before
			lastID = st.lastID
		}
		if opening, _, whole := strings.Cut(raw.String(), "\n\n"); whole && c.firstID == "" {
			_, c.firstID, _ = strings.Cut(opening, "\nid: ")
		}
		if err == nil {
			return nil
		}
		if len(c.events) == 0 {
			c.early++
		}
	}
}

// startForMinutes runs the server as start does, but kills it after three minutes,
// so that no test waits for ever for what a stream does not bring.
func startForMinutes(t testing.TB, args ...string) *server {
	t.Helper()
	s := start(t, args...)
	timer := time.AfterFunc(3*time.Minute, s.kill)
	t.Cleanup(func() { timer.Stop() })
	return s
}

// lastWord is the data of sayLastWord's event.
const lastWord = "last: word"

// sayLastWord ends what the readers of a test wait for.
func (s *server) sayLastWord(t testing.TB) {
	t.Helper()
	s.do(t, "POST", "/users/last", "")
	if r := s.do(t, "POST", "/chat/last", "word"); r.status != 200 {
		t.Fatalf("say: got %d %q, want 200", r.status, r.body)
	}
}

// readToLastWord returns the stream's events up to the last word, and fails the
// test where the stream ends before it.
func (st *stream) readToLastWord(t testing.TB) []event {
	var events []event
	for {
		e, err := st.next()
		if err != nil {
			t.Errorf("after %d events, waiting for the last word: %v", len(events), err)
			return events
		}
		if events = append(events, e); e.data == lastWord {
			return events
		}
	}
}

// errHole is what skim returns where events were lost without a word.
var errHole = errors.New("events are missing without a gap")

// skim reads a stream up to the last word and looks at the ids alone, where
// sseReader would be too slow.
func skim(stream io.Reader, epoch string) (gaps int, err error) {
	r := bufio.NewReaderSize(stream, 16<<10)
	last, id, name, hasData := -1, 0, "", false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return gaps, err
		}
		field, value, _ := bytes.Cut(line[:len(line)-1], []byte(": "))
		switch string(field) {
		case "id":
			id = numberOf(epoch, string(value))
		case "event":
			name = string(value)
		case "data":
			hasData = true
			if string(value) == lastWord {
				return gaps, nil
			}
		case "":
			switch {
			case name == "gap":
				gaps++
			case hasData && id != last+1:
				return gaps, fmt.Errorf("%w between %d and %d", errHole, last, id)
			}
			last, name, hasData = id, "", false
		}
	}
}

// epochOf returns the epoch of an id.
func epochOf(id string) string {
	epoch, _, _ := strings.Cut(id, "-")
	return epoch
}

// numberOf returns the number in an id of the epoch, and -1 where it is none.
func numberOf(epoch, id string) int {
	number, ok := strings.CutPrefix(id, epoch+"-")
	if n, err := strconv.Atoi(number); ok && err == nil {
		return n
	}
	return -1
}

// checkIDs fails the test unless the events are messages with the ids of the
// epoch from first on, without a hole.
func checkIDs(t testing.TB, epoch string, first int, events []event) {
	t.Helper()
	for i, e := range events {
		if want := fmt.Sprintf("%s-%d", epoch, first+i); e.id != want || e.name != "message" {
			t.Fatalf("got %+v, want a message with the id %s", e, want)
		}
	}
}

// caller makes requests over a connection of its own.
type caller struct {
	server *server
	client http.Client
}

func (s *server) caller(t testing.TB) *caller {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{s, http.Client{Transport: transport, Timeout: time.Minute}}
}

// call makes a request and reads its answer.
func (c *caller) call(method, path, body string) (response, error) {
	req, err := http.NewRequest(method, c.server.url+path, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(b)}, err
}
