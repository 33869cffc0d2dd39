package cluster

// What belongs here: saved states, and nodes that begin from them.

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/etcd"
)

// almost is so many bytes of entries that the next one makes a state due, even an empty one.
const almost = saveAfter - entryCost

// mustHaveSaved returns the state that was saved last, and fails the test unless that goes up to
// the end of the log.
func (b *bubble) mustHaveSaved() (s saved) {
	b.Helper()
	synctest.Wait()
	state, at := b.log.State()
	if at != b.log.Len() {
		b.Fatalf("the saved state goes up to %d, want %d", at, b.log.Len())
	}
	if err := json.Unmarshal(state, &s); err != nil {
		b.Fatal(err)
	}
	return s
}

// TestStateIsSavedAtTheSize lets the log grow to a byte less than what makes a state due.
func TestStateIsSavedAtTheSize(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, greeting())
		b.fill(2, almost-1)
		b.sleepUntil(beat) // an empty entry, which counts too
		if state, _ := b.log.State(); state != nil {
			t.Error("a state was saved a byte too early")
		}
		b.sleepUntil(2 * beat)
		b.mustHaveSaved()
		b.fill(3, almost)
		b.sleepUntil(3 * beat)
		got := b.mustHaveSaved()
		if want := map[string]int{"a": 4, "x": 3}; !maps.Equal(got.Nodes, want) || got.Lobby != "first" {
			t.Errorf("the saved state is that of %q with the nodes %v, want first and %v", got.Lobby, got.Nodes, want)
		}
		b.mustLive(a)
	})
}

// TestAuthorSavesTheState has one node's entry make a state due, and then another one's.
func TestAuthorSavesTheState(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.mustBegin("a"), b.mustBegin("c")
		b.put("x", 1, greeting())
		for i, author := range []*life{a, c, c, a} {
			b.fill(i+2, almost)
			author.say("hello")
			b.mustHaveSaved()
			if got, want := len(a.saves)+len(c.saves), i+1; got != want {
				t.Fatalf("%d states were saved, want %d", got, want)
			}
		}
		b.fill(6, saveAfter) // by x, who cannot save a state
		a.say("hello")
		synctest.Wait()
		if len(a.saves) != 2 || len(c.saves) != 2 {
			t.Errorf("a has saved %d states and c %d, want 2 and 2", len(a.saves), len(c.saves))
		}
	})
}

// TestNodeThatBeginsFromASavedStateIsLikeTheOthers compares it with one that has read everything.
func TestNodeThatBeginsFromASavedStateIsLikeTheOthers(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		for _, name := range []string{"x", "y", "z"} {
			b.put(name, 1, greeting())
		}
		b.put("x", 2, said("one"))
		b.put("x", 3, buryText("y", 1)+said("two"))
		b.fill(4, almost)
		a.say("three")
		saved := b.mustHaveSaved()
		if want := map[string]int{"a": 2, "x": 4, "z": 1}; !maps.Equal(saved.Nodes, want) {
			t.Errorf("the saved state has the nodes %v, want %v", saved.Nodes, want)
		}
		b.put("x", 5, said("four"))

		c := b.mustBegin("c")
		c.expect("load "+saved.State.LastID, "x: say alice four")
		b.mustAgree(a, c)
		if c.At == 0 || c.loaded.Users[0].Name != saved.State.Users[0].Name {
			t.Errorf("the hub has loaded %v", c.loaded)
		}
		b.put("x", 6, said("five"))
		c.say("six")
		a.say("seven")
		b.sleepUntil(20 * time.Second)
		b.mustAgree(a, c)
		b.mustLive(a, c)
		a.kill()
		c.kill()
		if a.size != c.size || a.epoch != c.epoch {
			t.Errorf("one node counts %d bytes in epoch %s, the other %d in %s", a.size, a.epoch, c.size, c.epoch)
		}
		for name, m := range a.nodes {
			if other := c.nodes[name]; other == nil || other.last != m.last {
				t.Errorf("the nodes do not agree on node %s", name)
			}
		}
		if len(a.nodes) != 2 || len(c.nodes) != 2 {
			t.Errorf("the nodes know of %d and %d nodes, want 2", len(a.nodes), len(c.nodes))
		}
	})
}

