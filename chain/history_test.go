package chain

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What belongs here: whether a chain made from another one's history continues as that one would.

func TestRestoredChainContinuesLikeTheOriginal(t *testing.T) {
	const history = 10
	for _, events := range []int{0, 1, 2, history - 1, history, history + 1, 3*history + 4} {
		synctest.Test(t, func(t *testing.T) {
			original := New(history, time.Minute)
			for n := range events {
				original.Append(fmt.Sprint("event ", n))
				if n%5 == 0 { // so that some events are sent at once, and there are comments
					original.Tick()
					original.Tick()
					original.Tick()
				}
			}
			restored, err := Restore(original.LastID(), original.History(), history, time.Minute)
			if err != nil {
				t.Fatalf("after %d events: %v", events, err)
			}
			if !bytes.Equal(restored.History(), original.History()) {
				t.Errorf("after %d events: the history is %q, want %q",
					events, restored.History(), original.History())
			}
			for _, c := range []*Chain{original, restored} {
				c.Append("one more")
				c.End()
			}
			for seq := range events + 3 {
				id := ID{original.last.epoch, uint64(seq)}
				got, want := readAfter(t, restored, id), readAfter(t, original, id)
				if got != want {
					t.Errorf("after %d events, from %v: %q, want %q", events, id, got, want)
				}
			}
		})
	}
}

// readAfter returns everything that a reader receives after id until the chain ends, except for the
// first line and comments.
func readAfter(t *testing.T, c *Chain, id ID) string {
	t.Helper()
	r := NewReader(c.After(id.String()), func(_ context.Context, id string) (Start, error) {
		return c.After(id), nil
	})
	var all strings.Builder
	for {
		data, err := r.Next(t.Context())
		if err != nil {
			break
		}
		all.Write(data)
	}
	_, read, _ := strings.Cut(all.String(), "\n") // the random retry
	return strings.ReplaceAll(read, ": keep-alive\n\n", "")
}

func TestRestoreRejectsAHistoryWithMissingEvents(t *testing.T) {
	c := New(10, time.Minute)
	for n := range 5 {
		c.Append(fmt.Sprint(n))
	}
	events := bytes.SplitAfter(c.History(), []byte("\n\n"))
	hole := slices.Concat(slices.Concat(events[:2]...), slices.Concat(events[3:]...))
	for _, test := range []struct {
		name   string
		events []byte
	}{
		{"all are missing", nil},
		{"the first is missing", slices.Concat(events[1:]...)},
		{"one in the middle is missing", append(hole, "id: x\n\n"...)},
		{"there are other blocks", []byte("a\n\nb\n\nc\n\nd\n\ne\n\n")},
	} {
		if _, err := Restore(c.LastID(), test.events, 10, time.Minute); err == nil {
			t.Errorf("%s: Restore accepted %q", test.name, test.events)
		}
	}
}
