package cluster

// What belongs here: entries that do not count, because others have forged or damaged them, and
// nodes that do not fit the lobby.

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/etcd"
)

// garbage holds texts that are not valid entries, neither as a node's first nor as a later one.
var garbage = []string{
	"garbage",
	"\x00\xff",
	"say\x1falice\x1fhello",                    // without an end
	said("hello") + "say\x1falice",             // the last one without an end
	"shout\x1falice\x1fhello\x1e",              // no such verb
	"say\x1falice\x1fhello\x1fbob\x1e",         // a field too many
	"join\x1f\x1e",                             // no name
	"join\x1fal\nice\x1e",                      // a name with a line break
	"say\x1falice\x1fhello\rUser bob left\x1e", // a text with one
	"say\x1falice\x1f\xff\x1e",                 // not UTF-8
	"\x1e",                                     // an empty record
	"register\x1e",                             // fields are missing
	"register\x1f2\x1f\x1fepoch",               // without an end
	"register\x1fone\x1f\x1fepoch\x1e",         // not a number
	"register\x1f0\x1f\x1fepoch\x1e",           // no such version
	"register\x1f3\x1f\x1fepoch\x1e",           // a later version never registers
	"register\x1f3\x1ffirst\x1fepoch\x1e",      // nor does it start a new epoch
	"register\x1f02\x1f\x1fepoch\x1e",          // one text for a version
	"register\x1f2\x1f\x1fepoch\x1fmore\x1e",   // a field too many
	registered() + said("hello"),               // commands come later
	"remove\x1fx\x1e",                          // a field is missing
	"remove\x1fx\x1f\x1e",                      // a field is empty
	"remove\x1f\x1f1\x1e",                      // a field is empty
	"remove\x1fx\x1f1\x1f\x1e",                 // a field too many
	"remove\x1fx\x1f1",                         // without an end
	"saved\x1e",                                // a field is missing
	"saved\x1f0\x1e",                           // nothing was saved
	"saved\x1f-2\x1e",                          // neither a size nor -1
	"damaged\x1f0\x1e",                         // no such revision
	"damaged\x1fx\x1e",                         // not a number
	"damaged\x1f1",                             // without an end
	"damaged\x1f1\x1esaved\x1f1\x1e",           // a size comes first
	"saved\x1f1\x1f2\x1e",                      // a field too many
	"saved\x1f1",                               // without an end
	removalText("x", 1) + "saved\x1f1\x1e",     // a size comes first
	said("hello") + registered(),               // a registration comes first
	said("hello") + removalText("x", 1),        // removals come first
	removalText("x", 1) + "join\x1f\x1e",       // all of it counts or nothing
}

func TestGarbageIsSkippedByAll(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.mustStart("a"), l.mustStart("c")
		l.put("x", 1, registered())
		for i, text := range garbage {
			l.put(fmt.Sprint("stranger", i), 1, text) // this is not a registration
			y := fmt.Sprint("y", i)
			l.put(y, 1, registered())
			l.put(y, 2, text)
			l.put(y, 3, said("void, because entry 2 did not count"))
			l.put("x", i+2, said(fmt.Sprint(i)))
		}
		l.sleepUntil(5 * time.Second)
		want := []string{"restore first-0"}
		for i := range garbage {
			want = append(want, fmt.Sprintf("x: say alice %d", i))
		}
		d := l.mustStart("d") // for this node, all of the log is old
		a.say("hello")
		for _, m := range []*machine{a, c, d} {
			m.expect(append(want, "a: say alice hello")...)
		}
		l.mustRun(a, c, d)
	})
}

func TestEntriesWithoutOneFirstRegistrationAreSkipped(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		l.put("w", 1, registered())
		l.put("w", 2, registrationText("first", "second"))
		l.put("w", 3, said("void"))
		l.put("x", 1, said("without a registration"))
		l.put("x", 2, said("more"))
		l.put("y", 1, removalText("x", 1)+registered())
		l.put("y", 2, said("hello"))
		a := l.mustStart("a")
		l.put("z", 1, "")
		l.put("z", 2, registered()) // not the first entry
		l.put("z", 3, said("hello"))
		a.expect("restore first-0")
		l.mustRun(a)
	})
}

