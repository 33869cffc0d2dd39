// Tests that streams which lose their connection and resume receive each event exactly once.
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

// The server here has events 4 to 6. What else an id may look like is tested beside the chain.
func TestStreamResumesFromTheHeaderOrElseTheQuery(t *testing.T) {
	s := start(t, "-history", "3")
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	epoch := epochOf(s.lastID(t))
	fill := strings.NewReplacer("EPOCH", epoch).Replace
	for _, c := range []struct {
		header, query h
		after         int
		isGap         bool
	}{
		{after: 6},
		{header: h{""}, query: h{""}, after: 6},
		{header: h{"EPOCH-3"}, after: 3},
		{query: h{"EPOCH-4"}, after: 4},
		{query: h{"EPOCH%2D4"}, after: 4},
		{header: h{"", "EPOCH-5"}, query: h{"EPOCH-4"}, after: 5},
		{header: h{"EPOCH-5"}, query: h{"nonsense"}, after: 5},
		{header: h{"", ""}, query: h{"", "EPOCH-4"}, after: 4},

		{header: h{"EPOCH-2"}, after: 6, isGap: true},
		{header: h{"EPOCH-7"}, after: 6, isGap: true},
		{header: h{"otherepoch-4"}, after: 6, isGap: true},
		{header: h{"nonsense"}, query: h{"EPOCH-5"}, after: 6, isGap: true},
		{header: h{"\xff\xfe"}, after: 6, isGap: true},
		{header: h{strings.Repeat("9", 8000)}, after: 6, isGap: true},
		{query: h{"EPOCH-4%0A"}, after: 6, isGap: true},
		{query: h{"EPOCH-4%zz"}, after: 6, isGap: true},
	} {
		t.Run(fmt.Sprintf("%.30q or %q", c.header, c.query), func(t *testing.T) {
			path, headers := "/chat/a?", h{}
			for _, id := range c.query {
				path += "lastEventId=" + fill(id) + "&"
			}
			for _, id := range c.header {
				headers = append(headers, "Last-Event-ID", fill(id))
			}
			st := s.subscribe(t, path, headers...)
			if got, want := st.header.Get("Last-Event-ID"), epoch+"-6"; got != want {
				t.Errorf("got the Last-Event-ID %q, want %q", got, want)
			}
			isGap := st.readOpening(t)
			if want := fmt.Sprint(epoch, "-", c.after); st.lastID != want || isGap != c.isGap {
				t.Fatalf("begins at %s with a gap: %v, want %s and %v",
					st.lastID, isGap, want, c.isGap)
			}
			for _, name := range []string{"d", "e", "f"}[c.after-3:] {
				st.expectRun(t, arrives(name))
			}
		})
	}
}

// The connections here are cut at any byte, and the streams resume as a browser does.
func TestStreamsCutAnywhereMissNothing(t *testing.T) {
	t.Parallel()
	const streams, messages = 50, 2000
	seed := seed(t)
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
		s.says(t, "alice", fmt.Sprintf("message %d", n))
	}
	s.sayLastWord(t)
	reading.Wait()
	if t.Failed() {
		return
	}

	mustFollow(t, epoch, 1, all)
	early, late := 0, 0
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
		late += r.cuts - r.early
	}
	if early < streams/4 || late < 10*streams {
		t.Errorf("%d streams were cut %d times before their first event and %d times after it, "+
			"which is too few for a test", streams, early, late)
	}
}

// cutReader reads a stream over connections that are lost again and again.
type cutReader struct {
	server  *server
	path    string
	random  *rand.Rand
	events  []event
	firstID string // of the first opening block that arrived whole
	cuts    int    // lost connections
	early   int    // streams lost before the first event
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
		if st.lastID != "" { // Otherwise no block arrived whole, and the earlier id still holds.
			lastID = st.lastID
		}
		if opening, _, isWhole := strings.Cut(raw.String(), "\n\n"); isWhole && c.firstID == "" {
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
