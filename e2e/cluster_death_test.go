// Here belongs what becomes of a node's users and clients when the node dies, is told to stop, is
// paused, or loses the way to etcd.
package e2e

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Bounds on the time from a node's death until its users leave.
const (
	soonest = 10 * time.Second
	latest  = 13*time.Second + slack
)

// Of a node's users, those who are somewhere else when it is found dead make no noise, and the
// others leave once, together.
func TestUsersOfAKilledNodeLeaveOnce(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	dying, others := nodes[0], nodes[1:]
	const users = 400
	var streams [users]*stream
	for i := range streams {
		streams[i] = dying.subscribe(t, fmt.Sprint("/chat/user-", i))
		streams[i].mustOpen(t)
	}
	stays := func(i int) bool { return i%2 == 0 || i%10 == 1 } // half come back, some others have POST
	for i := 1; i < users; i += 10 {
		dying.do(t, "POST", fmt.Sprint("/users/user-", i), "")
	}
	dying.do(t, "POST", "/users/posted", "")
	watcher := follow(t, "watcher", others[0])
	crowd := startCrowd(t, "crowd", others, 6, 10*time.Millisecond)

	killed := time.Now()
	dying.kill()
	var back sync.WaitGroup
	for i := range streams {
		streams[i].body.Close()
		if i%2 == 0 {
			back.Go(func() {
				time.Sleep(time.Duration(i) * 3 * time.Second / users)
				path := fmt.Sprint("/chat/user-", i)
				st, err := others[i/2%2].trySubscribe(path, "Last-Event-ID", streams[i].lastID)
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { st.body.Close() })
				if streams[i] = st; st.readOpening(t) {
					t.Error("a stream that came back got a gap")
				}
			})
		}
	}
	back.Wait()
	first := watcher.sightingOf(t, leaves("user-3"), killed, 20*time.Second)
	if took := first.at.Sub(killed); took < soonest || took > latest {
		t.Errorf("the users left after %v, want 10 to 13 s", took)
	} else {
		t.Logf("the users left after %v", took)
	}
	dying.restart(t)
	operations := crowd.stop()
	mustSucceed(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	watcher.mustHaveRead(t, events)
	var departures []int // their places
	for n, e := range events {
		if strings.HasPrefix(e.data, "User user-") && strings.Contains(e.data, "disconnected") {
			departures = append(departures, n)
		}
	}
	want := 0
	for i := range users {
		name := fmt.Sprint("user-", i)
		if stays(i) {
			mustBeNoNews(t, events, name)
		} else if want++; count(events, leaves(name)) != 1 || count(events, arrives(name)) != 1 {
			t.Errorf("%s did not come and leave once", name)
		}
	}
	mustBeNoNews(t, events, "posted")
	if n := len(departures); n != want || departures[n-1]-departures[0] != n-1 {
		t.Errorf("the %d departures stand at %d, want %d at one place", n, departures, want)
	}
}

// Everyone whose node was killed is back elsewhere at once, without a gap: 3,000 tabs of 30 users.
// Nothing else runs at the same time.
func TestStreamsOfAKilledNodeAreBackAtOnce(t *testing.T) {
	const streams = 3000
	needProc(t, 3*streams)
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	dying, others := nodes[0], nodes[1:]
	var opened [streams]*stream
	each := func(do func(i int)) {
		var doing sync.WaitGroup
		next := make(chan int)
		for range 100 {
			doing.Go(func() {
				for i := range next {
					do(i)
				}
			})
		}
		for i := range streams {
			next <- i
		}
		close(next)
		doing.Wait()
	}
	open := func(n *node, i int, headers ...string) {
		st, err := n.trySubscribe(fmt.Sprint("/chat/user-", i%30), headers...)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { st.body.Close() })
		if opened[i] = st; st.readOpening(t) {
			t.Error("a stream begins with a gap")
		}
	}
	each(func(i int) { open(dying, i) })
	if t.Failed() {
		return
	}
	dying.kill()
	begin := time.Now()
	each(func(i int) {
		opened[i].body.Close()
		open(others[i%2], i, "Last-Event-ID", opened[i].lastID)
	})
	if took := time.Since(begin); took > 3*time.Second+slack {
		t.Errorf("the streams were back after %v, want 3 s", took)
	} else {
		t.Logf("the streams were back after %v", took)
	}
	var ended atomic.Int64 // streams
	for _, st := range opened {
		go func() {
			io.Copy(io.Discard, st.r)
			ended.Add(1)
		}()
	}
	time.Sleep(time.Until(begin.Add(latest))) // until the node must have been found dead
	events := mustBeOneHistory(t, others, nil)
	for i := range 30 {
		mustBeNoNews(t, events, fmt.Sprint("user-", i))
	}
	if n := ended.Load(); n > 0 {
		t.Errorf("%d streams have ended", n)
	}
}

