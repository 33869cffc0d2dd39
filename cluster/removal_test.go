package cluster

// What belongs here: how nodes notice that another one is dead, and why a node ends.

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"lobby/etcd"
)

// Nodes die at different moments of a second, and the others' heartbeats come at different ones
// too.
func TestDeadNodeIsRemovedIn10To13Seconds(t *testing.T) {
	const step = 125 * time.Millisecond
	for phase := time.Duration(0); phase < time.Second; phase += step {
		for after := time.Duration(0); after < time.Second; after += step {
			for _, how := range []string{"is killed", "is cut off"} {
				inLobby(t, func(l *testLobby) { testDeath(l, phase, 5*time.Second+after, how) })
			}
		}
	}
}

func testDeath(l *testLobby, phase, death time.Duration, how string) {
	a := l.mustStart("a")
	l.sleepUntil(phase / 3)
	c := l.mustStart("c")
	l.sleepUntil(phase)
	dead := l.mustStart("dead")
	l.sleepUntil(death)
	if how == "is killed" {
		dead.kill()
	} else {
		dead.isCut.Store(true)
	}
	l.sleepUntil(death + 15*time.Second)
	c.say("after")
	l.sleepUntil(death + 40*time.Second)
	a.expect("restore first-0", "remove dead", "c: say alice after")
	if took := a.when("remove dead") - death; took < 10*time.Second || took > 13*time.Second {
		l.Errorf("a node that %s after %v was removed %v later", how, death-phase, took)
	}
	l.mustAgree(a, c)
	l.mustRun(a, c)
	if how == "is cut off" {
		dead.mustEnd(ErrQuiet, 0)
	}
}

func TestSeveralDeadNodesAreRemovedAtOnce(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.mustStart("a"), l.mustStart("c")
		for _, name := range []string{"z", "x", "y"} {
			l.put(name, 1, registered())
		}
		l.sleepUntil(20 * time.Second)
		a.expect("restore first-0", "remove x", "remove y", "remove z")
		l.mustAgree(a, c)
		entries := 0
		for _, e := range l.entries(0) {
			if len(e.Text) > 0 && e.Number > 1 {
				entries++
				if want := removalText("x", 1) + removalText("y", 1) + removalText("z", 1); string(e.Text) != want {
					t.Errorf("node %s wrote %q, want %q", e.Node, e.Text, want)
				}
			}
		}
		if entries == 0 || entries > 2 { // both nodes may notice at the same time
			t.Errorf("%d entries have removals, want 1 or 2", entries)
		}
	})
}

func TestManyCommandsMakeNoNodeDead(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		l.put("x", 1, registered())
		for n := range 100 { // entries, none of which is a heartbeat
			l.sleepUntil(time.Duration(n+1) * 70 * time.Millisecond)
			a.say("hello")
		}
		l.sleepUntil(deadAfter*heartbeat - 1)
		for _, step := range a.steps {
			if step.what == "remove x" {
				t.Errorf("a node was removed that was silent for %v", step.at)
			}
		}
	})
}

func TestOutageMakesNoNodeDead(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		const begin, end = 5300 * time.Millisecond, 65 * time.Second
		machines := []*machine{l.mustStart("a"), l.mustStart("c"), l.mustStart("d")}
		machines[0].say("before")
		l.sleepUntil(begin)
		for _, m := range machines {
			m.isCut.Store(true)
		}
		l.sleepUntil(begin + 5*time.Second - 1)
		l.mustRun(machines...)
		l.sleepUntil(begin + 8*time.Second)
		for _, m := range machines {
			m.mustEnd(ErrQuiet, 0)
			m.expect("restore first-0", "a: say alice before", "end 0")
		}
		l.sleepUntil(end)
		next := []*machine{l.mustStart("e"), l.mustStart("f")}
		l.sleepUntil(end + 10*time.Second)
		next[0].expect("restore first-0", "a: say alice before")
		l.sleepUntil(end + 20*time.Second)
		next[0].expect("restore first-0", "a: say alice before", "remove a", "remove c", "remove d")
		l.mustAgree(next...)
	})
}

