// Here belongs who is there and when: streams, the grace, POST and DELETE.
package e2e

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// By default a user leaves 5 s after its last stream.
func TestUserStaysForTheGrace(t *testing.T) {
	t.Parallel()
	s := start(t)
	watcher, alice := s.subscribe(t, "/chat/watcher"), s.subscribe(t, "/chat/alice")
	begin := time.Now()
	alice.body.Close()
	watcher.expectRun(t, arrives("watcher"), arrives("alice"), leaves("alice"))
	if grace := time.Since(begin); grace < 4500*time.Millisecond {
		t.Errorf("alice left after %v, want 5 s", grace)
	}
}

// Every event that presence makes is compared, so that none more can hide. Of
// two users who leave, the one whose last stream ended first goes first.
//
// A step a=alice opens the stream a for alice, close:a closes it; 200:POST:alice
// is a request and its answer; +alice and -alice are what a watcher reads next.
func TestUserIsThereWhileSomethingHoldsIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, grace, steps string }{
		{
			name: "two tabs are one user", grace: "0",
			steps: "a=alice b=alice close:a c=bob close:c +alice +bob -bob close:b -alice",
		},
		{
			name: "back within the grace", grace: "2s",
			steps: "a=alice b=carol close:a c=alice close:b d=bob 200:POST:carol close:d " +
				"+alice +carol +bob -bob",
		},
		{
			name: "back after the grace", grace: "300ms",
			steps: "a=alice close:a +alice -alice b=alice +alice",
		},
		{
			name: "POST keeps", grace: "0",
			steps: "a=alice 200:POST:alice b=bob close:a c=carol close:b " +
				"+alice +bob +carol -bob 200:DELETE:alice -alice",
		},
		{
			name: "POST comes first", grace: "0",
			steps: "201:POST:alice a=alice b=bob close:a c=carol close:b " +
				"+alice +bob +carol -bob 200:POST:alice",
		},
		{
			name: "DELETE with streams", grace: "0",
			steps: "a=alice 200:DELETE:alice b=alice close:a c=bob close:c " +
				"+alice -alice +alice +bob -bob close:b -alice",
		},
		{
			name: "DELETE within the grace", grace: "2s",
			steps: "a=alice b=dave close:a c=bob 200:DELETE:alice 201:POST:alice close:c " +
				"+alice +dave +bob -alice +alice -bob",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Once a third stream beside the watcher's is let in, the server has seen one end.
			s := start(t, "-grace", c.grace, "-max-streams", "3")
			s.do(t, "POST", "/users/watcher", "")
			watcher, streams := s.subscribe(t, "/chat/watcher"), map[string]*stream{}
			for step := range strings.FieldsSeq(c.steps) {
				stream, name, isOpen := strings.Cut(step, "=")
				if isOpen {
					streams[stream] = s.subscribeWhenFree(t, "/chat/"+name)
				} else if stream, isClose := strings.CutPrefix(step, "close:"); isClose {
					streams[stream].body.Close()
				} else if name, isArrival := strings.CutPrefix(step, "+"); isArrival {
					watcher.expectRun(t, arrives(name))
				} else if name, isDeparture := strings.CutPrefix(step, "-"); isDeparture {
					watcher.expectRun(t, leaves(name))
				} else {
					p := strings.Split(step, ":")
					if r := s.do(t, p[1], "/users/"+p[2], ""); fmt.Sprint(r.status) != p[0] {
						t.Errorf("%s of %s: got %d, want %s", p[1], p[2], r.status, p[0])
					}
				}
			}
		})
	}
}

// The streams of a user who is removed read on and are nobody's presence.
func TestStreamsOfARemovedUserReadOn(t *testing.T) {
	s := start(t)
	old := s.subscribe(t, "/chat/alice")
	s.do(t, "DELETE", "/users/alice", "")
	if r := s.do(t, "POST", "/chat/alice", "hi"); r.status != 404 {
		t.Errorf("got %d %q, want 404", r.status, r.body)
	}
	s.do(t, "POST", "/users/alice", "")
	s.do(t, "POST", "/chat/alice", "back")
	old.expectRun(t, arrives("alice"), leaves("alice"), arrives("alice"), "alice: back")
}

// A process that was stopped for longer than the grace (the lid of a laptop was
// closed) hears who has come back before it tells that anyone has gone.
func TestNobodyLeavesWhoCameBackInAPause(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]pause{
		"streams end before": {grace: 4 * time.Second, lasts: 6 * time.Second},
		"streams end in it":  {grace: time.Second, lasts: 2 * time.Second, ends: true},
		"it is long":         {grace: 4 * time.Second, lasts: 12 * time.Second},
		"it is short":        {grace: 4 * time.Second, lasts: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needProc(t, 1000)
			p.mustBeNoNews(t)
		})
	}
}

// pause is a time in which the server's process is stopped.
type pause struct {
	grace, lasts time.Duration
	ends         bool // whether streams end in the pause, and not just before it
}

// mustBeNoNews fails the test unless two pauses in which streams are opened again
// are no news, and a departure after them is.
func (p pause) mustBeNoNews(t *testing.T) {
	const users = 10
	s := startForMinutes(t, "-grace", p.grace.String())
	s.do(t, "POST", "/users/watcher", "")
	watcher := s.subscribe(t, "/chat/watcher")
	watcher.mustOpen(t)
	var streams [users]*stream
	all := map[string]bool{}
	for i := range streams {
		name := fmt.Sprint("user-", i)
		streams[i] = s.subscribe(t, "/chat/"+name)
		watcher.expectRun(t, arrives(name))
		all[leaves(name)] = true
	}
	endAll := func() {
		for _, st := range streams {
			st.body.Close()
		}
	}
	for range 2 {
		begin, open := time.Now(), s.descriptors(t)
		if !p.ends {
			endAll()
			eventually(t, time.Minute, "the streams to end", func() bool {
				return s.descriptors(t) <= open-users
			})
			s.lastID(t) // asked of the hub after the ends were told to it
		}
		s.cmd.Process.Signal(syscall.SIGSTOP)
		if took := time.Since(begin); took > p.grace/2 {
			t.Fatalf("the machine is too slow for this test: the streams took %v to end", took)
		}
		if p.ends {
			endAll()
		}
		var asking sync.WaitGroup
		for i := range streams {
			asking.Go(func() {
				var err error
				if streams[i], err = s.trySubscribe(fmt.Sprint("/chat/user-", i)); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(p.lasts)
		s.cmd.Process.Signal(syscall.SIGCONT)
		if asking.Wait(); t.Failed() {
			return
		}
		s.do(t, "POST", "/chat/watcher", "all are back")
		watcher.expectRun(t, "watcher: all are back")
	}
	begin := time.Now()
	endAll()
	for range streams {
		e := watcher.mustNext(t)
		if !all[e.data] {
			t.Fatalf("got %+v, want the departure of another", e)
		}
		delete(all, e.data)
	}
	took := time.Since(begin)
	if took < p.grace-100*time.Millisecond || took > p.grace+5*time.Second {
		t.Errorf("the users left after %v, want %v", took, p.grace)
	}
}
