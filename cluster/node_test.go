package cluster

// What belongs here: how a node begins, and how what its hub wants comes back to it as turns.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lobby/chat"
)

func TestNodeIsReadyWhenItsHelloIsRead(t *testing.T) {
	const delay = 50 * time.Millisecond
	inBubble(t, func(b *bubble) {
		l := b.newLife("a")
		l.Delay = always(delay)
		b.begin(l)
		b.sleepUntil(2*delay - 1) // one delay on the way into the log, one on the way out
		if l.readyAt != 0 {
			t.Errorf("the node was ready %v before its hello was read", 2*delay-l.readyAt)
		}
		b.sleepUntil(2 * delay)
		if l.readyAt != 2*delay {
			t.Error("the node is not ready although its hello was read")
		}
		l.expect("load first-0")
	})
}

func TestNodeIsReadyWhenItsHubHasAllThatWasInTheLog(t *testing.T) {
	const pause = time.Second
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		b.put("x", 2, said("one")+said("two"))
		b.put("y", 1, greeting())
		b.put("y", 2, buryText("x", 2))
		b.put("y", 3, said("three"))
		l := b.newLife("a")
		l.pages = 3
		l.onTurn = func(*life, string) { time.Sleep(pause) }
		b.begin(l)
		b.sleepUntil(10 * time.Second)
		l.expect("load first-0", "x: say alice one", "x: say alice two",
			"bury x", "bury x after 1", "bury x after 2", "y: say alice three")
		if want := l.when("y: say alice three"); l.readyAt != want || want != 6*pause {
			t.Errorf("the node was ready after %v, and the hub had everything after %v", l.readyAt, want)
		}
		b.mustLive(l)
	})
}

func TestLongLogDoesNotEndALife(t *testing.T) {
	const entries, delay = 500, 20 * time.Millisecond
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		for n := range entries - 1 {
			b.put("x", n+2, said(fmt.Sprint(n)))
		}
		l := b.newLife("a")
		l.Delay = always(delay)
		b.begin(l)
		const whole = (entries + 1) * delay // and the hello
		b.sleepUntil(whole - 1)
		if l.readyAt != 0 {
			t.Errorf("the node was ready after %v", l.readyAt)
		}
		b.sleepUntil(whole)
		if l.readyAt != whole || len(l.state) != entries-1 {
			t.Errorf("the node was ready after %v, want %v, and its hub has had %d commands, want %d",
				l.readyAt, whole, len(l.state), entries-1)
		}
		b.sleepUntil(time.Minute)
		b.mustLive(l)
	})
}

func TestCommandsComeBackToAllInOneOrder(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.newLife("a"), b.newLife("c")
		a.Delay, c.Delay = always(30*time.Millisecond), always(7*time.Millisecond)
		b.begin(a)
		b.begin(c)
		b.sleepUntil(100 * time.Millisecond)
		for n := range 100 {
			time.Sleep(3 * time.Millisecond)
			a.say(fmt.Sprint(n))
			c.say(fmt.Sprint(n))
		}
		b.sleepUntil(time.Second)
		b.mustAgree(a, c)
		for _, l := range []*life{a, c} {
			var got, want []string
			for n := range 100 {
				want = append(want, fmt.Sprintf("%s: say alice %d", l.name, n))
			}
			for _, what := range a.state {
				if strings.HasPrefix(what, l.name) {
					got = append(got, what)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("the commands of node %s came back as %q", l.name, got)
			}
		}
	})
}

func TestCommandsThatComeMeanwhileAreGathered(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.newLife("a")
		a.Delay = always(10 * time.Millisecond)
		b.begin(a)
		b.sleepUntil(100 * time.Millisecond)
		text := strings.Repeat("x", chat.MaxText)
		for range 200 {
			a.say(text)
		}
		b.sleepUntil(500 * time.Millisecond)
		var got []int
		for _, e := range b.entries(0)[1:] {
			got = append(got, strings.Count(string(e.Text), "\x1e"))
			if full := len(e.Text) - len(said(text)); full >= maxEntry {
				t.Errorf("an entry had %d bytes before the last command was added", full)
			}
		}
		// The first command leaves alone, and then as many at a time as it takes to fill an entry.
		full := (maxEntry + len(said(text)) - 1) / len(said(text))
		want := []int{1, full, full, full, full, full, full, 199 - 6*full}
		if !slices.Equal(got, want) {
			t.Errorf("the entries have %d commands, want %d", got, want)
		}
		if len(a.state) != 200 {
			t.Errorf("%d commands came back", len(a.state))
		}
	})
}

