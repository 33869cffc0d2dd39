// Tests that streams, responses and lists agree while many clients act at once: together they show
// one history.
package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
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
	const followers = 50
	s := startForMinutes(t, "-history", "100000")
	watcher := s.subscribe(t, "/chat/watcher")
	var (
		events           []event
		operations       []operation
		lists            [followers]operation
		followed         [followers][]event
		reading, writing sync.WaitGroup
	)
	reading.Go(func() { events = watcher.readToLastWord(t) })
	writing.Go(func() { operations = s.work(t, 32, 1000) })
	for i := range followers {
		lists[i] = operation{kind: "list", begin: time.Now()}
		lists[i].response = s.do(t, "GET", "/users", "")
		lists[i].end = time.Now()
		st := s.subscribe(t, fmt.Sprintf("/chat/follower-%d?lastEventId=%s", i, lists[i].id()))
		reading.Go(func() { followed[i] = st.readToLastWord(t) })
	}
	writing.Wait()
	s.sayLastWord(t)
	reading.Wait()
	if t.Failed() {
		return
	}

	epoch := epochOf(events[0].id)
	mustFollow(t, epoch, 1, events)
	for i, list := range lists {
		if !slices.Equal(followed[i], events[numberOf(epoch, list.id()):]) {
			t.Errorf("follower %d has not exactly the events after its list's %s", i, list.id())
		}
	}
	operations = append(operations, lists[:]...)
	mustBeInOrder(t, epoch, events, operations)
	mustKeepRealTime(t, epoch, operations)
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

// mustBeInOrder fails the test unless each response is true at the event that its Last-Event-ID
// names, so that the operations could have happened one after another.
func mustBeInOrder(t *testing.T, epoch string, events []event, operations []operation) {
	t.Helper()
	at := make([][]operation, len(events)+1) // by the number of the last event
	for _, o := range operations {
		n := numberOf(epoch, o.id())
		if n < 0 || n > len(events) {
			t.Fatalf("%v is not between the first and the last of %d events", o, len(events))
		}
		at[n] = append(at[n], o)
	}
	users, data := map[string]bool{}, ""
	for n, operations := range at {
		if n > 0 {
			data = events[n-1].data
			fold(users, data)
		}
		made := 0
		for _, o := range operations {
			if err := o.check(users, data); err != nil {
				t.Fatalf("%v: %v", o, err)
			}
			if o.made() != "" {
				made++
			}
		}
		if made > 1 {
			t.Fatalf("event %d was caused by more than one of %v", n, operations)
		}
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

// work lets that many callers at once make that many random operations each, and returns all
// operations.
func (s *server) work(t testing.TB, callers, each int) []operation {
	kinds, seed := []string{"join", "leave", "say", "list"}, seed(t)
	done := make([][]operation, callers)
	var working sync.WaitGroup
	for i := range callers {
		c, random := s.caller(t), rand.New(rand.NewPCG(seed, uint64(i)))
		working.Go(func() {
			for n := range each {
				kind, name := kinds[random.IntN(4)], fmt.Sprintf("user-%d", random.IntN(12))
				o := operation{kind: kind, name: name}
				method, path := "POST", "/users/"+o.name
				switch o.kind {
				case "leave":
					method = "DELETE"
				case "say":
					path, o.text = "/chat/"+o.name, fmt.Sprintf("text %d of caller %d", n, i)
				case "list":
					method, path = "GET", "/users"
				}
				var err error
				o.begin = time.Now()
				o.response, err = c.call(method, path, o.text)
				o.end = time.Now()
				if err != nil {
					t.Error(err)
					return
				}
				done[i] = append(done[i], o)
			}
		})
	}
	working.Wait()
	return slices.Concat(done...)
}

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
