package room

// Steps: snapshots and what they restore, and the removal of nodes.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lobby/chat"
)

// snapshot returns the state of a room, by all pages of a snapshot.
func (r *Room) snapshot() (s Snapshot) {
	for step := (TakeSnapshot{}); ; {
		result := r.ApplyStep(step)
		if step.After == "" {
			s = result.Snapshot
		} else {
			s.Users = append(s.Users, result.Snapshot.Users...)
		}
		if result.Next == "" {
			return s
		}
		step.After = result.Next
	}
}

// restored returns a room that is restored from the state of another, by way of its text.
func (r *Room) restored(t *testing.T) *Room {
	t.Helper()
	text, err := json.Marshal(r.snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	copied := New(r.config)
	if result := copied.ApplyStep(Restore{s}); result.Err != nil {
		t.Fatalf("cannot restore %s: %v", text, result.Err)
	}
	return copied
}

// FuzzSnapshot applies one command for each byte to two rooms. One of them is restored from its own
// snapshot in the middle. Both must come to the same state.
func FuzzSnapshot(f *testing.F) {
	f.Add([]byte("join, say, open and leave as the bytes will have it"), 10)
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 64, 65, 66, 67, 68, 69, 70, 71, 72}, 9)
	f.Fuzz(func(t *testing.T, commands []byte, middle int) {
		config := Config{History: 8, MaxUsers: 3, KeepAlive: time.Minute}
		original := New(config)
		continued := original.restored(t)
		for i, b := range commands {
			if i == middle {
				continued = continued.restored(t)
			}
			name, node := chat.UncheckedName(fmt.Sprint("user", b>>4&3)), fmt.Sprint("node", b>>6)
			var step Step
			switch verbs := []Verb{Join, Leave, Say, Open, Open, Release, Release, Sync}; b & 15 {
			case 8:
				step = RemoveNode{Node: node}
			case 9:
				step = NewEpoch{fmt.Sprint("epoch", i)}
			default:
				c := Command{Verb: verbs[b&7], Name: name, Arrival: uint64(b>>6) + 1}
				if u := original.users[name.String()]; u != nil && b&15 > 9 {
					c.Arrival = u.Arrival
				}
				want, got := original.Apply(node, c), continued.Apply(node, c)
				if got.ID != want.ID || got.Err != want.Err || got.IsNew != want.IsNew {
					t.Fatalf("command %d: got %+v, want %+v", i, got, want)
				}
				continue
			}
			original.ApplyStep(step)
			continued.ApplyStep(step)
		}
		want, _ := json.Marshal(original.snapshot())
		if got, _ := json.Marshal(continued.snapshot()); string(got) != string(want) {
			t.Errorf("the state is\n%s, want\n%s", got, want)
		}
	})
}

func TestSnapshotHasPagesOfAllUsers(t *testing.T) {
	for _, users := range []int{0, 1, maxPage, maxPage + 1, 3 * maxPage} {
		r := New(Config{History: 10, MaxUsers: users + 1, KeepAlive: time.Minute})
		for i := range users {
			r.Apply("n", Command{Verb: Open, Name: chat.UncheckedName(fmt.Sprint(i))})
		}
		if copied := r.restored(t); !slices.Equal(copied.names(), r.names()) || len(r.names()) != users {
			t.Errorf("of %d users %d are restored", users, len(copied.names()))
		}
	}
}

