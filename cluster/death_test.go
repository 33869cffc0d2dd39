package cluster

// What belongs here: how nodes notice that another is dead, and how a life ends.

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"lobby/etcd"
)

// TestDeadNodeIsBuried ends nodes at all moments of a second, while the others' beats come at
// others.
func TestDeadNodeIsBuried(t *testing.T) {
	const step = 125 * time.Millisecond
	for phase := time.Duration(0); phase < time.Second; phase += step {
		for after := time.Duration(0); after < time.Second; after += step {
			for _, how := range []string{"is killed", "is cut off"} {
				inBubble(t, func(b *bubble) { testDeath(b, phase, 5*time.Second+after, how) })
			}
		}
	}
}

func testDeath(b *bubble, phase, death time.Duration, how string) {
	a := b.mustBegin("a")
	b.sleepUntil(phase / 3)
	c := b.mustBegin("c")
	b.sleepUntil(phase)
	dead := b.mustBegin("dead")
	b.sleepUntil(death)
	if how == "is killed" {
		dead.kill()
	} else {
		dead.isCut.Store(true)
	}
	b.sleepUntil(death + 15*time.Second)
	c.say("after")
	b.sleepUntil(death + 40*time.Second)
	a.expect("load first-0", "bury dead", "c: say alice after")
	if took := a.when("bury dead") - death; took < 10*time.Second || took > 13*time.Second {
		b.Errorf("a node that %s after %v was buried %v later", how, death-phase, took)
	}
	b.mustAgree(a, c)
	b.mustLive(a, c)
	if how == "is cut off" {
		dead.mustEnd(ErrQuiet, 0)
	}
}

// TestBurialIsInTime has the log work as slowly as a bad one does.
func TestBurialIsInTime(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, dead := b.newLife("a"), b.newLife("dead")
		a.Delay, dead.Delay = always(50*time.Millisecond), always(50*time.Millisecond)
		b.begin(a)
		b.begin(dead)
		b.sleepUntil(5500 * time.Millisecond)
		dead.kill()
		b.sleepUntil(time.Minute)
		if took := a.when("bury dead") - 5500*time.Millisecond; took < 10*time.Second || took > 13*time.Second {
			t.Errorf("the node was buried after %v", took)
		}
		b.mustLive(a)
	})
}

func TestSeveralDeadAreBuriedAtOnce(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.mustBegin("a"), b.mustBegin("c")
		for _, name := range []string{"z", "x", "y"} {
			b.put(name, 1, greeting())
		}
		b.sleepUntil(20 * time.Second)
		a.expect("load first-0", "bury x", "bury y", "bury z")
		b.mustAgree(a, c)
		buriers := 0
		for _, e := range b.entries(0) {
			if len(e.Text) > 0 && e.Number > 1 {
				buriers++
				if want := buryText("x", 1) + buryText("y", 1) + buryText("z", 1); string(e.Text) != want {
					t.Errorf("node %s wrote %q, want %q", e.Node, e.Text, want)
				}
			}
		}
		if buriers == 0 || buriers > 2 { // both may find out at the same time, and one is the first
			t.Errorf("%d entries have burials", buriers)
		}
	})
}

// A burial does not wait for the next beat.
func TestBurialIsSentAtOnce(t *testing.T) {
	inBubble(t, func(b *bubble) {
		b.put("x", 1, greeting())
		a := b.mustBegin("a")
		b.sleepUntil(deadAfter*beat - 1)
		a.expect("load first-0")
		b.sleepUntil(deadAfter * beat)
		a.expect("load first-0", "bury x")
	})
}

func TestManyCommandsMakeNobodyDead(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, greeting())
		for n := range 100 { // entries, none of which is a beat
			b.sleepUntil(time.Duration(n+1) * 70 * time.Millisecond)
			a.say("hello")
		}
		b.sleepUntil(deadAfter*beat - 1)
		for _, turn := range a.turns {
			if turn.what == "bury x" {
				t.Errorf("a node was buried that was silent for %v", turn.at)
			}
		}
	})
}

