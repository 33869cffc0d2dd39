// Here belongs that everything that clients see fits together: streams, answers
// and lists, while many act at the same time.
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

// Streams that read while many write see the same events, and each answer names
// the event that the streams show for it.
func TestStreamsAgreeWithEachOtherAndWithTheAnswers(t *testing.T) {
	t.Parallel()
	s := startForMinutes(t, "-history", "100000")
	const streams = 20
	var (
		read             [streams][]event
		operations       []operation
		reading, writing sync.WaitGroup
	)
	for i := range streams {
		if i == streams/2 { // the others come amid the writing
			writing.Go(func() { operations = s.work(t, 1, 50, 100, "join", "leave", "say") })
		}
		name := fmt.Sprintf("reader-%d", i)
		st := s.subscribe(t, "/chat/"+name)
		reading.Go(func() {
			read[i] = st.readToLastWord(t)
			arrival := event{st.header.Get("Last-Event-ID"), "message", arrives(name)}
			if len(read[i]) == 0 || read[i][0] != arrival {
				t.Errorf("stream %d begins with %+v, want %+v",
					i, read[i][:min(1, len(read[i]))], arrival)
			}
		})
	}
	writing.Wait()
	s.sayLastWord(t)
	reading.Wait()
	if t.Failed() {
		return
	}

	all, epoch := read[0], epochOf(read[0][0].id)
	mustFollow(t, epoch, 1, all)
	for i, events := range read {
		if !slices.Equal(events, all[len(all)-len(events):]) {
			t.Errorf("stream %d differs from stream 0 after both had begun", i)
		}
	}
	for _, o := range operations {
		n := numberOf(epoch, o.header.Get("Last-Event-ID"))
		if n < 1 || n > len(all) || o.made() != "" && o.made() != all[n-1].data {
			t.Fatalf("%v is not what the streams show", o)
		}
	}
}

// What callers do at the same time can be told as if one had done it after the
// other, in the order of the answers' Last-Event-ID.
func TestHistoryIsLinearizable(t *testing.T) {
	t.Parallel()
	s := startForMinutes(t, "-history", "100000")
	watcher := s.subscribe(t, "/chat/watcher")
	var events []event
	var reading sync.WaitGroup
	reading.Go(func() { events = watcher.readToLastWord(t) })
	operations := s.work(t, 2, 32, 1000, "join", "leave", "say", "list")
	s.sayLastWord(t)
	reading.Wait()
	if t.Failed() {
		return
	}

	epoch := epochOf(events[0].id)
	mustFollow(t, epoch, 1, events)
	at := make([][]operation, len(events)+1) // by the number of their last event
	for _, o := range operations {
		n := numberOf(epoch, o.header.Get("Last-Event-ID"))
		if n < 0 || n > len(events) {
			t.Fatalf("%v is not between the first and the last of %d events", o, len(events))
		}
		at[n] = append(at[n], o)
	}
	users, data, made := map[string]bool{}, "", 0
	for n, operations := range at {
		if n > 0 {
			data = events[n-1].data
			fold(users, data)
		}
		before := made
		for _, o := range operations {
			if err := o.check(users, data); err != nil {
				t.Fatalf("%v: %v", o, err)
			}
			if o.made() != "" {
				made++
			}
		}
		if made > before+1 {
			t.Fatalf("event %d was made by more than one of %v", n, operations)
		}
	}
	// The watcher's arrival, the last word and its speaker's arrival are not of these.
	if want := len(events) - 3; made != want {
		t.Errorf("%d operations made an event, want %d", made, want)
	}
	mustKeepRealTime(t, epoch, operations)
}

// mustKeepRealTime fails the test if an operation takes less into account than one
// that had ended before it began, or made an event that such a one knew of.
func mustKeepRealTime(t *testing.T, epoch string, operations []operation) {
	t.Helper()
	begun, ended := slices.Clone(operations), slices.Clone(operations)
	slices.SortFunc(begun, func(a, b operation) int { return a.begin.Compare(b.begin) })
	slices.SortFunc(ended, func(a, b operation) int { return a.end.Compare(b.end) })
	known := 0
	for _, o := range begun {
		for ; ended[0].end.Before(o.begin); ended = ended[1:] {
			known = max(known, numberOf(epoch, ended[0].header.Get("Last-Event-ID")))
		}
		n := numberOf(epoch, o.header.Get("Last-Event-ID"))
		if n < known || n == known && o.made() != "" {
			t.Fatalf("%v began when event %d was known", o, known)
		}
	}
}

