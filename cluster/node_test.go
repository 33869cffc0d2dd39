package cluster

// What belongs here: how a node becomes ready, and how its hub's commands come back as steps.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lobby/chat"
	"lobby/room"
)

func TestNodeIsReadyWhenItsHubHasAppliedTheWholeLog(t *testing.T) {
	const pause = time.Second
	inLobby(t, func(l *testLobby) {
		l.put("x", 1, registered())
		l.put("x", 2, said("one")+said("two"))
		l.put("y", 1, registered())
		l.put("y", 2, removalText("x", 2))
		l.put("y", 3, said("three"))
		m := l.newMachine("a")
		m.pages = 3
		m.onStep = func(*machine, string) { time.Sleep(pause) }
		l.start(m)
		l.sleepUntil(10 * time.Second)
		m.expect("restore first-0", "x: say alice one", "x: say alice two",
			"remove x", "remove x after 1", "remove x after 2", "y: say alice three")
		if want := m.when("y: say alice three"); m.readyAt != want || want != 6*pause {
			t.Errorf("the node was ready after %v, and the hub had everything after %v", m.readyAt, want)
		}
		l.mustRun(m)
	})
}

// Reading takes longer than a node waits for its registration, and nothing that is read counts.
func TestReadingALongLogDoesNotEndTheNode(t *testing.T) {
	const entries, delay = 1500, 20 * time.Millisecond
	inLobby(t, func(l *testLobby) {
		for n := range entries {
			l.put("x", n+1, "garbage")
		}
		m := l.newMachine("a")
		m.Delay = always(delay)
		l.start(m)
		l.sleepUntil(time.Minute)
		l.mustRun(m)
		if want := (entries + 1) * delay; m.readyAt != want { // with the registration
			t.Errorf("the node was ready after %v, want %v", m.readyAt, want)
		}
	})
}

func TestCommandsAreGatheredWhileAnEntryIsAppended(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.newMachine("a")
		a.Delay = always(10 * time.Millisecond)
		l.start(a)
		l.sleepUntil(100 * time.Millisecond)
		text := strings.Repeat("x", chat.MaxText)
		for range 200 {
			a.say(text)
		}
		l.sleepUntil(500 * time.Millisecond)
		var got []int
		for _, e := range l.entries(0)[1:] {
			got = append(got, strings.Count(string(e.Text), "\x1e"))
			if full := len(e.Text) - len(said(text)); full >= maxEntry {
				t.Errorf("an entry had %d bytes before the last command was added", full)
			}
		}
		// The first entry has one command, and each other one has as many as fit.
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

func TestHeartbeatIsSentEverySecond(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		l.sleepUntil(2500 * time.Millisecond)
		a.say("hello") // does not replace a heartbeat
		l.sleepUntil(5 * time.Second)
		want := []appended{
			{0, a.appends[0].text}, {1 * time.Second, ""}, {2 * time.Second, ""}, {2500 * time.Millisecond, said("hello")},
			{3 * time.Second, ""}, {4 * time.Second, ""}, {5 * time.Second, ""},
		}
		if !slices.Equal(a.appends, want) {
			t.Errorf("the entries are %v, want %v", a.appends, want)
		}
		a.expect("restore first-0", "a: say alice hello")
	})
}

// Heartbeats do not queue up, and one entry is appended at a time.
func TestSlowLogGetsFewerHeartbeats(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.newMachine("a")
		a.Delay = always(1200 * time.Millisecond)
		l.start(a)
		l.sleepUntil(20 * time.Second)
		for i, e := range a.appends {
			if want := time.Duration(i) * 2400 * time.Millisecond; e.at != want {
				t.Errorf("entry %d was sent after %v, want %v", i+1, e.at, want)
			}
		}
		l.mustRun(a)
	})
}

func TestHubNeverWaitsToSendACommand(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		l.put("x", 1, registered())
		l.put("x", 2, said("one"))
		l.put("y", 1, registered())
		l.put("y", 2, removalText("x", 2))
		m := l.newMachine("a")
		m.pages = 20
		// The hub sends a command before it continues with any step or page.
		m.onStep = func(m *machine, what string) {
			if !strings.HasPrefix(what, "a: ") {
				m.Commands() <- room.Command{Verb: room.Sync}
			}
		}
		l.start(m)
		l.sleepUntil(time.Second)
		if got := strings.Count(fmt.Sprint(m.steps), "a: sync"); got != 22 {
			t.Errorf("%d commands came back, want 22: %v", got, m.steps)
		}
		l.mustRun(m)
	})
}

// Otherwise a slow hub's steps could fill the memory.
func TestNodeReadsNoFasterThanItsHub(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		l.put("x", 1, registered())
		for n := range 100 {
			l.put("x", n+2, said(fmt.Sprint(n)))
		}
		a := l.newMachine("a")
		a.onStep = func(*machine, string) { time.Sleep(time.Second) }
		l.start(a)
		l.sleepUntil(5*time.Second + time.Second/2)
		// The hub has had the snapshot and five entries. One more waits in the node, one in the log.
		if len(a.steps) != 6 || a.read > 1+5+2 {
			t.Errorf("the hub has had %d steps, and the node has read %d entries", len(a.steps), a.read)
		}
	})
}

func TestNodeEndsWithItsContext(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		a.kill()
		if a.reason == nil || a.reason.Error() != "context canceled" {
			t.Errorf("the node has ended: %v", a.reason)
		}
		a.expect("restore first-0") // and no end, because the hub has stopped before
	})
}
