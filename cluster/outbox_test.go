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

// parts sends everything in o to a log that rejects entries of more than most bytes. It returns the
// entries that the log accepts. After the first rejection it calls meanwhile.
func parts(t *testing.T, o *outbox, most int, meanwhile func()) (accepted []sentEntry) {
	t.Helper()
	retracted := 0
	for len(o.commands) > 0 {
		entry := o.next()
		o.number++
		o.sent = append(o.sent, entry)
		if len(entry.text) <= most {
			accepted, o.sent = append(accepted, entry), nil
			continue
		}
		if retracted++; retracted == 1 {
			meanwhile()
		}
		if unknown := o.unknown(); !o.retract() || retracted > 8 || o.unknown() < unknown {
			t.Fatalf("retraction %d: %d of %d commands may be in the log", retracted, o.unknown(), unknown)
		}
	}
	if o.number != len(accepted) {
		t.Errorf("the last of %d entries has the number %d", len(accepted), o.number)
	}
	return accepted
}

// say adds a command of size bytes to o and returns its text.
func say(t *testing.T, o *outbox, size int) (text string) {
	t.Helper()
	text = said(strings.Repeat("x", size-len(said(""))))
	commands, err := room.ParseCommands(text)
	if err != nil {
		t.Fatal(err)
	}
	o.commands = append(o.commands, commands...)
	return text
}

func TestRetractedEntryIsSentInParts(t *testing.T) {
	o := &outbox{limit: maxEntry, saved: notSaved, damaged: 9, heartbeatDue: true}
	o.removals = []removal{{"x", 7}}
	texts := []string{"saved\x1f-1\x1edamaged\x1f9\x1e", removalText("x", 7), removalText("y", 8)}
	for n := range 50 {
		texts = append(texts, say(t, o, 4000+n))
	}
	accepted := parts(t, o, 20_000, func() {
		o.removals = append(o.removals, removal{"y", 8})
		texts = append(texts, say(t, o, 4050))
	})
	var got []byte
	for i, entry := range accepted {
		got = append(got, entry.text...)
		if entry.isHeartbeat != (i == 0) {
			t.Errorf("entry %d is a heartbeat: %v", i+1, entry.isHeartbeat)
		}
	}
	if want := strings.Join(texts, ""); string(got) != want || len(accepted) > 20 {
		t.Errorf("%d entries are %.500q, want %.500q", len(accepted), got, want)
	}
}

// The limit applies before the last command, so it has to fall below the first one.
func TestLongCommandAfterAShortOneIsSentAlone(t *testing.T) {
	o := &outbox{limit: maxEntry}
	say(t, o, 20)
	say(t, o, 4000)
	if accepted := parts(t, o, 4000, func() {}); len(accepted) != 2 {
		t.Errorf("%d entries were accepted, want 2", len(accepted))
	}
}

// sayMuch makes the hub send count commands of about 4,000 bytes while an entry is being appended.
func (m *machine) sayMuch(count int) (want []string) {
	m.holdsAppends.Store(true)
	m.say("first")
	want = append(want, m.Name()+": say alice first")
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
		a.answerAppend = atMost(5000) // of a single command
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
