package cluster

// What belongs here: what others put into the log that does not count, and who does not fit
// together.

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/etcd"
)

// garbage is what may stand in an entry without being one.
var garbage = []string{
	"garbage",
	"\x00\xff",
	"say\x1falice\x1fhello",                     // without an end
	said("hello") + "say\x1falice",              // the end is missing of the last one
	"shout\x1falice\x1fhello\x1e",               // no such verb
	"say\x1falice\x1e",                          // a field is missing
	"say\x1falice\x1fhello\x1fbob\x1e",          // a field too many
	"join\x1f\x1e",                              // nobody
	"join\x1fal\nice\x1e",                       // a name that would end a line
	"say\x1fal\u2028ice\x1fhello\x1e",           // another
	"say\x1falice\x1fhello\rUser bob left\x1e",  // a text that would
	"say\x1falice\x1f\xff\x1e",                  // not UTF-8
	"\x1e",                                      // an empty record
	"hello\x1e",                                 // a hello that says nothing
	"hello\x1fone\x1f\x1fepoch\x1e",             // without a number
	"hello\x1f0\x1f\x1fepoch\x1e",               // of a version that never was
	"bury\x1fx\x1e",                             // which entry?
	"bury\x1fx\x1f\x1e",                         // which entry?
	"bury\x1f\x1f1\x1e",                         // whom?
	"bury\x1fx\x1f1\x1f\x1e",                    // a field too many
	said("hello") + greeting(),                  // news come first
	said("hello") + buryText("x", 1),            // news come first
	greeting() + said("hello") + "join\x1f\x1e", // all of it or nothing
}

func TestGarbageIsSkippedByAll(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.mustBegin("a"), b.mustBegin("c")
		b.put("x", 1, greeting())
		for i, text := range garbage {
			b.put(fmt.Sprint("stranger", i), 1, text) // which no node knows
			y := fmt.Sprint("y", i)
			b.put(y, 1, greeting())
			b.put(y, 2, text) // which is the next one of its node, but is none
			b.put(y, 3, said("void, since there was no entry 2"))
			b.put("x", i+2, said(fmt.Sprint(i)))
		}
		b.sleepUntil(5 * time.Second)
		want := []string{"load first-0"}
		for i := range garbage {
			want = append(want, fmt.Sprintf("x: say alice %d", i))
		}
		a.expect(want...)
		c.expect(want...)
		b.mustLive(a, c)

		d := b.mustBegin("d") // alike, if all of it is old
		d.expect(want...)
		a.say("hello")
		for _, l := range []*life{a, c, d} {
			l.expect(append(want, "a: say alice hello")...)
		}
	})
}

func TestEntryOfNobodyIsSkipped(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.put("x", 1, said("without a hello"))
		b.put("x", 2, said("more"))
		b.put("y", 1, buryText("x", 1)+greeting()) // begins with something else
		b.put("y", 2, said("hello"))
		a := b.mustBegin("a")
		b.put("z", 1, "")
		b.put("z", 2, greeting()) // which is no node's first entry
		b.put("z", 3, said("hello"))
		a.expect("load first-0")
		b.mustLive(a)
	})
}

func TestHelloMayComeAgain(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, greeting())
		b.put("x", 2, greeting()+said("one")) // news to nobody
		b.put("x", 3, said("two"))
		a.expect("load first-0", "x: say alice one", "x: say alice two")
		b.mustLive(a)
	})
}

func TestStrangersAreHeardOfOnceASecond(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		n := 0
		put := func(at time.Duration) {
			n++
			b.sleepUntil(at)
			b.put("x", n, "garbage")
		}
		for at := 2500 * time.Millisecond; at < 4500*time.Millisecond; at += 100 * time.Millisecond {
			put(at)
			put(at)
		}
		put(5500*time.Millisecond - 1)
		put(10 * time.Second)
		b.sleepUntil(11 * time.Second)
		want := []time.Duration{2500 * time.Millisecond, 3500 * time.Millisecond, 5500*time.Millisecond - 1, 10 * time.Second}
		for i, warning := range a.warnings {
			if i >= len(want) || warning.at != want[i] || strings.ContainsAny(warning.what, "\n\r") {
				t.Errorf("warning %d came after %v: %s", i, warning.at, warning.what)
			}
		}
		if len(a.warnings) != len(want) {
			t.Errorf("there were %d warnings, want %d", len(a.warnings), len(want))
		}
	})
}

func TestWarningsSayWhatWasSkipped(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		for i, test := range []struct{ text, want string }{
			{"gar\nbage", `"gar\nbage" is no command`},
			{strings.Repeat("long", 1000), `"` + strings.Repeat("long", 25) + `" is no command`},
			{"bury\x1f\x1f1\x1e", "it is no entry of a lobby"},
			{said("hello"), "its node was given up or has never begun"},
			{greeting(), "its node was given up or has never begun"},
		} {
			want := fmt.Sprintf("skipped entry %d of \"x\" in the lobby's log: %s", i+1, test.want)
			b.sleepUntil(time.Duration(i) * warnPause)
			b.put("x", i+1, test.text)
			synctest.Wait()
			if len(a.warnings) != i+1 || a.warnings[i].what != want {
				t.Errorf("after %.50q the warnings are %v, want %q in the end", test.text, a.warnings, want)
			}
		}
		b.put("y", 1, greeting())
		b.put("y", 2, "garbage")
		b.sleepUntil(time.Minute / 6)
		b.put("y", 3, "")
		synctest.Wait()
		want := `skipped entry 3 of "y" in the lobby's log: the next entry of its node is 2`
		if last := a.warnings[len(a.warnings)-1].what; last != want {
			t.Errorf("the last warning is %q, want %q", last, want)
		}
	})
}

func TestNodeOfALaterVersionEndsTheOthers(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, helloText(version+1, "", "other"))
		a.mustEnd(ErrVersion, 0)
		if !errors.Is(a.reason, ErrSettings) {
			t.Error("the end of the life does not tell that waiting is useless")
		}
	})
}

// TestNodeDoesNotFitTheLobby gives a node first keys that are not like its settings.
func TestNodeDoesNotFitTheLobby(t *testing.T) {
	for _, test := range []struct {
		key, want string
		isFinal   bool
	}{
		{key: firstKey},
		{key: strings.Replace(firstKey, `"history":10`, `"history":11`, 1), isFinal: true,
			want: "this node does not fit the lobby: its first node was started with -history 11; use that, not 10"},
		{key: strings.Replace(firstKey, `"maxUsers":20`, `"maxUsers":21`, 1), isFinal: true,
			want: "this node does not fit the lobby: its first node was started with -max-users 21; use that, not 20"},
		{key: strings.Replace(firstKey, `"version":1`, `"version":2`, 1), isFinal: true,
			want: "this node does not fit the lobby: it is of version 2 and this program of version 1; " +
				"use the same version on all machines"},
		{key: "garbage", want: "the lobby's first key is damaged: "},
		{key: "", want: "the lobby's first key is damaged: "},
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
