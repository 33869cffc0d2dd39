// Here belong streams that lose their connection and are resumed.
package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// resumption is how a stream is asked for what came after an event, where EPOCH
// stands for the server's.
type resumption struct {
	header []string // the values of Last-Event-ID
	query  []string // the values of lastEventId
}

// The server has the last 3 of 6 events. A stream that asks for nothing begins
// after these.
func TestStreamResumesAfterAnID(t *testing.T) {
	header := func(ids ...string) resumption { return resumption{header: ids} }
	query := func(ids ...string) resumption { return resumption{query: ids} }
	both := func(h, q string) resumption { return resumption{[]string{h}, []string{q}} }
	for after, resumptions := range map[int][]resumption{
		3: {header("EPOCH-3"), query("EPOCH-3"), header("", "EPOCH-3"), query("", "EPOCH-3")},
		4: {query("EPOCH%2D4"), both("", "EPOCH-4"), {[]string{"", ""}, []string{"", "EPOCH-4"}}},
		5: {header("EPOCH-5"), header("EPOCH-5", ""), query("EPOCH-5", ""),
			both("EPOCH-5", "EPOCH-3"), both("EPOCH-5", "nonsense")},
		6: {header("EPOCH-6"), query("EPOCH-6"), header(), header(""), query(""), both("", "")},
	} {
		for _, r := range resumptions {
			t.Run(fmt.Sprintf("none missed: %q", r), func(t *testing.T) {
				r.mustResume(t, after, false)
			})
		}
	}
	gaps := []resumption{
		both("nonsense", "EPOCH-5"), query("EPOCH-2"), query("EPOCH-4%0A"), query("%00"),
		query("EPOCH-4%zz"), query("EPOCH-4;"),
	}
	for _, id := range []string{
		"EPOCH-2", "EPOCH-0", "EPOCH-7", "EPOCH-18446744073709551615", "EPOCH-18446744073709551620",
		"otherepoch-4", "EPOCH", "EPOCH-", "EPOCH-04", "EPOCH-+4", "EPOCH--4", "EPOCH-4-",
		"EPOCH-4.0", "EPOCH-0x4", "EPOCH-4 x", "-", "-4", "4", "\xff\xfe",
		strings.Repeat("9", 8000),
	} {
		gaps = append(gaps, header(id))
	}
	for _, r := range gaps {
		t.Run(fmt.Sprintf("gap: %.30q", r), func(t *testing.T) { r.mustResume(t, 6, true) })
	}
}

// mustResume opens a stream, which must go on after that event, with a gap or not.
func (r resumption) mustResume(t *testing.T, after int, gap bool) {
	s := start(t, "-history", "3")
	users := []string{"a", "b", "c", "d", "e", "f", "new"}
	for _, name := range users[:6] {
		s.do(t, "POST", "/users/"+name, "")
	}
	epoch := epochOf(s.lastID(t))
	fill := strings.NewReplacer("EPOCH", epoch).Replace
	path, headers := "/chat/new?", h{}
	for _, id := range r.query {
		path += "lastEventId=" + fill(id) + "&"
	}
	for _, id := range r.header {
		headers = append(headers, "Last-Event-ID", fill(id))
	}
	st := s.subscribe(t, path, headers...)
	if got, want := st.header.Get("Last-Event-ID"), epoch+"-7"; got != want {
		t.Errorf("got the Last-Event-ID %q, want %q", got, want)
	}
	isGap := st.readOpening(t)
	if want := fmt.Sprint(epoch, "-", after); st.lastID != want || isGap != gap {
		t.Fatalf("begins at %s with a gap: %v, want %s and %v", st.lastID, isGap, want, gap)
	}
	for _, name := range users[after:] {
		st.expectRun(t, arrives(name))
	}
	s.do(t, "POST", "/chat/a", "on it goes")
	st.expectRun(t, "a: on it goes")
}

// By default the server keeps 4,096 events.
func TestHistoryHas4096Events(t *testing.T) {
	s := start(t)
	first := s.lastID(t)
	s.do(t, "POST", "/users/alice", "")
	s.mustFlood(t, "alice", 4096)
	st := s.subscribe(t, "/chat/alice?lastEventId="+idPlus(t, first, 1))
	st.expectRun(t, slices.Repeat([]string{"alice: " + strings.Repeat("x", 4096)}, 4096)...)
	if !s.subscribe(t, "/chat/alice?lastEventId="+first).readOpening(t) {
		t.Error("got no gap before the history")
	}
}

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
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		readers[i] = &cutReader{server: s, path: path, random: random}
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

	mustFollow(t, epoch, 1, all)
	early, middle := 0, 0
	for i, r := range readers {
		first := 1
		if i%2 == 1 {
			first = numberOf(epoch, r.firstID) + 1
		}
		if !slices.Equal(r.events, all[first-1:]) {
			t.Errorf("stream %d, cut %d times, has %d events, want those from %d to %d",
				i, r.cuts, len(r.events), first, len(all))
		}
		early += r.early
		middle += r.cuts - r.early
	}
	if early < streams/4 || middle < 10*streams {
		t.Errorf("%d streams cut %d times before their first event and %d times after it: no test",
			streams, early, middle)
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
		st.r = bufio.NewReader(io.TeeReader(io.LimitReader(st.r, size), &raw))
		e, err := st.next()
		for ; err == nil; e, err = st.next() {
			if c.events = append(c.events, e); e.data == lastWord {
				break
			}
		}
		st.body.Close()
		if st.lastID != "" { // or no block came whole, and the client still has the id from before
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
