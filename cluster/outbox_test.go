package cluster

// What belongs here: entries that the log rejects because they are too large.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/room"
)

func TestRetractedEntryIsSentInParts(t *testing.T) {
	const most = 20_000
	o := outbox{limit: maxEntry, removals: []removal{{"x", 7}}, saved: 5 << 20, heartbeatDue: true}
	var commands, texts []string
	say := func() {
		command, err := room.ParseCommands(said(fmt.Sprint(len(commands), strings.Repeat("x", 4000))))
		if err != nil {
			t.Fatal(err)
		}
		o.commands = append(o.commands, command...)
		commands = append(commands, string(command[0].AppendTo(nil)))
	}
	for range 50 {
		say()
	}
	retracted, heartbeats := 0, 0
	for len(o.commands) > 0 {
		entry := o.next()
		o.number++
		o.sent = append(o.sent, entry)
		if len(entry.text) > most {
			if retracted++; retracted == 1 { // more has arrived in the meantime
				o.removals = append(o.removals, removal{"y", 8})
				say()
			}
			if !o.retract() {
				t.Fatalf("an entry of %d commands cannot be retracted", entry.commands)
			}
			if got := o.unknown(); got != len(commands)-strings.Count(strings.Join(texts, ""), "say") {
				t.Errorf("%d commands may be in the log", got)
			}
			continue
		}
		texts = append(texts, string(entry.text))
		if o.sent = nil; entry.isHeartbeat {
			heartbeats++
		}
	}
	want := "saved\x1f5242880\x1e" + removalText("x", 7) + removalText("y", 8) + strings.Join(commands, "")
	if got := strings.Join(texts, ""); got != want {
		t.Errorf("the entries are %.500q, want %.500q", got, want)
	}
	if retracted > 4 || heartbeats != 1 || o.number != len(texts) || len(texts) > 2*len(want)/most+1 {
		t.Errorf("%d entries were retracted; %d were sent, the last as number %d, with %d heartbeats",
			retracted, len(texts), o.number, heartbeats)
	}
}

// sayMuch makes the hub send count commands of about 4,000 bytes while an entry is being appended.
func (m *machine) sayMuch(count int) (want []string) {
	m.holdsAppends.Store(true)
	m.say("first")
	want = append(want, m.name+": say alice first")
	synctest.Wait()
	for n := range count {
		text := fmt.Sprintf("%0100d", n)
		m.say(text + strings.Repeat("x", 3900))
		want = append(want, m.name+": say alice "+text)
	}
	m.holdsAppends.Store(false)
	time.Sleep(heartbeat / 2)
	synctest.Wait()
	m.lobby.step()
	return want
}

func TestEntryThatIsTooLargeIsSentInParts(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.newMachine("a"), l.mustStart("c")
		a.answerAppend = atMost(20_000)
		l.start(a)
		if want := a.sayMuch(200); !slices.Equal(c.state, want) {
			t.Errorf("the state is %.2000q", c.state)
		}
		l.sleepUntil(time.Minute)
		l.mustAgree(a, c)
		l.mustRun(a, c)
	})
}

func TestCommandThatIsTooLargeEndsTheNode(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.newMachine("a"), l.mustStart("c")
		a.answerAppend = atMost(3000)
		l.start(a)
		a.sayMuch(10)
		a.mustEnd(errTooLarge, 10)
		c.expect("restore first-0", "a: say alice first")
	})
	inLobby(t, func(l *testLobby) { // not even a registration is accepted
		a := l.newMachine("a")
		a.answerAppend = atMost(0)
		l.start(a)
		a.mustEnd(errTooLarge, 0)
	})
}

// One server of etcd accepts an entry that another rejects. The node learns the former either from
// the log, and then nothing is wrong, or only after it has sent a part of that entry again.
func TestEntryThatIsBothRejectedAndAcceptedCountsOnce(t *testing.T) {
	for _, isReadFirst := range []bool{true, false} {
		inLobby(t, func(l *testLobby) {
			const doubtful = 3 // after the registration and "first"
			a, c := l.newMachine("a"), l.mustStart("c")
			var accepted int64
			a.answerAppend = func(number int, text []byte) (int64, error) {
				switch {
				case number != doubtful:
					return 0, nil
				case accepted > 0:
					return accepted, nil
				}
				a.holdsEntries.Store(!isReadFirst)
				accepted = l.put("a", number, string(text))
				time.Sleep(heartbeat / 10)
				return 0, errTooLarge
			}
			l.start(a)
			want := a.sayMuch(100)
			a.holdsEntries.Store(false)
			time.Sleep(heartbeat / 10)
			synctest.Wait()
			if isReadFirst {
				l.mustRun(a)
				l.mustAgree(a, c)
			} else {
				a.mustEnd(ErrForged, 100)
				want = want[:len(c.state)]
			}
			if !slices.Equal(c.state, want) || len(c.state) < 2 {
				t.Errorf("the state is %.2000q, want %.2000q", c.state, want)
			}
		})
	}
}
