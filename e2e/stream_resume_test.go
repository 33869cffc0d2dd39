// Tests which event a resumed stream starts after. That clients which lose their connection miss
// nothing is tested in clients_test.go and stream_order_test.go.
package e2e

import (
	"fmt"
	"strings"
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
		{query: h{"EPOCH-5", "EPOCH-4"}, after: 4},
		{query: h{"EPOCH-4", ""}, after: 4},
		{header: h{"EPOCH-4", "EPOCH-5"}, after: 5},
		{header: h{"EPOCH-5", ""}, query: h{"EPOCH-4"}, after: 5},
		{header: h{"EPOCH-5"}, query: h{"nonsense"}, after: 5},
		{header: h{"", ""}, query: h{"", "EPOCH-4"}, after: 4},

		{header: h{"EPOCH-2"}, after: 6, isGap: true},
		{header: h{"nonsense"}, query: h{"EPOCH-5"}, after: 6, isGap: true},
		{header: h{"EPOCH-4" + strings.Repeat("0", 15_000)}, after: 6, isGap: true},
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
