package cluster

// What belongs here: histories that start over in a new epoch.

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/room"
)

// startLost starts a machine whose process has seen events of these epochs that the log lacks.
func (l *testLobby) startLost(name, lost string) *machine {
	m := l.newMachine(name)
	m.lost = lost
	return l.start(m)
}

func TestLossStartsANewEpochOnce(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		l.put("x", 1, registered())
		l.put("x", 2, said("one"))
		a := l.mustStart("a")
		a.holdsAppends.Store(true)
		a.say("in the old epoch, maybe")

		c := l.startLost("c", "first")
		synctest.Wait()
		a.expect("restore first-0", "x: say alice one", "end 1")
		a.mustEnd(ErrNewEpoch, 1)
		epoch := c.hubEpoch
		if len(epoch) < 8 || epoch == "first" || strings.Trim(epoch, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			t.Errorf("the new epoch is %q", epoch)
		}
		want := []string{"restore first-0", "x: say alice one", "new epoch " + epoch}
		c.expect(want...)
		const said = "the history has started over in the epoch %s, " +
			"because the log was restored from a backup or its settings key was removed"
		if len(c.warnings) != 1 || c.warnings[0].what != fmt.Sprintf(said, epoch) {
			t.Errorf("the warnings are %v", c.warnings)
		}

		d, e := l.startLost("d", "older first"), l.mustStart("e")
		c.say("two")
		synctest.Wait()
		e.say("three")
		l.sleepUntil(time.Second)
		l.mustRun(c, d, e)
		l.mustAgree(c, d, e)
		if len(c.warnings)+len(d.warnings)+len(e.warnings) != 1 {
			t.Error("more than one node has announced the epoch")
		}
		d.expect(append(want, "c: say alice two", "e: say alice three")...)

		f := l.startLost("f", "first "+epoch+" other")
		for _, m := range []*machine{c, d, e} {
			m.mustEnd(ErrNewEpoch, 0)
		}
		l.mustRun(f)
		if f.hubEpoch == epoch || f.hubEpoch == "first" {
			t.Errorf("the third epoch is %q", f.hubEpoch)
		}
	})
}

func TestLossInAnotherEpochHasNoEffect(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		c := l.startLost("c", "other")
		l.put("x", 1, registrationText("other", "new"))
		l.put("x", 2, said("hello"))
		for _, m := range []*machine{a, c, l.mustStart("d")} {
			m.expect("restore first-0", "x: say alice hello")
		}
		l.mustRun(a, c)
	})
}

// An operator has removed the settings key before there was a snapshot, and a node has put
// another one.
func TestEntriesOlderThanTheFirstKeyBelongToTheOldEpoch(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		l.put("x", 1, registered())
		l.put("x", 2, said("old"))
		a := l.newMachine("a")
		a.created = 3
		l.start(a)
		synctest.Wait()
		a.expect("restore first-0", "x: say alice old", "new epoch first")
		l.mustRun(a)
	})
}

// The same, when there was a snapshot.
func TestSnapshotOlderThanTheFirstKeyBelongsToTheOldEpoch(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		l.put("x", 1, registered())
		old := snapshot{Lobby: "old", Nodes: map[string]int{"x": 1}}
		old.Room = room.Snapshot{LastID: "old-7", Events: "one\ntwo"}
		data, err := json.Marshal(old)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.log.Open().SaveSnapshot(t.Context(), 1, data, nil); err != nil {
			t.Fatal(err)
		}
		l.put("x", 2, said("three"))
		a := l.mustStart("a")
		a.expect("restore old-7", "new epoch first", "x: say alice three")
		l.fill(3, almost)
		a.say("four")
		if lobby := l.mustHaveSnapshot().Lobby; lobby != "first" {
			t.Errorf("the snapshot is one of %q, want first", lobby)
		}
		c := l.mustStart("c")
		c.expect(fmt.Sprint("restore first-", len(a.state)))
		l.mustAgree(a, c)

		l.startLost("d", "first")
		a.mustEnd(ErrNewEpoch, 0)
		c.mustEnd(ErrNewEpoch, 0)
	})
}

func TestSnapshotKeepsTheEpochThatALossStarted(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.startLost("a", "first")
		l.put("x", 1, registered())
		l.fill(2, almost)
		a.say("hello")
		saved := l.mustHaveSnapshot()
		if saved.Lobby != "first" || saved.Room.LastID != fmt.Sprint(a.hubEpoch, "-", len(a.state)) {
			t.Errorf("the snapshot is one of %q and goes up to %s", saved.Lobby, saved.Room.LastID)
		}
		c := l.mustStart("c")
		c.expect("restore " + saved.Room.LastID)
		d := l.startLost("d", a.hubEpoch)
		a.mustEnd(ErrNewEpoch, 0)
		c.mustEnd(ErrNewEpoch, 0)
		l.mustRun(d)
	})
}
