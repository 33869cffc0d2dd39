package cluster

// What belongs here: entries that others have forged or damaged, and those of later versions.

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestForgedEntryOfTheNodeItselfBringsNobodyDown has a stranger write in the name of a node that
// lives, when that has nothing on its way.
func TestForgedEntryOfTheNodeItselfBringsNobodyDown(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.mustBegin("a")
		b.put("a", 2, "")
		b.sleepUntil(beat / 2)
	})
}

// TestHubGetsNoCommandsOfItsOwnThatItDidNotSend has a stranger be faster than the node, whose hub
// would take the stranger's commands for the answers to its own.
func TestHubGetsNoCommandsOfItsOwnThatItDidNotSend(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		a.holdsAppends.Store(true)
		a.say("mine")
		synctest.Wait()
		b.put("a", 2, said("forged")+said("forged, too"))
		b.sleepUntil(beat / 2)
		for _, turn := range a.turns {
			if turn.what == "a: say alice forged" || turn.what == "a: say alice forged, too" {
				t.Errorf("the hub has had the turn %q", turn.what)
			}
		}
	})
}

// TestEpochThatIsNoneIsNoEntry is about what would stand in the ids of all streams, and in a saved
// state from which no node could begin.
func TestEpochThatIsNoneIsNoEntry(t *testing.T) {
	for _, epoch := range []string{"", "a-b", "a b", "a\ndata: User bob connected to the chat.", "A", "é", "\xff"} {
		if _, _, err := parse(helloText(version, "first", epoch)); err == nil {
			t.Errorf("the epoch %q is taken", epoch)
		}
		key := fmt.Sprintf(`{"version":1,"epoch":%q,"history":10,"maxUsers":20}`, epoch)
		if _, err := check(key, settings); err == nil {
			t.Errorf("the epoch %q is taken from the first key", epoch)
		}
	}
}

// TestHelloOfALaterVersionNeedNotBeUnderstood is about a later version whose first entry has
// records that this one does not know.
func TestHelloOfALaterVersionNeedNotBeUnderstood(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, helloText(version+1, "", "unused")+"capabilities\x1fall of them\x1e")
		if !a.isOver() || !errors.Is(a.reason, ErrVersion) {
			t.Errorf("the life has ended: %v, want %v", a.reason, ErrVersion)
		}
	})
}

// TestLongLogThatDoesNotCountDoesNotEndALife has nothing but garbage be in the log for longer than
// a log may be quiet.
func TestLongLogThatDoesNotCountDoesNotEndALife(t *testing.T) {
	inBubble(t, func(b *bubble) {
		for n := range 500 {
			b.put("x", n+1, "garbage")
		}
		a := b.newLife("a")
		a.Delay = always(20 * time.Millisecond)
		b.begin(a)
		b.sleepUntil(time.Minute / 2)
		b.mustLive(a)
		if a.readyAt == 0 {
			t.Error("the node was never ready")
		}
	})
}