func TestSkippedEntriesCauseOneWarningASecond(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		n := 0
		put := func(at time.Duration) {
			n++
			l.sleepUntil(at)
			l.put("x", n, "garbage")
		}
		for at := 2500 * time.Millisecond; at < 4500*time.Millisecond; at += 100 * time.Millisecond {
			put(at)
			put(at)
		}
		put(5500*time.Millisecond - 1)
		put(10 * time.Second)
		l.sleepUntil(11 * time.Second)
		want := []time.Duration{
			2500 * time.Millisecond, 3500 * time.Millisecond, 5500*time.Millisecond - 1, 10 * time.Second,
		}
		var got []time.Duration
		for _, warning := range a.warnings {
			got = append(got, warning.at)
		}
		if !slices.Equal(got, want) {
			t.Errorf("there were warnings after %v, want %v", got, want)
		}
	})
}

func TestWarningsSayWhatWasSkipped(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		l.put("y", 1, registered())
		for i, test := range []struct {
			node   string
			number int
			text   string
			want   string
		}{
			{"x", 1, "gar\nbage", `"gar\nbage" is not a valid registration`},
			{"x", 2, registered(), "its node has not registered or was removed"},
			{"y", 2, strings.Repeat("long", 1000), `"` + strings.Repeat("long", 25) + `" is not a valid command`},
			{"y", 3, removalText("", 1), "the next entry of its node is 2"},
			{"z", 1, registered(), ""},
			{"z", 2, removalText("", 1), `"remove\x1f\x1f1" is not a valid removal`},
		} {
			l.sleepUntil(time.Duration(i) * warnPause)
			l.put(test.node, test.number, test.text)
			synctest.Wait()
			want := fmt.Sprintf("skipped entry %d of %q in the lobby's log: %s", test.number, test.node, test.want)
			if last := a.warnings[len(a.warnings)-1].what; test.want != "" && last != want {
				t.Errorf("after %.50q the last warning is %q, want %q", test.text, last, want)
			}
		}
	})
}

// A stranger has put a key that the node needs for its own entry, twice.
func TestSkippedEntryOfTheNodeItselfIsDiscarded(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.mustStart("a"), l.mustStart("c")
		l.put("a", 2, "garbage")
		synctest.Wait()
		l.log.Damage("a", 2) // because it was put again
		l.log.Damage("a", 1)
		synctest.Wait()
		l.step()
		if !slices.Equal(a.discards, []string{"a/2", "a/2"}) || len(c.discards) > 0 {
			t.Errorf("a has discarded %q, c %q", a.discards, c.discards)
		}
		l.mustRun(a, c)
	})
}

// A stranger is faster than the node, whose hub would take the stranger's commands for its own.
func TestForgedEntryOfTheNodeItselfEndsIt(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.mustStart("a"), l.mustStart("c")
		l.put("c", 2, "")
		c.mustEnd(ErrForged, 0)
		a.holdsAppends.Store(true)
		a.say("mine")
		synctest.Wait()
		l.put("a", 2, said("forged")+said("forged, too"))
		a.expect("restore first-0", "end 1")
		a.mustEnd(ErrForged, 1)
	})
}

func TestNodeDoesNotFitTheLobby(t *testing.T) {
	const mismatch = "this node's settings do not match the lobby's: "
	for _, test := range []struct {
		key, want string
		isFinal   bool
	}{
		{key: settingsKey},
		{key: strings.Replace(settingsKey, `"history":10`, `"history":11`, 1), isFinal: true,
			want: mismatch + "its first node was started with -history 11 -max-users 20; use those"},
		{key: strings.Replace(settingsKey, `"maxUsers":20`, `"maxUsers":21`, 1), isFinal: true,
			want: mismatch + "its first node was started with -history 10 -max-users 21; use those"},
		{key: strings.Replace(settingsKey, `"version":2`, `"version":3`, 1), isFinal: true,
			want: mismatch + "the lobby has version 3, this program 2; use one on all machines"},
		{key: "garbage", want: "the lobby's settings key is damaged: "},
		{key: "", want: "the lobby's settings key is damaged: "},
	} {
		_, err := NewNode(&etcd.Session{Settings: test.key}, nil, settings, nil)
		switch {
		case test.want == "" && err == nil:
		case err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n"):
			t.Errorf("a first key %q: the error is %v, want %q", test.key, err, test.want)
		case errors.Is(err, ErrSettings) != test.isFinal:
			t.Errorf("a first key %q: is waiting useless? %v", test.key, !test.isFinal)
		}
	}
}