func TestBeatComesEverySecond(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.sleepUntil(2500 * time.Millisecond)
		a.say("hello") // takes no beat's place
		b.sleepUntil(5 * time.Second)
		want := []appended{
			{0, a.appends[0].text}, {1 * time.Second, ""}, {2 * time.Second, ""}, {2500 * time.Millisecond, said("hello")},
			{3 * time.Second, ""}, {4 * time.Second, ""}, {5 * time.Second, ""},
		}
		if !slices.Equal(a.appends, want) {
			t.Errorf("the entries are %v, want %v", a.appends, want)
		}
		a.expect("load first-0", "a: say alice hello")
	})
}

// A beat that is due is not added to those that wait already, and one entry is on its way at a
// time.
func TestSlowLogGetsFewerBeats(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.newLife("a")
		a.Delay = always(1200 * time.Millisecond)
		b.begin(a)
		b.sleepUntil(20 * time.Second)
		for i, e := range a.appends {
			if want := time.Duration(i) * 2400 * time.Millisecond; e.at != want {
				t.Errorf("entry %d was sent after %v, want %v", i+1, e.at, want)
			}
		}
		b.mustLive(a)
	})
}

func TestNodeNeverMakesItsHubWait(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		b.put("x", 2, said("one"))
		b.put("y", 1, greeting())
		b.put("y", 2, buryText("x", 2))
		l := b.newLife("a")
		l.pages = 20
		// The hub sends something before it goes on with any turn or part of one.
		l.onTurn = func(l *life, what string) {
			if !strings.HasPrefix(what, "a: ") {
				l.Commands() <- chat.Command{Do: chat.Look}
			}
		}
		b.begin(l)
		b.sleepUntil(time.Second)
		if got := strings.Count(fmt.Sprint(l.turns), "a: look"); got != 22 {
			t.Errorf("%d commands came back, want 22: %v", got, l.turns)
		}
		b.mustLive(l)
	})
}

// TestNodeReadsNoFasterThanItsHub keeps a node from filling the memory with what its hub has no
// time for.
func TestNodeReadsNoFasterThanItsHub(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		for n := range 100 {
			b.put("x", n+2, said(fmt.Sprint(n)))
		}
		a := b.newLife("a")
		a.onTurn = func(*life, string) { time.Sleep(time.Second) }
		b.begin(a)
		b.sleepUntil(5*time.Second + time.Second/2)
		// The hub has had the state and five entries. One more waits for it, and one for that.
		if len(a.turns) != 6 || a.read > 1+5+2 {
			t.Errorf("the hub has had %d turns, and the node has read %d entries", len(a.turns), a.read)
		}
	})
}

func TestPartsOfATurnFollowEachOther(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.newLife("a")
		a.pages = 30
		a.onTurn = func(_ *life, what string) {
			if strings.HasPrefix(what, "bury") {
				time.Sleep(10 * time.Millisecond) // so that more comes out of the log meanwhile
			}
		}
		b.begin(a)
		b.put("x", 1, greeting())
		b.put("y", 1, greeting())
		b.put("x", 2, said("before"))
		b.put("y", 2, buryText("x", 2)+said("with it"))
		b.put("y", 3, said("after"))
		want := []string{"load first-0", "x: say alice before", "bury x"}
		for n := range 29 {
			want = append(want, fmt.Sprint("bury x after ", n+1))
		}
		b.sleepUntil(time.Second / 2)
		a.expect(append(want, "y: say alice with it", "y: say alice after")...)
	})
}

func TestNodeEndsWithItsContext(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		a.kill()
		if a.reason == nil || a.reason.Error() != "context canceled" {
			t.Errorf("the life has ended: %v", a.reason)
		}
		a.expect("load first-0") // and no End: the hub has stopped before
	})
}

func TestNodesHaveNamesOfTheirOwn(t *testing.T) {
	inBubble(t, func(b *bubble) {
		names := make(map[string]bool)
		for range 100 {
			node, err := NewNode(b.log.Open().Session, nil, settings, nil)
			if err != nil {
				t.Fatal(err)
			}
			if name := node.Name(); names[name] || len(name) != 13 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
				t.Errorf("a node's name is %q", name)
			}
			names[node.Name()] = true
		}
	})
}
