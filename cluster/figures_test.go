package cluster

import (
	"strings"
	"testing"
	"time"

	"lobby/metrics"
)

// What a node reports about itself belongs here.

func TestNodeReportsItsEntriesAndHowLongTheyTake(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		for n := range 5 {
			l.put("x", n+1, map[bool]string{true: registered(), false: said("hello")}[n == 0])
		}
		a := l.newMachine("a")
		a.Count()
		a.onStep = func(_ *machine, what string) {
			if what == "x: say alice slow" {
				time.Sleep(250 * time.Millisecond)
			}
		}
		a.Delay = always(30 * time.Millisecond)
		l.start(a)
		expect := func(when string, want ...string) {
			t.Helper()
			var text metrics.Text
			a.Report(&text)
			for _, line := range want {
				if !strings.Contains(string(text), "\n"+line+"\n") {
					t.Errorf("%s: there is no line %q in\n%s", when, line, text)
				}
			}
		}
		expect("at first", "lobby_node_member 0", "lobby_entries_appended_total 0")
		l.sleepUntil(500 * time.Millisecond) // The first heartbeat is a second after the start.
		expect("once it is ready", "lobby_node_member 1", "lobby_entries_appended_total 1",
			"lobby_entries_read_total 6", "lobby_apply_seconds_count 1")
		a.say("hello")
		time.Sleep(90 * time.Millisecond)
		expect("after a command", "lobby_entries_appended_total 2", "lobby_entries_read_total 7",
			`lobby_apply_seconds_bucket{le="0.02"} 0`, `lobby_apply_seconds_count 2`)
		l.put("x", 6, said("slow"))
		a.say("hello")
		time.Sleep(380 * time.Millisecond)
		expect("after a command for which the hub was late", "lobby_entries_read_total 9",
			`lobby_apply_seconds_bucket{le="0.2"} 2`, `lobby_apply_seconds_count 3`)
		a.kill()
		expect("at its end", "lobby_node_member 0")
		a.Node = nil
		expect("before the first node", "lobby_node_member 0")
	})
}