// Node x appends an entry when its removal is already on its way to the log, and then another one.
func TestLateRemovalHasNoEffect(t *testing.T) {
	const delay = 100 * time.Millisecond
	const sent = deadAfter*heartbeat + 2*delay // when the twelfth heartbeat comes out of the log
	inLobby(t, func(l *testLobby) {
		a := l.newMachine("a")
		a.Delay = always(delay)
		l.start(a)
		l.sleepUntil(time.Second / 2)
		l.put("x", 1, registered())
		l.sleepUntil(sent)
		if last := a.appends[len(a.appends)-1].text; last != removalText("x", 1) {
			t.Fatalf("the entry that was sent says %q", last)
		}
		l.sleepUntil(sent + delay/2)
		l.put("x", 2, said("alive"))
		l.sleepUntil(sent + time.Second)
		l.put("x", 3, said("still"))
		// The entry with the removal takes the place of a heartbeat.
		l.sleepUntil(sent + time.Second + deadAfter*heartbeat + heartbeat + 2*delay)
		a.expect("restore first-0", "x: say alice alive", "x: say alice still", "remove x")
		if at := a.when("remove x"); at != sent+deadAfter*heartbeat+heartbeat+2*delay {
			t.Errorf("the node was removed after %v", at)
		}
	})
}

func TestRemovalCountsOnlyAfterTheEntryThatItNames(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		l.put("x", 1, registered())
		l.put("y", 1, registered())
		l.put("x", 2, said("one"))
		l.put("y", 2, removalText("x", 1)+removalText("x", 3)+removalText("nobody", 0)+removalText("nobody", 1))
		l.put("x", 3, said("two"))
		l.put("y", 3, removalText("x", 3)+said("three"))
		l.put("y", 4, removalText("x", 3)) // once is enough
		l.put("x", 4, said("void"))
		l.put("y", 5, removalText("y", 4)) // no longer y's last entry
		l.put("y", 6, said("four"))
		a.expect("restore first-0", "x: say alice one", "x: say alice two", "remove x", "y: say alice three",
			"y: say alice four")
	})
}

// Node c is removed while it reads nothing, as if its process had been paused.
func TestRemovedNodeEnds(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.mustStart("a"), l.mustStart("c")
		l.put("x", 1, registered())
		l.sleepUntil(2500 * time.Millisecond)
		c.holdsEntries.Store(true)
		c.say("in the log")
		c.say("in the log, too")
		synctest.Wait()
		l.put("x", 2, removalText("c", 5)+said("after the removal"))
		c.say("void")
		synctest.Wait()
		c.holdsAppends.Store(true)
		c.say("on its way")
		c.say("not on its way")
		l.sleepUntil(4 * time.Second)
		c.holdsEntries.Store(false)
		l.sleepUntil(5 * time.Second)
		want := []string{"restore first-0", "c: say alice in the log", "c: say alice in the log, too"}
		c.expect(append(want, "end 0")...)
		c.mustEnd(ErrRemoved, 0)
		a.expect(append(want, "remove c", "x: say alice after the removal")...)
		l.mustRun(a)
	})
}

// A node's own entries stop coming back, at various moments within a second.
func TestQuietLogEndsTheNodeIn5To8Seconds(t *testing.T) {
	for after := time.Duration(0); after < time.Second; after += 90 * time.Millisecond {
		inLobby(t, func(l *testLobby) {
			a, c := l.mustStart("a"), l.mustStart("c")
			quiet := 3*time.Second + after
			l.sleepUntil(quiet)
			a.holdsEntries.Store(true)
			// Commands in acknowledged entries, in one that is being appended, and in none.
			a.say("one")
			synctest.Wait()
			a.say("two")
			synctest.Wait()
			a.holdsAppends.Store(true)
			a.say("three")
			synctest.Wait()
			a.say("four")
			a.say("five")
			l.sleepUntil(quiet + 5*time.Second - 1)
			l.mustRun(a)
			l.sleepUntil(10 * time.Second)
			a.expect("restore first-0", "end 3")
			a.mustEnd(ErrQuiet, 3)
			c.expect("restore first-0", "a: say alice one", "a: say alice two")
		})
	}
}

func TestOnlyOwnEntriesKeepANodeAlive(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a, c := l.newMachine("a"), l.mustStart("c")
		explained := errors.New("the log cannot be reached: it is full")
		a.explain = func(error) error { return explained }
		l.start(a)
		l.sleepUntil(3500 * time.Millisecond)
		a.holdsAppends.Store(true)
		for n := range 10 {
			l.sleepUntil(4*time.Second + time.Duration(n)*500*time.Millisecond)
			c.say("hello")
		}
		l.mustRun(a)
		l.sleepUntil(10 * time.Second)
		a.mustEnd(explained, 0)
		l.mustRun(c)
	})
}