// A list is kept exact by a stream that goes on where the list ends.
func TestListContinuedByStreamStaysExact(t *testing.T) {
	t.Parallel()
	s := startForMinutes(t, "-history", "100000")
	const followers = 10
	var (
		lists            [followers]response
		streams          [followers][]event
		later            []operation
		reading, writing sync.WaitGroup
	)
	for i := range followers {
		writing.Go(func() {
			later = append(later, s.work(t, 3+uint64(i), 8, 60, "join", "leave", "list")...)
		})
		lists[i] = s.do(t, "GET", "/users", "")
		from := lists[i].header.Get("Last-Event-ID")
		st := s.subscribe(t, fmt.Sprintf("/chat/follower-%d?lastEventId=%s", i, from))
		reading.Go(func() { streams[i] = st.readToLastWord(t) })
		writing.Wait()
	}
	s.sayLastWord(t)
	reading.Wait()

	epoch := epochOf(lists[0].header.Get("Last-Event-ID"))
	for i, events := range streams {
		users, n := map[string]bool{}, numberOf(epoch, lists[i].header.Get("Last-Event-ID"))
		for _, line := range strings.Split(lists[i].body, "\n")[1:] {
			if name, ok := strings.CutPrefix(line, "User: "); ok {
				users[name] = true
			}
		}
		mustFollow(t, epoch, n+1, events)
		exact := map[int]string{n: lists[i].body} // by the number of the last event
		for k, e := range events {
			fold(users, e.data)
			exact[n+1+k] = listOf(users)
		}
		for _, o := range later {
			m := numberOf(epoch, o.header.Get("Last-Event-ID"))
			if o.kind == "list" && m >= n && o.body != exact[m] {
				t.Fatalf("at event %d follower %d has %q, but the list is %q",
					m, i, exact[m], o.body)
			}
		}
	}
}

// operation is a request of work's with its answer.
type operation struct {
	kind, name, text string
	begin, end       time.Time
	response
}

// work lets so many callers at once make so many random operations each, of the
// kinds join, leave, say and list, and returns them all.
func (s *server) work(t testing.TB, seed uint64, callers, each int, kinds ...string) []operation {
	t.Logf("random seed %d", seed)
	done := make([][]operation, callers)
	var working sync.WaitGroup
	for i := range callers {
		c, rng := s.caller(t), rand.New(rand.NewPCG(seed, uint64(i)))
		working.Go(func() {
			for n := range each {
				kind, name := kinds[rng.IntN(len(kinds))], fmt.Sprintf("user-%d", rng.IntN(12))
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
	return fmt.Sprintf("%s of %s %q (%d %q, %s)",
		o.kind, o.name, o.text, o.status, o.body, o.header.Get("Last-Event-ID"))
}

// outcomes are what an answer's status says: its body, the event that was made
// for it, if any, and whether the user is there then.
var outcomes = map[string]struct {
	body, event string
	there       bool
}{
	"join 201":  {"User NAME connected.", "User NAME connected to the chat.", true},
	"join 200":  {"User NAME connected.", "", true},
	"leave 200": {"User NAME disconnected.", "User NAME disconnected from the chat.", false},
	"leave 404": {"User NAME is not connected.", "", false},
	"say 200":   {"NAME: TEXT", "NAME: TEXT", true},
	"say 404":   {"User NAME is not connected.", "", false},
}

// made returns the data of the event that was made, going by the status, or "".
func (o operation) made() string {
	return o.fill(outcomes[fmt.Sprint(o.kind, " ", o.status)].event)
}

func (o operation) fill(pattern string) string {
	return strings.NewReplacer("NAME", o.name, "TEXT", o.text).Replace(pattern)
}

// check returns what is wrong with an answer that names the event with that data,
// after which those users are there.
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
	case users[o.name] != outcome.there:
		return fmt.Errorf("the user is there: %v, want %v", users[o.name], outcome.there)
	case outcome.event != "" && data != o.made():
		return fmt.Errorf("made the event %q, want %q", data, o.made())
	}
	return nil
}

// fold applies to users, who were there before it, an event with that data.
func fold(users map[string]bool, data string) {
	rest, _ := strings.CutPrefix(data, "User ")
	if name, ok := strings.CutSuffix(rest, " connected to the chat."); ok {
		users[name] = true
	} else if name, ok := strings.CutSuffix(rest, " disconnected from the chat."); ok {
		delete(users, name)
	}
}

// listOf returns the list of users as text.
func listOf(users map[string]bool) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(users)) {
		lines = append(lines, "User: "+name)
	}
	return "Connected users:\n" + strings.Join(lines, "\n")
}