// TestNodesOfASavedStateAreBuried has all be dead whom a saved state knows.
func TestNodesOfASavedStateAreBuried(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, greeting())
		b.fill(2, almost)
		a.say("hello")
		saved := b.mustHaveSaved()
		a.kill()
		c := b.mustBegin("c")
		b.sleepUntil(deadAfter*beat - 1)
		c.expect("load " + saved.State.LastID)
		b.sleepUntil(deadAfter * beat)
		c.expect("load "+saved.State.LastID, "bury a", "bury x")
	})
}

// TestStateThatIsSavedInPartsIsOfOneMoment has more come out of the log while the hub is asked.
func TestStateThatIsSavedInPartsIsOfOneMoment(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.newLife("a"), b.mustBegin("c")
		a.pages = 30
		a.onTurn = func(_ *life, what string) {
			if strings.HasPrefix(what, "save") {
				time.Sleep(10 * time.Millisecond)
			}
		}
		b.begin(a)
		b.put("x", 1, greeting())
		b.fill(2, almost)
		a.say("before")
		synctest.Wait()
		c.say("after")
		synctest.Wait()
		a.say("after")
		b.sleepUntil(beat / 2)
		want := []string{"load first-0", "x: shut alice", "a: say alice before", "save"}
		users := []string{"user-after-"}
		for n := range 29 {
			want = append(want, fmt.Sprint("save after ", n+1))
			users = append(users, fmt.Sprint("user-after-", n+1))
		}
		a.expect(append(want, "c: say alice after", "a: say alice after")...)
		state, _ := b.log.State()
		var s saved
		if err := json.Unmarshal(state, &s); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, user := range s.State.Users {
			got = append(got, user.Name.String())
		}
		if !slices.Equal(got, users) {
			t.Errorf("the users of the saved state are %q", got)
		}
		if events := string(s.State.Events); strings.Contains(events, "after") || !strings.HasSuffix(events, "before") ||
			s.State.LastID != "first-2" {
			t.Errorf("the events of the saved state end with %.100q and %s", events[len(events)-20:], s.State.LastID)
		}
		d := b.mustBegin("d")
		b.mustAgree(a, c, d)
	})
}

func TestFailedSaveIsFollowedByAnother(t *testing.T) {
	inBubble(t, func(b *bubble) {
		failure := errors.New("etcd is full")
		a := b.newLife("a")
		a.refuseSave = func() error { return failure }
		b.begin(a)
		b.put("x", 1, greeting())
		b.put("y", 1, greeting())
		b.put("x", 2, buryText("y", 1))
		b.fill(3, almost)
		a.say("hello")
		synctest.Wait()
		if want := "cannot save the lobby's state: etcd is full; another node will, later"; len(a.warnings) != 1 ||
			a.warnings[0].what != want {
			t.Errorf("the warnings are %v, want %q", a.warnings, want)
		}
		a.say("not worth a state")
		synctest.Wait()
		b.step()
		failure = nil
		b.put("z", 1, greeting())
		b.put("x", 4, buryText("z", 1))
		size := 0 // all nodes agree when the next state is due, whether or not this one was saved
		for _, e := range b.entries(a.saves[0].at) {
			size += len(e.Text) + entryCost
		}
		b.put("x", 5, long(almost-entryCost-size))
		synctest.Wait()
		if len(a.saves) != 1 {
			t.Fatalf("%d states were saved, want 1", len(a.saves))
		}
		a.say("hello")
		b.mustHaveSaved()
		if len(a.saves) != 2 || len(a.warnings) != 1 {
			t.Errorf("%d states were saved, and the warnings are %v", len(a.saves), a.warnings)
		}
		var gone [][]string
		for _, s := range a.saves {
			gone = append(gone, s.gone)
		}
		if want := [][]string{{"y"}, {"y", "z"}}; !slices.EqualFunc(gone, want, slices.Equal) {
			t.Errorf("the log was asked to forget %q, want %q", gone, want)
		}
		b.mustLive(a)
	})
}