func TestOutageKillsNobody(t *testing.T) {
	inBubble(t, func(b *bubble) {
		const begin, end = 5300 * time.Millisecond, 65 * time.Second
		lives := []*life{b.mustBegin("a"), b.mustBegin("c"), b.mustBegin("d")}
		lives[0].say("before")
		b.sleepUntil(begin)
		for _, l := range lives {
			l.isCut.Store(true)
		}
		b.sleepUntil(begin + 5*time.Second - 1)
		b.mustLive(lives...)
		b.sleepUntil(begin + 8*time.Second)
		for _, l := range lives {
			l.mustEnd(ErrQuiet, 0)
			l.expect("load first-0", "a: say alice before", "end 0")
		}
		b.sleepUntil(end)
		next := []*life{b.mustBegin("e"), b.mustBegin("f")}
		b.sleepUntil(end + 10*time.Second)
		next[0].expect("load first-0", "a: say alice before")
		b.sleepUntil(end + 20*time.Second)
		next[0].expect("load first-0", "a: say alice before", "bury a", "bury c", "bury d")
		b.mustAgree(next...)
	})
}

func TestNodeThatComesBackSoonLosesNothing(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.mustBegin("a"), b.mustBegin("c")
		b.sleepUntil(5900 * time.Millisecond)
		c.isCut.Store(true)
		var want []string
		for n := range 20 {
			b.sleepUntil(6*time.Second + time.Duration(n)*100*time.Millisecond)
			a.say(fmt.Sprint(n))
			c.say(fmt.Sprint(n))
			want = append(want, fmt.Sprint("a: say alice ", n), fmt.Sprint("c: say alice ", n))
		}
		b.sleepUntil(9900 * time.Millisecond)
		c.isCut.Store(false)
		b.sleepUntil(time.Minute)
		b.mustLive(a, c)
		b.mustAgree(a, c)
		got := slices.Clone(a.state)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the commands that were carried out are %q", got)
		}
	})
}

// TestLateBurialDoesNothing has node x make an entry when its burial is on its way to the log
// already, and then no more.
func TestLateBurialDoesNothing(t *testing.T) {
	const delay = 100 * time.Millisecond
	const sent = deadAfter*beat + 2*delay // when the twelfth beat comes out of the log
	inBubble(t, func(b *bubble) {
		a := b.newLife("a")
		a.Delay = always(delay)
		b.begin(a)
		b.sleepUntil(time.Second / 2)
		b.put("x", 1, greeting())
		b.sleepUntil(sent)
		if last := a.appends[len(a.appends)-1].text; last != buryText("x", 1) {
			t.Fatalf("the entry that was sent says %q", last)
		}
		b.sleepUntil(sent + delay/2)
		b.put("x", 2, said("alive"))
		b.sleepUntil(sent + time.Second)
		b.put("x", 3, said("still"))
		// The entry of the burial is the last beat before this one.
		b.sleepUntil(sent + time.Second + deadAfter*beat + beat + 2*delay)
		a.expect("load first-0", "x: say alice alive", "x: say alice still", "bury x")
		if at := a.when("bury x"); at != sent+deadAfter*beat+beat+2*delay {
			t.Errorf("the node was buried after %v", at)
		}
	})
}

// TestBurialNamesTheLastEntry has others write burials.
func TestBurialNamesTheLastEntry(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, greeting())
		b.put("y", 1, greeting())
		b.put("x", 2, said("one"))
		b.put("y", 2, buryText("x", 1)+buryText("x", 3)+buryText("nobody", 0)+buryText("nobody", 1))
		b.put("x", 3, said("two"))
		b.put("y", 3, buryText("x", 3)+said("three"))
		b.put("y", 4, buryText("x", 3)) // once is enough
		b.put("x", 4, said("void"))
		b.put("y", 5, buryText("y", 4)) // which is not y's last entry any more
		b.put("y", 6, said("four"))
		a.expect("load first-0", "x: say alice one", "x: say alice two", "bury x", "y: say alice three",
			"y: say alice four")
	})
}

