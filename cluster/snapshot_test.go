package cluster

// What belongs here: snapshots, and nodes that start from them.

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/etcd"
	"lobby/room"
)

// almost is how many bytes may be in the log so that any further entry, even an empty one, makes a
// snapshot due.
const almost = snapshotAfter - entryCost

// mustHaveSnapshot returns the newest snapshot. It fails the test unless nothing came after it but
// the entry that says that it was saved.
func (l *testLobby) mustHaveSnapshot() (s snapshot) {
	l.Helper()
	synctest.Wait()
	data, at := l.log.Snapshot()
	rest := l.entries(at)
	if len(rest) != 1 || !strings.HasPrefix(string(rest[0].Text), saved+room.FieldSeparator) {
		l.Fatalf("the snapshot goes up to entry %d of %d", at, l.log.Len())
	}
	if err := json.Unmarshal(data, &s); err != nil {
		l.Fatal(err)
	}
	return s
}

func TestSnapshotIsSavedWhenTheLogHasGrown(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		l.put("x", 1, registered())
		l.fill(2, almost-1)
		l.sleepUntil(heartbeat) // an empty entry, which counts too
		if data, _ := l.log.Snapshot(); data != nil {
			t.Error("a snapshot was saved a byte too early")
		}
		l.sleepUntil(2 * heartbeat)
		l.mustHaveSnapshot()
		l.fill(3, almost)
		l.sleepUntil(3 * heartbeat)
		got := l.mustHaveSnapshot()
		if want := map[string]int{"a": 5, "x": 3}; !maps.Equal(got.Nodes, want) || got.Lobby != "first" {
			t.Errorf("the snapshot is of %q with the nodes %v, want first and %v", got.Lobby, got.Nodes, want)
		}
		l.mustRun(a)
	})
}

func TestNodeWhoseEntryMakesASnapshotDueSavesIt(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.mustStart("a"), l.mustStart("c")
		l.put("x", 1, registered())
		for i, author := range []*machine{a, c, c, a} {
			l.fill(i+2, almost)
			author.say("hello")
			l.mustHaveSnapshot()
			if got, want := len(a.saves)+len(c.saves), i+1; got != want {
				t.Fatalf("%d snapshots were saved, want %d", got, want)
			}
		}
		l.fill(6, snapshotAfter) // by x, which saves none
		a.say("hello")
		synctest.Wait()
		if len(a.saves) != 2 || len(c.saves) != 2 {
			t.Errorf("a has saved %d snapshots and c %d, want 2 and 2", len(a.saves), len(c.saves))
		}
	})
}

func TestNodeThatStartsFromASnapshotAgreesWithTheOthers(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		for _, name := range []string{"x", "y", "z"} {
			l.put(name, 1, registered())
		}
		l.put("x", 2, said("one"))
		l.put("x", 3, removalText("y", 1)+said("two"))
		l.fill(4, almost)
		a.say("three")
		saved := l.mustHaveSnapshot()
		if want := map[string]int{"a": 2, "x": 4, "z": 1}; !maps.Equal(saved.Nodes, want) {
			t.Errorf("the snapshot has the nodes %v, want %v", saved.Nodes, want)
		}
		l.put("x", 5, said("four"))

		c := l.mustStart("c")
		c.expect("restore "+saved.Room.LastID, "x: say alice four")
		l.mustAgree(a, c)
		if c.At == 0 || c.restored.Users[0].Name != saved.Room.Users[0].Name {
			t.Errorf("the hub has restored %v", c.restored)
		}
		l.put("x", 6, said("five"))
		c.say("six")
		a.say("seven")
		l.sleepUntil(20 * time.Second)
		l.mustAgree(a, c)
		l.mustRun(a, c)
		a.kill()
		c.kill()
		if a.schedule.size != c.schedule.size || a.epoch != c.epoch {
			t.Errorf("one node counts %d bytes in epoch %s, the other %d in %s", a.schedule.size, a.epoch, c.schedule.size, c.epoch)
		}
		for name, m := range a.nodes {
			if other, ok := c.nodes[name]; !ok || other.last != m.last {
				t.Errorf("the nodes do not agree on node %s", name)
			}
		}
		if len(a.nodes) != 2 || len(c.nodes) != 2 {
			t.Errorf("the nodes know %d and %d nodes, want 2", len(a.nodes), len(c.nodes))
		}
	})
}

