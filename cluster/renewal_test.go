package cluster

// What belongs here: histories that begin anew.

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// beginLost begins a life whose process has seen more of an epoch than the log has.
func (b *bubble) beginLost(name, lost string) *life {
	l := b.newLife(name)
	l.lost = lost
	return b.begin(l)
}

// TestLossBeginsANewEpoch has several nodes find out that the log lacks something, one of which has
// not.
func TestLossBeginsANewEpoch(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		b.put("x", 2, said("one"))
		a := b.mustBegin("a")
		a.holdsAppends.Store(true)
		a.say("in the old epoch, maybe")

		c := b.beginLost("c", "first")
		synctest.Wait()
		a.expect("load first-0", "x: say alice one", "end 1")
		a.mustEnd(ErrRenewed, 1)
		epoch := c.hubEpoch
		if len(epoch) < 8 || epoch == "first" || strings.Trim(epoch, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			t.Errorf("the new epoch is %q", epoch)
		}
		want := []string{"load first-0", "x: say alice one", "renew " + epoch}
		c.expect(want...)

		d, e := b.beginLost("d", "older first"), b.mustBegin("e")
		c.say("two")
		synctest.Wait()
		e.say("three")
		b.sleepUntil(time.Second)
		b.mustLive(c, d, e)
		b.mustAgree(c, d, e)
		d.expect(append(want, "c: say alice two", "e: say alice three")...)

		f := b.beginLost("f", "first "+epoch+" other")
		for _, l := range []*life{c, d, e} {
			l.mustEnd(ErrRenewed, 0)
		}
		b.mustLive(f)
		if f.hubEpoch == epoch || f.hubEpoch == "first" {
			t.Errorf("the third epoch is %q", f.hubEpoch)
		}
	})
}

func TestNewEpochBeginsBeforeTheNodeIsReady(t *testing.T) {
	inBubble(t, func(b *bubble) {
		c := b.newLife("c")
		c.lost = "first"
		c.onTurn = func(*life, string) { time.Sleep(time.Second) }
		b.begin(c)
		b.sleepUntil(3 * time.Second)
		if at := c.when("renew " + c.hubEpoch); at != time.Second || c.readyAt != at {
			t.Errorf("the epoch began after %v, and the node was ready after %v", at, c.readyAt)
		}
	})
}

func TestLossOfAnotherEpochMeansNothing(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		c := b.beginLost("c", "other")
		b.put("x", 1, helloText(version, "other", "new"))
		b.put("x", 2, helloText(version, "", "new")+said("hello"))
		for _, l := range []*life{a, c, b.mustBegin("d")} {
			l.expect("load first-0", "x: say alice hello")
		}
		b.mustLive(a, c)
	})
}

// TestWhatIsOlderThanTheFirstKeyIsReadInTheOldEpoch has an operator remove the first key before any
// state was saved.
func TestWhatIsOlderThanTheFirstKeyIsReadInTheOldEpoch(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		b.put("x", 2, said("old"))
		a := b.newLife("a")
		a.created = 3
		b.begin(a)
		synctest.Wait()
		a.expect("load first-0", "x: say alice old", "renew first")
		b.mustLive(a)
	})
}

// TestStateOfAnotherLobbyBeginsANewEpoch has an operator remove the lobby's first key, and the next
// node put another one.
func TestStateOfAnotherLobbyBeginsANewEpoch(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		old := saved{Lobby: "old", Nodes: map[string]int{"x": 1}}
		old.State.LastID = "old-7"
		old.State.Events = []byte("one\ntwo")
		state, err := json.Marshal(old)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.log.Open().SaveSnapshot(t.Context(), 1, state, nil); err != nil {
			t.Fatal(err)
		}
		b.put("x", 2, said("three"))
		a := b.mustBegin("a")
		a.expect("load old-7", "renew first", "x: say alice three")
		b.fill(3, almost)
		a.say("four")
		if lobby := b.mustHaveSaved().Lobby; lobby != "first" {
			t.Errorf("the saved state is one of %q", lobby)
		}
		c := b.mustBegin("c")
		c.expect(fmt.Sprint("load first-", len(a.state)))
		b.mustAgree(a, c)

		b.beginLost("d", "first")
		a.mustEnd(ErrRenewed, 0)
		c.mustEnd(ErrRenewed, 0)
	})
}

// TestSavedStateKeepsTheEpoch has a state be saved in an epoch that a loss began.
func TestSavedStateKeepsTheEpoch(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.beginLost("a", "first")
		b.put("x", 1, greeting())
		b.fill(2, almost)
		a.say("hello")
		saved := b.mustHaveSaved()
		if saved.Lobby != "first" || saved.State.LastID != fmt.Sprint(a.hubEpoch, "-", len(a.state)) {
			t.Errorf("the saved state is one of %q, and goes up to %s", saved.Lobby, saved.State.LastID)
		}
		c := b.mustBegin("c")
		c.expect("load " + saved.State.LastID)
		d := b.beginLost("d", a.hubEpoch)
		a.mustEnd(ErrRenewed, 0)
		c.mustEnd(ErrRenewed, 0)
		b.mustLive(d)
	})
}