// TestBuriedNodeEnds has node c be away for so long that it is buried, as if its process had been
// paused: c's beats go on, but what is in the log for it has to wait.
func TestBuriedNodeEnds(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.mustBegin("a"), b.mustBegin("c")
		b.put("x", 1, greeting())
		b.sleepUntil(2500 * time.Millisecond)
		c.holdsEntries.Store(true)
		c.say("in the log")
		c.say("in the log, too")
		synctest.Wait()
		b.put("x", 2, buryText("c", 5)+said("after the burial"))
		c.say("void")
		synctest.Wait()
		c.holdsAppends.Store(true)
		c.say("on its way")
		c.say("not on its way")
		b.sleepUntil(4 * time.Second)
		c.holdsEntries.Store(false)
		b.sleepUntil(5 * time.Second)
		want := []string{"load first-0", "c: say alice in the log", "c: say alice in the log, too"}
		c.expect(append(want, "end 0")...)
		c.mustEnd(ErrBuried, 0)
		a.expect(append(want, "bury c", "x: say alice after the burial")...)
		b.mustLive(a)
	})
}

func TestBurialThatIsNoneEndsNobody(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		b.put("x", 1, greeting())
		b.sleepUntil(2500 * time.Millisecond) // when entry 3 was the last
		b.put("x", 2, buryText("a", 2)+buryText("a", 4))
		b.sleepUntil(5 * time.Second)
		b.mustLive(a)
	})
}

// TestQuietLogEndsALife has the log give the node's own entries no more, at all moments of a
// second.
func TestQuietLogEndsALife(t *testing.T) {
	for after := time.Duration(0); after < time.Second; after += 90 * time.Millisecond {
		inBubble(t, func(b *bubble) {
			a, c := b.mustBegin("a"), b.mustBegin("c")
			quiet := 3*time.Second + after
			b.sleepUntil(quiet)
			a.holdsEntries.Store(true)
			// What a has acknowledged, what is on its way, and what has not left.
			a.say("one")
			synctest.Wait()
			a.say("two")
			synctest.Wait()
			a.holdsAppends.Store(true)
			a.say("three")
			synctest.Wait()
			a.say("four")
			a.say("five")
			b.sleepUntil(quiet + 5*time.Second - 1)
			b.mustLive(a)
			b.sleepUntil(10 * time.Second)
			a.expect("load first-0", "end 3")
			a.mustEnd(ErrQuiet, 3)
			c.expect("load first-0", "a: say alice one", "a: say alice two")
		})
	}
}

// Entries of others do not keep a node alive whose own do not come back.
func TestOnlyOwnEntriesKeepALife(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a, c := b.mustBegin("a"), b.mustBegin("c")
		b.sleepUntil(3500 * time.Millisecond)
		a.holdsAppends.Store(true)
		for n := range 10 {
			b.sleepUntil(4*time.Second + time.Duration(n)*500*time.Millisecond)
			c.say("hello")
		}
		b.mustLive(a)
		b.sleepUntil(10 * time.Second)
		a.mustEnd(ErrQuiet, 0)
		b.mustLive(c)
	})
}

func TestQuietIsCountedFromTheLastOwnEntry(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		for n := range 10 { // away for 5 of every 6 s
			b.sleepUntil(time.Duration(6*n)*time.Second + 500*time.Millisecond)
			a.isCut.Store(true)
			b.sleepUntil(time.Duration(6*n)*time.Second + 5500*time.Millisecond)
			a.isCut.Store(false)
		}
		b.sleepUntil(time.Minute)
		b.mustLive(a)
	})
}

// TestNodeWithoutALogEnds is about a node that never hears of its hello.
func TestNodeWithoutALogEnds(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.newLife("a")
		a.isCut.Store(true)
		b.begin(a)
		a.say("hello")
		b.sleepUntil(quietAfter*beat - 1)
		b.mustLive(a)
		b.sleepUntil(quietAfter * beat)
		a.mustEnd(ErrQuiet, 0) // what has not left needs no answer from the log
		if a.readyAt != 0 {
			t.Error("the node was ready")
		}
	})
}