func TestDeadNodesOfASnapshotAreRemoved(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		l.put("x", 1, registered())
		l.fill(2, almost)
		a.say("hello")
		saved := l.mustHaveSnapshot()
		a.kill()
		c := l.mustStart("c")
		l.sleepUntil(deadAfter*heartbeat - 1)
		c.expect("restore " + saved.Room.LastID)
		l.sleepUntil(deadAfter * heartbeat)
		c.expect("restore "+saved.Room.LastID, "remove a", "remove x")
	})
}

// More comes out of the log between the pages.
func TestPagesOfASnapshotAreOfOneMoment(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.newMachine("a"), l.mustStart("c")
		a.pages = 30
		a.onStep = func(_ *machine, what string) {
			if strings.HasPrefix(what, "snapshot") {
				time.Sleep(10 * time.Millisecond)
			}
		}
		l.start(a)
		l.put("x", 1, registered())
		l.fill(2, almost)
		a.say("before")
		synctest.Wait()
		c.say("after")
		synctest.Wait()
		a.say("after")
		l.sleepUntil(heartbeat / 2)
		want := []string{"restore first-0", "a: say alice before", "snapshot"}
		users := []string{"user-after-"}
		for n := range 29 {
			want = append(want, fmt.Sprint("snapshot after ", n+1))
			users = append(users, fmt.Sprint("user-after-", n+1))
		}
		a.expect(append(want, "c: say alice after", "a: say alice after")...)
		data, _ := l.log.Snapshot()
		var s snapshot
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, user := range s.Room.Users {
			got = append(got, user.Name)
		}
		if !slices.Equal(got, users) {
			t.Errorf("the users of the snapshot are %q", got)
		}
		if s.Room.Events != "a: say alice before" || s.Room.LastID != "first-1" {
			t.Errorf("the snapshot has the events %q up to %s", s.Room.Events, s.Room.LastID)
		}
		d := l.mustStart("d")
		l.mustAgree(a, c, d)
	})
}

// Otherwise etcd would have to write much more than the log.
func TestLargeSnapshotIsFollowedByALongerLog(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.newMachine("a"), l.mustStart("c")
		a.padding = 2 * snapshotAfter
		l.start(a)
		l.put("x", 1, registered())
		l.fill(2, almost)
		a.say("hello")
		l.mustHaveSnapshot()
		data, _ := l.log.Snapshot()
		l.sleepUntil(5 * heartbeat / 2) // a's next entry has the size
		d := l.mustStart("d")
		l.fill(3, len(data)-entryCost-len(said("hello"))-1)
		d.say("hello") // a byte too early
		synctest.Wait()
		if len(d.saves) > 0 {
			t.Errorf("another snapshot was saved before the log had grown by %d bytes", len(data))
		}
		c.say("hello")
		l.mustHaveSnapshot()
		if len(c.saves) != 1 || len(a.saves) != 1 {
			t.Errorf("a has saved %d snapshots and c %d, want 1 and 1", len(a.saves), len(c.saves))
		}
		l.mustRun(a, c, d)
		l.sleepUntil(7 * heartbeat / 2) // c's next entry has a size below the least one
		l.fill(4, almost)
		d.say("hello")
		l.mustHaveSnapshot()
	})
}