func TestRestoreRejectsAnInvalidSnapshot(t *testing.T) {
	r := New(testConfig)
	for _, name := range []string{"alice", "bob"} {
		r.Apply("", Command{Verb: Join, Name: chat.UncheckedName(name)})
	}
	for name, spoil := range map[string]func(*Snapshot){
		"no last id":                 func(s *Snapshot) { s.LastID = "" },
		"an event is missing":        func(s *Snapshot) { s.Events = s.Events[len(s.Events)/2:] },
		"no event":                   func(s *Snapshot) { s.Events = "" },
		"a user occurs twice":        func(s *Snapshot) { s.Users = append(s.Users, s.Users[0]) },
		"the last id is ahead":       func(s *Snapshot) { s.LastID += "0" },
		"the users are out of order": func(s *Snapshot) { slices.Reverse(s.Users) },
		"a user occurs twice, apart": func(s *Snapshot) {
			s.Users = append(s.Users, Presence{Name: "carol", Arrival: 1}, s.Users[0])
		},
		"a name is empty":            func(s *Snapshot) { s.Users[0].Name = "" },
		"a name has a line break":    func(s *Snapshot) { s.Users[0].Name = "al\nice" },
		"a name has a tab":           func(s *Snapshot) { s.Users[0].Name = "al\tice" },
		"a name ends a record":       func(s *Snapshot) { s.Users[0].Name = "al" + RecordEnd + "ice" },
		"a name has two fields":      func(s *Snapshot) { s.Users[0].Name = "a" + FieldSeparator + "b" },
		"a name is not UTF-8":        func(s *Snapshot) { s.Users[0].Name = "al\xffice" },
		"a node has no stream":       func(s *Snapshot) { s.Users[0].Streams = map[string]int{"n": 0} },
		"a node has fewer than none": func(s *Snapshot) { s.Users[0].Streams = map[string]int{"n": -1} },
		"the epoch is not ASCII":     func(s *Snapshot) { s.inEpoch("é") },
		"the epoch is too long":      func(s *Snapshot) { s.inEpoch(strings.Repeat("e", 65)) },
		"the epoch ends a line":      func(s *Snapshot) { s.inEpoch("e\n") },
	} {
		s := r.snapshot()
		spoil(&s)
		if err := New(testConfig).Restore(s); err == nil {
			t.Errorf("Restore accepts a snapshot with a fault: %s", name)
		}
	}
	s := r.snapshot()
	s.inEpoch(strings.Repeat("e", 64))
	if err := New(testConfig).Restore(s); err != nil {
		t.Errorf("Restore rejects the longest epoch: %v", err)
	}
}

// inEpoch moves the snapshot to another epoch.
func (s *Snapshot) inEpoch(epoch string) {
	old, _, _ := strings.Cut(s.LastID, "-")
	s.LastID = strings.Replace(s.LastID, old, epoch, 1)
	s.Events = strings.ReplaceAll(s.Events, "id: "+old, "id: "+epoch)
}

func TestRemovedNodeNoLongerKeepsUsersPresent(t *testing.T) {
	r := New(Config{History: 1000, MaxUsers: 1000, KeepAlive: time.Minute})
	for i := range 2 * maxPage {
		r.Apply("dead", Command{Verb: Open, Name: chat.UncheckedName(fmt.Sprint("user", i))})
	}
	joined, elsewhere := chat.UncheckedName("joined"), chat.UncheckedName("elsewhere")
	r.Apply("dead", Command{Verb: Join, Name: joined})
	for _, node := range []string{"dead", "dead", "alive"} {
		r.Apply(node, Command{Verb: Open, Name: elsewhere})
		r.Apply("dead", Command{Verb: Open, Name: joined})
	}
	for step := (RemoveNode{Node: "dead"}); ; {
		before := len(r.names())
		next := r.ApplyStep(step).Next
		if removed := before - len(r.names()); removed > maxPage {
			t.Errorf("a page has removed %d users, want at most %d", removed, maxPage)
		}
		if next == "" {
			break
		}
		step.After = next
	}
	if got := r.names(); !slices.Equal(got, []string{"elsewhere", "joined"}) {
		t.Errorf("the users are %q, want those whom something else keeps present", got)
	}
	r.Apply("alive", Command{Verb: Release, Name: elsewhere, Arrival: r.users["elsewhere"].Arrival})
	if got := r.names(); !slices.Equal(got, []string{"joined"}) {
		t.Errorf("the users are %q, want only joined", got)
	}
}

// Each iteration takes one page of a snapshot and removes the same page of users. On a busy
// machine, longest-µs is a call that the scheduler interrupted.
func BenchmarkPage(b *testing.B) {
	r := New(Config{History: 4096, MaxUsers: 1, KeepAlive: time.Minute})
	after, held := "", []time.Duration(nil)
	for b.Loop() {
		if after == "" {
			b.StopTimer()
			for i := range 100_000 {
				r.Apply("n", Command{Verb: Open, Name: chat.UncheckedName(fmt.Sprint("user", i))})
			}
			b.StartTimer()
		}
		for _, step := range []Step{TakeSnapshot{after}, RemoveNode{"n", after}} {
			start := time.Now()
			result := r.ApplyStep(step)
			held = append(held, time.Since(start))
			if _, isRemoval := step.(RemoveNode); isRemoval {
				after = result.Next
			}
		}
	}
	slices.Sort(held)
	b.ReportMetric(float64(held[len(held)-1].Microseconds()), "longest-µs")
	b.ReportMetric(float64(held[len(held)*999/1000].Microseconds()), "p99.9-µs")
}
