// Tests that streams, responses and lists agree while many clients act at once: together they show
// one history.
package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Each follower does what the contract recommends: it fetches the list and opens a stream that
// begins where the list ends.
func TestStreamsResponsesAndListsShowOneHistory(t *testing.T) {
	t.Parallel()
	const followers, enough = 50, 10_000 // events
	s := startForMinutes(t, "-history", "100000")
	watcher := s.subscribe(t, "/chat/watcher")
	var (
		events   []event
		lists    [followers]operation
		followed [followers][]event
		reading  sync.WaitGroup
	)
	reading.Go(func() { events = watcher.readToLastWord(t) })
	crowd := startCrowd(t, "user", []*node{{server: s}}, 32, 0)
	for i := range followers {
		lists[i] = operation{kind: "list", begin: time.Now()}
		lists[i].response = s.do(t, "GET", "/users", "")
		lists[i].end = time.Now()
		st := s.subscribe(t, fmt.Sprintf("/chat/follower-%d?lastEventId=%s", i, lists[i].id()))
		reading.Go(func() { followed[i] = st.readToLastWord(t) })
	}
	epoch := epochOf(lists[0].id())
	eventually(t, time.Minute, "enough events", func() bool {
		return numberOf(epoch, s.lastID(t)) >= enough
	})
	operations := mustSucceed(t, crowd.stop())
	s.sayLastWord(t)
	reading.Wait()
	if t.Failed() {
		return
	}

	mustFollow(t, epoch, 1, events)
	for i, list := range lists {
		if !slices.Equal(followed[i], events[numberOf(epoch, list.id()):]) {
			t.Errorf("follower %d has not exactly the events after its list's %s", i, list.id())
		}
	}
	operations = append(operations, lists[:]...)
	mustExplain(t, epoch, events, operations)
	made := 0
	for _, o := range operations {
		if o.made() != "" {
			made++
		}
	}
	// The arrivals of the watcher, the followers and the last speaker, and the last word are the
	// other events.
	if want := len(events) - followers - 3; made != want {
		t.Errorf("%d operations caused an event, want %d", made, want)
	}
}

// mustKeepRealTime fails the test if an operation reflects less than one that had ended before it
// began, or caused an event that such an operation already reflected.
func mustKeepRealTime(t *testing.T, epoch string, operations []operation) {
	t.Helper()
	begun, ended := slices.Clone(operations), slices.Clone(operations)
	slices.SortFunc(begun, func(a, b operation) int { return a.begin.Compare(b.begin) })
	slices.SortFunc(ended, func(a, b operation) int { return a.end.Compare(b.end) })
	known := 0
	for _, o := range begun {
		for ; ended[0].end.Before(o.begin); ended = ended[1:] {
			known = max(known, numberOf(epoch, ended[0].id()))
		}
		n := numberOf(epoch, o.id())
		if n < known || n == known && o.made() != "" {
			t.Fatalf("%v began when event %d was known", o, known)
		}
	}
}

// operation is a request and its response.
type operation struct {
	kind, name, text string // kind is join, leave, say or list
	begin, end       time.Time
	response
}

// id returns the id of the last event that the response reflects.
func (o operation) id() string { return o.header.Get("Last-Event-ID") }

func (o operation) String() string {
	return fmt.Sprintf("%s of %s %q (%d %q, %s)", o.kind, o.name, o.text, o.status, o.body, o.id())
}

// outcomes tell what the status of a response means: its body, the event that the request caused,
// if any, and whether the user is present after it.
var outcomes = map[string]struct {
	body, event string
	isPresent   bool
}{
	"join 201":  {"User NAME connected.", "User NAME connected to the chat.", true},
	"join 200":  {"User NAME connected.", "", true},
	"leave 200": {"User NAME disconnected.", "User NAME disconnected from the chat.", false},
	"leave 404": {"User NAME is not connected.", "", false},
	"say 200":   {"NAME: TEXT", "NAME: TEXT", true},
	"say 404":   {"User NAME is not connected.", "", false},
}

// made returns the data of the event that the operation caused, or "" if it caused none.
func (o operation) made() string {
	return o.fill(outcomes[fmt.Sprint(o.kind, " ", o.status)].event)
}

func (o operation) fill(pattern string) string {
	return strings.NewReplacer("NAME", o.name, "TEXT", o.text).Replace(pattern)
}

// check returns what is wrong with a response that names an event with that data, after which
// those users are present.
func (o operation) check(users map[string]bool, data string) error {
	if o.kind == "list" {
		if want := listOf(users); o.status != 200 || o.body != want {
			return fmt.Errorf("want 200 with %q", want)
		}
		return nil
	}
	outcome, ok := outcomes[fmt.Sprint(o.kind, " ", o.status)]
	switch {
	case !ok:
		return fmt.Errorf("got the status %d", o.status)
	case o.body != o.fill(outcome.body):
		return fmt.Errorf("got the body %q, want %q", o.body, o.fill(outcome.body))
	case users[o.name] != outcome.isPresent:
		return fmt.Errorf("the user is present: %v, want %v", users[o.name], outcome.isPresent)
	case outcome.event != "" && data != o.made():
		return fmt.Errorf("it caused the event %q, want %q", data, o.made())
	}
	return nil
}

// fold applies an event with that data to the users who were present before it.
func fold(users map[string]bool, data string) {
	rest, _ := strings.CutPrefix(data, "User ")
	if name, ok := strings.CutSuffix(rest, " connected to the chat."); ok {
		users[name] = true
	} else if name, ok := strings.CutSuffix(rest, " disconnected from the chat."); ok {
		delete(users, name)
	}
}

// listOf returns the list of users as the server sends it.
func listOf(users map[string]bool) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(users)) {
		lines = append(lines, "User: "+name)
	}
	return "Connected users:\n" + strings.Join(lines, "\n")
}