func TestSnapshotThatCannotBeSavedIsFollowedByAnother(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		failure := errors.New("etcd is full")
		a := l.newMachine("a")
		a.refuseSnapshot = func() error { return failure }
		l.start(a)
		l.put("x", 1, registered())
		l.put("y", 1, registered())
		l.put("x", 2, removalText("y", 1))
		l.fill(3, almost)
		a.say("hello")
		synctest.Wait()
		if want := "cannot save a snapshot of the lobby: etcd is full; " +
			"the next one is due when the log has grown by as much again"; len(a.warnings) != 1 ||
			a.warnings[0].what != want {
			t.Errorf("the warnings are %v, want %q", a.warnings, want)
		}
		a.say("not yet")
		synctest.Wait()
		l.step()
		failure = nil
		l.put("z", 1, registered())
		l.put("x", 4, removalText("z", 1))
		size := 0 // all nodes agree when the next one is due, whether or not this one was saved
		for _, e := range l.entries(a.saves[0].at) {
			size += len(e.Text) + entryCost
		}
		l.put("x", 5, long(almost-entryCost-size))
		synctest.Wait()
		if len(a.saves) != 1 {
			t.Fatalf("%d snapshots were taken, want 1", len(a.saves))
		}
		a.say("hello")
		l.mustHaveSnapshot()
		if len(a.saves) != 2 || len(a.warnings) != 1 {
			t.Errorf("%d snapshots were taken, and the warnings are %v", len(a.saves), a.warnings)
		}
		var gone [][]string
		for _, s := range a.saves {
			gone = append(gone, s.gone)
		}
		if want := [][]string{{"y"}, {"y", "z"}}; !slices.EqualFunc(gone, want, slices.Equal) {
			t.Errorf("the log was told that %q are gone, want %q", gone, want)
		}
		l.mustRun(a)
	})
}

// Nodes are removed before a snapshot is saved, while that happens, and later.
func TestKeysOfRemovedNodesAreRemovedOnce(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		for _, name := range []string{"x", "y1", "y2", "y3"} {
			l.put(name, 1, registered())
		}
		l.put("x", 2, removalText("y1", 1))
		a.holdsSnapshots.Store(true)
		l.fill(3, almost)
		a.say("hello")
		synctest.Wait()
		l.put("x", 4, removalText("y2", 1))
		l.sleepUntil(heartbeat / 2)
		a.holdsSnapshots.Store(false)
		l.sleepUntil(3 * heartbeat / 4)
		l.put("x", 5, removalText("y3", 1))
		for n := range 2 {
			l.fill(6+n, almost)
			a.say("hello")
			l.mustHaveSnapshot()
		}
		var gone [][]string
		for _, s := range a.saves {
			gone = append(gone, s.gone)
		}
		if want := [][]string{{"y1"}, {"y2", "y3"}, nil}; !slices.EqualFunc(gone, want, slices.Equal) {
			t.Errorf("the log was told that %q are gone, want %q", gone, want)
		}
	})
}

// A second snapshot is due while the first is being saved, and the node that saves the first may
// die before that has succeeded. Nodes that start in the meantime know all that.
func TestOneSnapshotIsSavedAtATime(t *testing.T) {
	for _, dies := range []bool{false, true} {
		inLobby(t, func(l *testLobby) {
			a, c := l.mustStart("a"), l.mustStart("c")
			l.put("x", 1, registered())
			l.fill(2, almost)
			c.say("the first snapshot")
			l.mustHaveSnapshot()
			a.holdsSnapshots.Store(true)
			l.fill(3, almost)
			a.say("the second one")
			synctest.Wait()
			d := l.mustStart("d")
			l.put("x", 4, long(almost-entryCost))
			c.say("another one would be due")
			d.say("more")
			synctest.Wait()
			if len(a.saves) != 1 || len(c.saves) != 1 || len(d.saves) != 0 {
				t.Errorf("a saves %d snapshots, c %d, d %d", len(a.saves), len(c.saves), len(d.saves))
			}
			l.sleepUntil(heartbeat / 2)
			if dies {
				a.kill()
				c.holdsSnapshots.Store(true)
				d.holdsSnapshots.Store(true)
				l.sleepUntil(14 * heartbeat)
				if len(c.saves)+len(d.saves) != 2 { // The entry that removed a made one due.
					t.Errorf("c has saved %d snapshots, d %d", len(c.saves), len(d.saves))
				}
				l.log.Damage("c", 3) // a may have saved a snapshot, so this may be in order
				synctest.Wait()
				if len(c.warnings)+len(d.warnings) > 0 {
					t.Errorf("the warnings are %v and %v", c.warnings, d.warnings)
				}
			} else {
				a.holdsSnapshots.Store(false)
				l.sleepUntil(3 * heartbeat / 4)
				if len(a.saves) != 2 || len(c.saves) != 1 { // Its next entry said so.
					t.Errorf("a has saved %d snapshots, c %d", len(a.saves), len(c.saves))
				}
			}
			d.kill()
			c.kill()
			if !reflect.DeepEqual(c.schedule, d.schedule) {
				t.Errorf("c has %+v, d %+v", c.schedule, d.schedule)
			}
		})
	}
}