// A deployment that stops and starts one node after the other is no news to anyone.
func TestNodesAreStoppedInTurnUnderLoad(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	var followers []*follower
	for i := range 30 {
		from := slices.Concat(nodes[i%3:], nodes[:i%3])
		followers = append(followers, follow(t, fmt.Sprint("follower-", i), from...))
	}
	guest := nodes[0].subscribe(t, "/chat/guest") // who does not come back
	guest.mustOpen(t)
	crowd := startCrowd(t, "user", nodes, 12, 5*time.Millisecond)
	begin, streams := time.Now(), 0
	for range 2 {
		for _, n := range nodes {
			time.Sleep(time.Second)
			var there []*follower
			for _, f := range followers {
				if f.isAt(n.server) {
					there = append(there, f)
				}
			}
			streams += len(there)
			stopped := time.Now()
			took, exit := n.stop(t)
			if exit != nil || took > 5*time.Second+slack {
				t.Errorf("a node ended with %v after %v, want 0 in under 5 s", exit, took)
			}
			mustEndProperly(t, there, n, stopped)
			restarted := n.restart(t)
			t.Logf("stopped in %v, serves again after %v", took, restarted)
		}
	}
	if streams < 2*len(followers) {
		t.Errorf("%d streams were open at nodes that were stopped, want 60 and more", streams)
	}
	// Whoever finds a node dead must have lived for so long itself, so this may be after the last
	// start.
	left := followers[1].sightingOf(t, leaves("guest"), begin, latest)
	if took := left.at.Sub(begin); took < soonest {
		t.Errorf("who did not come back left after %v, want at least 10 s", took)
	}
	operations := crowd.stop()
	mustHaveNo5xx(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	if n := count(events, leaves("guest")); n != 1 {
		t.Errorf("the guest left %d times, want once", n)
	}
	mustHaveStayed(t, events, followers...)
	t.Logf("%d operations, silent for %v", len(operations), crowd.silence())
}

// mustEndProperly fails the test unless each of the followers has had a stream of the node end
// since then, and the first of these ends was a proper one.
func mustEndProperly(t *testing.T, followers []*follower, n *node, since time.Time) {
	t.Helper()
	for _, f := range followers {
		var ends []ending
		eventually(t, slack, "a stream of "+f.name+" at "+n.addr+" to end", func() bool {
			ends = slices.DeleteFunc(f.endings(n.server), func(e ending) bool { return e.at.Before(since) })
			return len(ends) > 0
		})
		if ends[0].err != io.EOF {
			t.Errorf("a stream of %s at %s ended with %v, want a proper end", f.name, n.addr, ends[0].err)
		}
	}
}

// mustBeClosed fails the test unless the node soon refuses connections.
func mustBeClosed(t *testing.T, n *node, limit time.Duration) {
	t.Helper()
	eventually(t, limit, n.addr+" to refuse connections", func() bool {
		conn, err := net.Dial("tcp", n.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// A pause that is shorter than it takes to be found dead is no news.
func TestNodePausedForAMomentIsNotLost(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	watcher, sleeper := follow(t, "watcher", nodes[1]), follow(t, "sleeper", nodes[0])
	crowd := startCrowd(t, "user", nodes[1:], 6, 10*time.Millisecond)
	nodes[0].pause()
	time.Sleep(8 * time.Second)
	nodes[0].resume()
	time.Sleep(5 * time.Second)
	operations := crowd.stop()
	mustSucceed(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, watcher, sleeper)
	mustHaveLivedOnce(t, nodes[:1], sleeper)
}

// A node that was paused for so long that the others gave it up begins anew at the same address.
// Nothing that it was asked meanwhile happens.
func TestNodePausedForLongBeginsAnew(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	paused := nodes[0]
	watcher, sleeper := follow(t, "watcher", nodes[1]), follow(t, "sleeper", paused)
	guest := paused.subscribe(t, "/chat/guest")
	guest.mustOpen(t)
	paused.do(t, "POST", "/users/posted", "")
	crowd := startCrowd(t, "user", nodes[1:], 6, 10*time.Millisecond)
	idle := make([]*caller, 5) // whose connections are open already
	for i := range idle {
		idle[i] = paused.caller(t)
		idle[i].call("GET", "/users", "")
	}

	begin := time.Now()
	paused.pause()
	time.Sleep(time.Second)
	waiting := make([]operation, 10)
	var asking sync.WaitGroup
	for i := range waiting {
		c := paused.caller(t)
		if i < len(idle) {
			c = idle[i]
		}
		asking.Go(func() {
			o := operation{kind: "say", name: "posted", text: fmt.Sprint("question ", i), begin: time.Now()}
			o.response, _ = c.call("POST", "/chat/"+o.name, o.text)
			o.end = time.Now()
			waiting[i] = o
		})
	}
	left := watcher.sightingOf(t, leaves("guest"), begin, 20*time.Second)
	if took := left.at.Sub(begin); took < soonest || took > latest {
		t.Errorf("the users left after %v, want 10 to 13 s", took)
	}
	time.Sleep(time.Until(begin.Add(20 * time.Second)))
	paused.resume()
	resumed := time.Now()
	paused.mustServe(t, 2, 10*time.Second+slack)
	t.Logf("a new life %v after the pause", time.Since(resumed))
	asking.Wait()
	defer guest.closeAfter(10 * time.Second)()
	if _, err := io.ReadAll(guest.r); err != nil {
		t.Errorf("a stream ends with %v, want a proper end", err)
	}
	mustEndProperly(t, []*follower{sleeper}, paused, begin)
	paused.mustHaveSaid(t)
	sleeper.sightingOf(t, arrives("sleeper"), resumed, 10*time.Second+slack)
	mustBeClear(t, waiting)
	for _, o := range waiting {
		if o.status != 503 && o.status != 0 {
			t.Errorf("%v: want 503 for what waited", o)
		}
	}
	if statuses(waiting)[503] == 0 {
		t.Errorf("nobody who waited got an answer: %v", waiting)
	}
	t.Logf("who waited got %v", statuses(waiting))
	operations := crowd.stop()
	mustSucceed(t, operations)
	for _, o := range waiting {
		o.status = 503 // also for who got no answer: nothing has happened
		operations = append(operations, o)
	}
	events := mustBeOneHistory(t, nodes, operations)
	watcher.mustHaveRead(t, events)
	sleeper.mustHaveRead(t, events)
	mustBeNoNews(t, events, "posted")
	if n := count(events, leaves("guest")); n != 1 {
		t.Errorf("the guest left %d times, want once", n)
	}
	came, gone := count(events, arrives("sleeper")), count(events, leaves("sleeper"))
	if came != 2 || gone != 1 {
		t.Errorf("the sleeper came %d times and left %d times, want 2 and 1", came, gone)
	}
}

// A node that alone is cut off from etcd ends its streams, says so once, holds no port, and is back
// when etcd is: whether its connections are refused or stand still.
func TestNodesAreCutOffFromEtcd(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	well := startNodes(t, e, 2, longHistory...)
	lost, gates := startGated(t, e, 2)
	watcher := follow(t, "watcher", well[0])
	var guests []*stream
	var movers []*follower
	for i, n := range lost {
		guests = append(guests, n.subscribe(t, fmt.Sprint("/chat/guest-", i)))
		guests[i].mustOpen(t)
		movers = append(movers, follow(t, fmt.Sprint("mover-", i), n, well[0]))
	}
	nodes := append(well, lost...)
	crowd := startCrowd(t, "user", nodes, 8, 10*time.Millisecond)

	begin := time.Now()
	makeAll(gates[0], trouble{cut: true})
	makeAll(gates[1], trouble{holds: everything})
	for i, guest := range guests {
		stop := guest.closeAfter(20 * time.Second)
		if _, err := io.ReadAll(guest.r); err != nil {
			t.Errorf("stream %d ends with %v, want a proper end", i, err)
		}
		stop()
		if took := time.Since(begin); took < 4500*time.Millisecond || took > 8*time.Second+slack {
			t.Errorf("stream %d ends after %v, want 5 to 8 s", i, took)
		}
	}
	for i, n := range lost {
		mustBeClosed(t, n, slack)
		left := watcher.sightingOf(t, leaves(fmt.Sprint("guest-", i)), begin, 20*time.Second)
		if took := left.at.Sub(begin); took < soonest || took > latest {
			t.Errorf("guest %d left after %v, want 10 to 13 s", i, took)
		} else {
			t.Logf("guest %d left after %v", i, took)
		}
		if lives := n.lives(); lives != 1 {
			t.Errorf("cut off, the node has had %d lives", lives)
		}
		n.mustHaveSaid(t)
	}
	for i, n := range lost {
		makeAll(gates[i], trouble{})
		took := n.mustServe(t, 2, 3*time.Second+slack)
		t.Logf("node %d was back after %v", i, took)
	}
	operations := crowd.stop()
	mustBeClear(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	watcher.mustHaveRead(t, events)
	mustHaveStayed(t, events, movers...)
	t.Logf("statuses %v, silent for %v", statuses(operations), crowd.silence())
}