func TestVoidNodeAppendsNothingMore(t *testing.T) {
	for _, isBuried := range []bool{true, false} {
		inBubble(t, func(b *bubble) {
			a := b.newLife("a")
			a.refuseAppend = func(number int) error {
				if number >= 4 {
					return etcd.ErrVoid
				}
				return nil
			}
			b.begin(a)
			b.put("x", 1, greeting())
			b.sleepUntil(2500 * time.Millisecond) // after entry 3, which is a beat
			a.say("void")
			synctest.Wait()
			a.say("never sent")
			b.sleepUntil(4500 * time.Millisecond)
			b.mustLive(a)
			if isBuried {
				b.put("x", 2, buryText("a", 3))
				a.mustEnd(ErrBuried, 0)
			} else {
				b.sleepUntil(10 * time.Second)
				a.mustEnd(ErrQuiet, 1)
			}
			if len(a.appends) != 4 {
				t.Errorf("the node sent %d entries, want 4", len(a.appends))
			}
		})
	}
}

func TestErrorOfTheLogEndsALife(t *testing.T) {
	for _, reason := range []error{etcd.ErrReplaced, etcd.ErrRestored, etcd.ErrTrimmed} {
		inBubble(t, func(b *bubble) {
			a := b.newLife("a")
			a.endEntries = func(e etcd.Entry) error {
				if e.Number == 4 {
					return reason
				}
				return nil
			}
			b.begin(a)
			b.sleepUntil(2500 * time.Millisecond)
			a.say("in the log, where this node does not find it")
			a.mustEnd(reason, 1)
		})
		inBubble(t, func(b *bubble) {
			a := b.newLife("a")
			a.refuseAppend = func(number int) error {
				if number == 4 {
					return reason
				}
				return nil
			}
			b.begin(a)
			b.sleepUntil(2500 * time.Millisecond)
			a.say("maybe in the log")
			a.mustEnd(reason, 1)
		})
	}
}

// TestHubHearsEverythingBeforeTheEnd has a hub that is slow, and a log that ends.
func TestHubHearsEverythingBeforeTheEnd(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.newLife("a")
		a.pages = 3
		a.onTurn = func(l *life, what string) {
			if what == "bury x after 1" {
				time.Sleep(2 * quietAfter * beat) // until there is another reason
				l.say("asked meanwhile")
			}
		}
		a.refuseAppend = func(number int) error {
			if number == 2 {
				return etcd.ErrReplaced
			}
			return nil
		}
		b.put("x", 1, greeting())
		b.put("y", 1, greeting())
		b.put("y", 2, buryText("x", 1)+said("hello"))
		b.begin(a)
		b.sleepUntil(time.Minute)
		a.expect("load first-0", "bury x", "bury x after 1", "bury x after 2", "y: say alice hello", "end 0")
		a.mustEnd(etcd.ErrReplaced, 0)
		if len(a.appends) != 2 {
			t.Errorf("the node has sent %d entries, want 2", len(a.appends))
		}
	})
}

// TestLastRevisionIsRemembered has the last that a node knew of be an entry that it has read, and
// one that was acknowledged.
func TestLastRevisionIsRemembered(t *testing.T) {
	inBubble(t, func(b *bubble) {
		a := b.mustBegin("a")
		want := b.put("x", 1, greeting())
		b.sleepUntil(beat / 2)
		a.kill()
		if a.seen.Revision != want {
			t.Errorf("the node has seen %d, and read %d", a.seen.Revision, want)
		}
		c := b.mustBegin("c")
		c.holdsEntries.Store(true)
		c.say("hello")
		synctest.Wait()
		want = b.log.Len()
		b.put("x", 2, "")
		c.kill()
		if c.seen.Revision != want {
			t.Errorf("the node has seen %d, and appended %d", c.seen.Revision, want)
		}
	})
}