func TestQuietIsCountedFromTheLastOwnEntry(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		for n := range 10 { // cut off for 5 of every 6 s
			l.sleepUntil(time.Duration(6*n)*time.Second + 500*time.Millisecond)
			a.isCut.Store(true)
			l.sleepUntil(time.Duration(6*n)*time.Second + 5500*time.Millisecond)
			a.isCut.Store(false)
		}
		l.sleepUntil(time.Minute)
		l.mustRun(a)
	})
}

func TestNodeThatNeverReadsItsRegistrationEnds(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.newMachine("a")
		a.isCut.Store(true)
		l.start(a)
		a.say("hello")
		l.sleepUntil(startAfter*heartbeat - 1)
		l.mustRun(a)
		l.sleepUntil(startAfter * heartbeat)
		a.mustEnd(ErrQuiet, 0) // a command in no entry certainly has no effect
		if a.readyAt != 0 {
			t.Error("the node was ready")
		}
	})
}

func TestNodeWhoseEntriesAreVoidAppendsNothingMore(t *testing.T) {
	for _, isRemoved := range []bool{true, false} {
		inLobby(t, func(l *testLobby) {
			a := l.newMachine("a")
			a.refuseAppend = func(number int) error {
				if number >= 4 {
					return etcd.ErrVoid
				}
				return nil
			}
			l.start(a)
			l.put("x", 1, registered())
			l.sleepUntil(2500 * time.Millisecond) // after entry 3, a heartbeat
			a.say("void")
			synctest.Wait()
			a.say("never sent")
			l.sleepUntil(3500 * time.Millisecond)
			l.mustRun(a)
			if isRemoved { // The reason arrives in time.
				l.put("x", 2, removalText("a", 3))
				a.mustEnd(ErrRemoved, 0)
			} else {
				l.sleepUntil(4 * time.Second)
				a.mustEnd(etcd.ErrVoid, 1)
			}
			if len(a.appends) != 4 {
				t.Errorf("the node sent %d entries, want 4", len(a.appends))
			}
		})
	}
}

func TestErrorOfTheLogEndsTheNode(t *testing.T) {
	for _, reason := range []error{etcd.ErrReplaced, etcd.ErrRestored, etcd.ErrTrimmed} {
		inLobby(t, func(l *testLobby) {
			a := l.newMachine("a")
			a.endEntries = func(e etcd.Entry) error {
				if e.Number == 4 {
					return reason
				}
				return nil
			}
			l.start(a)
			l.sleepUntil(2500 * time.Millisecond)
			a.say("in the log, but not read")
			a.mustEnd(reason, 1)
		})
		inLobby(t, func(l *testLobby) {
			a := l.newMachine("a")
			a.refuseAppend = func(number int) error {
				if number == 4 {
					return reason
				}
				return nil
			}
			l.start(a)
			l.sleepUntil(2500 * time.Millisecond)
			a.say("maybe in the log")
			a.mustEnd(reason, 1)
		})
	}
}

// The hub is slow, and the log fails.
func TestHubGetsAllStepsBeforeTheEnd(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.newMachine("a")
		a.pages = 3
		a.onStep = func(m *machine, what string) {
			if what == "remove x after 1" {
				time.Sleep(2 * quietAfter * heartbeat) // until there is another reason
				m.say("too late")
			}
		}
		a.refuseAppend = func(number int) error {
			if number == 2 {
				return etcd.ErrReplaced
			}
			return nil
		}
		l.put("x", 1, registered())
		l.put("y", 1, registered())
		l.put("y", 2, removalText("x", 1)+said("hello"))
		l.start(a)
		l.sleepUntil(time.Minute)
		a.expect("restore first-0", "remove x", "remove x after 1", "remove x after 2", "y: say alice hello", "end 0")
		a.mustEnd(etcd.ErrReplaced, 0)
		if len(a.appends) != 2 {
			t.Errorf("the node has sent %d entries, want 2", len(a.appends))
		}
	})
}

// What counts as seen is the newest entry that a node has read or that was acknowledged to it.
func TestLastEntryIsRemembered(t *testing.T) {
	inLobby(t, func(l *testLobby) {
		a := l.mustStart("a")
		want := l.put("x", 1, registered())
		l.sleepUntil(heartbeat / 2)
		a.kill()
		if a.seen.Revision != want {
			t.Errorf("the node has seen %d, and read %d", a.seen.Revision, want)
		}
		c := l.mustStart("c")
		c.holdsEntries.Store(true)
		c.say("hello")
		synctest.Wait()
		want = l.log.Len()
		l.put("x", 2, "")
		c.kill()
		if c.seen.Revision != want {
			t.Errorf("the node has seen %d, and appended %d", c.seen.Revision, want)
		}
	})
}
