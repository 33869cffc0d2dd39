// Tests how long a user stays without a stream. The rules of presence and their times are tested
// exactly beside the hub.
package e2e

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestUserLeaves5SecondsAfterTheLastStream(t *testing.T) {
	t.Parallel()
	s := start(t)
	watcher, alice := s.subscribe(t, "/chat/watcher"), s.subscribe(t, "/chat/alice")
	begin := time.Now()
	alice.body.Close()
	watcher.expectRun(t, arrives("watcher"), arrives("alice"), leaves("alice"))
	if took := time.Since(begin); took < 4500*time.Millisecond {
		t.Errorf("alice left after %v, want 5 s", took)
	}
}

func TestReloadCausesNoEvents(t *testing.T) {
	t.Parallel()
	s := start(t, "-grace", "3s")
	watcher, bob := s.subscribe(t, "/chat/watcher"), s.subscribe(t, "/chat/bob")
	watcher.expectRun(t, arrives("watcher"), arrives("bob"))
	for range 5 {
		bob.body.Close()
		bob = s.subscribe(t, "/chat/bob")
	}
	s.do(t, "POST", "/chat/bob", "back")
	watcher.expectRun(t, "bob: back")
}

// After a suspended process resumes, its timers are due before it has accepted the connections of
// the users who came back meanwhile.
func TestUsersWhoComeBackWhileTheProcessIsSuspendedDoNotLeave(t *testing.T) {
	t.Parallel()
	const users, grace, lasts = 10, 4 * time.Second, 6 * time.Second
	needProc(t, 1000)
	s := startForMinutes(t, "-grace", grace.String())
	watcher := s.subscribe(t, "/chat/watcher")
	watcher.expectRun(t, arrives("watcher"))
	var streams [users]*stream
	var departures []string
	for i := range streams {
		name := fmt.Sprint("user-", i)
		streams[i] = s.subscribe(t, "/chat/"+name)
		watcher.expectRun(t, arrives(name))
		departures = append(departures, leaves(name))
	}
	begin, open := time.Now(), s.descriptors(t)
	for _, st := range streams[:users/2] {
		st.body.Close()
	}
	eventually(t, time.Minute, "half of the streams to end", func() bool {
		return s.descriptors(t) <= open-users/2
	})
	s.cmd.Process.Signal(syscall.SIGSTOP)
	if took := time.Since(begin); took > grace/2 {
		t.Fatalf("the machine is too slow for this test: the streams took %v to end", took)
	}
	for _, st := range streams[users/2:] {
		st.body.Close()
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
	time.Sleep(lasts)
	s.cmd.Process.Signal(syscall.SIGCONT)
	if asking.Wait(); t.Failed() {
		return
	}
	s.do(t, "POST", "/chat/watcher", "all are back")
	watcher.expectRun(t, "watcher: all are back")

	for _, st := range streams {
		st.body.Close()
	}
	var got []string
	for range streams {
		got = append(got, watcher.mustNext(t).data)
	}
	if slices.Sort(got); !slices.Equal(got, departures) {
		t.Errorf("after the end of all streams got %q, want %q", got, departures)
	}
}