// One snapshot is enough for all nodes that notice the damage. Entries that a saved snapshot
// includes are not needed; those that do not count never were.
func TestDamageIsHealedByASnapshot(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.mustStart("a"), l.mustStart("c")
		l.put("x", 1, registered())
		l.put("x", 2, said("hello"))
		saves := func(want int, when string) {
			t.Helper()
			l.step()
			if got := len(a.saves) + len(c.saves); got != want {
				t.Errorf("%s, %d snapshots were saved, want %d", when, got, want)
			}
		}
		l.log.Damage("x", 3)
		l.log.Damage("stranger", 1)
		l.sleepUntil(3 * time.Second / 2)
		saves(0, "after damage to what does not count")
		l.log.Damage("x", 2)
		synctest.Wait()
		saves(1, "after damage")
		l.sleepUntil(5 * time.Second / 2)
		l.log.Damage("x", 1)
		l.log.Damage("x", 2)
		l.sleepUntil(7 * time.Second / 2)
		saves(1, "after damage to what the snapshot includes")
		l.put("x", 3, removalText("c", c.nodes["c"].last)+said("c is dead"))
		c.mustEnd(ErrRemoved, 0)
		l.log.Damage("c", 2)
		l.sleepUntil(9 * time.Second / 2)
		saves(1, "after damage to an entry of a removed node that the snapshot includes")
		l.log.Damage("x", 3)
		synctest.Wait()
		saves(2, "after more damage")
		l.put("y", 1, registered())
		l.put("x", 4, removalText("y", 1))
		l.log.Damage("y", 1)
		synctest.Wait()
		saves(3, "after damage to an entry of a removed node that no snapshot includes")
		d := l.mustStart("d")
		l.mustAgree(a, d)
		want := "entry 2 of \"x\" in the lobby's log was changed or removed by hand; another snapshot replaces it"
		if len(a.warnings) == 0 || !slices.ContainsFunc(a.warnings, func(e event) bool { return e.what == want }) {
			t.Errorf("the warnings are %v, want %q", a.warnings, want)
		}
	})
}

func TestDamageIsHealedAfterASnapshotCouldNotBeSaved(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		l.put("x", 1, registered())
		l.put("x", 2, said("hello"))
		a.refuseSnapshot = func() error { return etcd.ErrTooLarge }
		l.fill(3, almost)
		a.say("makes a snapshot due")
		l.sleepUntil(3 * time.Second / 2)
		a.refuseSnapshot = nil
		l.log.Damage("x", 2)
		l.sleepUntil(5 * time.Second / 2)
		if data, _ := l.log.Snapshot(); data == nil {
			t.Error("no snapshot was saved after damage to an entry that none includes")
		}
		l.mustAgree(a, l.mustStart("d"))
	})
}

func TestDamagedSnapshotIsExplained(t *testing.T) {
	for _, data := range []string{
		"", "null", "garbage", "{}", `{"room":{"lastID":"first"}}`, `{"nodes":{"a":"one"}}`,
		`{"room":{"lastID":"first-0"},"nodes":{"a":0}}`, `{"room":{"lastID":"first-0"},"nodes":{"":1}}`,
		`{"room":{"lastID":"first-0"},"nodes":{"a\u001fb":1}}`, // would spoil the removal's text
	} {
		session := &etcd.Session{Settings: settingsKey, Snapshot: []byte(data), At: 1}
		_, err := NewNode(session, nil, settings, nil)
		const want = "the snapshot cannot be read: "
		if err == nil || !strings.HasPrefix(err.Error(), want) || errors.Is(err, ErrSettings) {
			t.Errorf("a snapshot %q: the error is %v", data, err)
		}
	}
	inLobby(t, func(l *testLobby) { // a fault that only the hub finds
		a := l.newMachine("a")
		damage := errors.New("the event a-1 is missing")
		a.restoreErr = damage
		l.start(a)
		a.expect("restore first-0", "end 0")
		if !a.hasEnded() || !errors.Is(a.reason, damage) ||
			a.reason.Error() != "the snapshot cannot be used: the event a-1 is missing" {
			t.Errorf("the node has ended: %v", a.reason)
		}
	})
}