// TestGoneNodesAreForgottenOnce buries nodes before a state is saved, meanwhile, and later.
func TestGoneNodesAreForgottenOnce(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		for _, name := range []string{"x", "y1", "y2", "y3"} {
			b.put(name, 1, greeting())
		}
		b.put("x", 2, buryText("y1", 1))
		a.holdsSaves.Store(true)
		b.fill(3, almost)
		a.say("hello")
		synctest.Wait()
		b.put("x", 4, buryText("y2", 1))
		b.sleepUntil(beat / 2)
		a.holdsSaves.Store(false)
		b.sleepUntil(3 * beat / 4)
		b.put("x", 5, buryText("y3", 1))
		for n := range 2 {
			b.fill(6+n, almost)
			a.say("hello")
			b.mustHaveSaved()
		}
		var gone [][]string
		for _, s := range a.saves {
			gone = append(gone, s.gone)
		}
		if want := [][]string{{"y1"}, {"y2", "y3"}, nil}; !slices.EqualFunc(gone, want, slices.Equal) {
			t.Errorf("the log was asked to forget %q, want %q", gone, want)
		}
	})
}

// TestOneStateIsSavedAtATime makes a second one due while the first is on its way.
func TestOneStateIsSavedAtATime(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		a.holdsSaves.Store(true)
		b.put("x", 1, greeting())
		b.fill(2, almost)
		a.say("first")
		synctest.Wait()
		b.put("x", 3, long(almost-entryCost))
		a.say("second")
		synctest.Wait()
		if len(a.saves) != 1 {
			t.Errorf("%d states are being saved", len(a.saves))
		}
		b.sleepUntil(beat / 2)
		a.holdsSaves.Store(false)
		b.sleepUntil(3 * beat / 4)
		if _, at := b.log.State(); at != a.saves[0].at {
			t.Errorf("the saved state goes up to %d, want %d", at, a.saves[0].at)
		}
		b.put("x", 4, long(almost-entryCost))
		a.say("third")
		b.mustHaveSaved()
		b.mustLive(a)
	})
}

// TestNodeThatLagsFarBehindEnds has two states be saved while a node reads nothing.
func TestNodeThatLagsFarBehindEnds(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.mustBegin("a"), b.mustBegin("c")
		b.put("x", 1, greeting())
		c.holdsEntries.Store(true)
		for n := range 2 {
			b.fill(n+2, almost)
			a.say("hello")
			b.mustHaveSaved()
		}
		b.sleepUntil(beat / 2)
		c.holdsEntries.Store(false)
		b.sleepUntil(beat)
		c.mustEnd(etcd.ErrTrimmed, 0)
		d := b.mustBegin("d")
		b.mustAgree(a, d)
	})
}

func TestDamagedStateEndsALifeWithASentence(t *testing.T) {
	for _, state := range []string{"", "null", "garbage", "{}", `{"state":{"lastID":"first"}}`, `{"nodes":{"a":"one"}}`} {
		session := &etcd.Session{Settings: firstKey, Snapshot: []byte(state), At: 1}
		_, err := NewNode(session, nil, settings, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "the saved state cannot be read: ") || errors.Is(err, ErrSettings) {
			t.Errorf("a saved state %q: the error is %v", state, err)
		}
	}
	inBubble(t, func(b *bubble) { // what only the hub can tell
		a := b.newLife("a")
		damage := errors.New("the event a-1 is missing")
		a.loadError = damage
		b.begin(a)
		a.expect("load first-0", "end 0")
		if !a.isOver() || !errors.Is(a.reason, damage) ||
			a.reason.Error() != "the saved state cannot be used: the event a-1 is missing" {
			t.Errorf("the life has ended: %v", a.reason)
		}
	})
}
