// Tests what happens to a node's users and clients when the node is killed, stopped, paused, or cut
// off from etcd.
package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Limits on the time from a node's death until its users leave.
const (
	soonest = 10 * time.Second
	latest  = 13*time.Second + slack
)

// mustLeaveInTime fails the test unless the follower sees the user leave 10 to 13 s after the death
// of the user's node.
func (f *follower) mustLeaveInTime(t *testing.T, user string, death time.Time) {
	t.Helper()
	left := f.sightingOf(t, leaves(user), death, 20*time.Second)
	if took := left.at.Sub(death); took < soonest || took > latest {
		t.Errorf("%s left after %v, want 10 to 13 s", user, took)
	}
}

// mustLoseStream fails the test unless the follower's stream from the node ends properly, 5 to 8 s
// after the node lost the log.
func (f *follower) mustLoseStream(t *testing.T, n *node, lost time.Time) {
	t.Helper()
	end := f.firstEnd(t, n.server, lost, time.Until(lost.Add(8*time.Second+slack)))
	if took := end.at.Sub(lost); end.err != io.EOF || took < 4500*time.Millisecond {
		t.Errorf("a stream ended with %v after %v, want a proper end after 5 to 8 s", end.err, took)
	}
}

// Of the users of a node that is declared dead, those who are elsewhere by then stay unnoticed, and
// the others leave once, together. 400 users are more than a node removes in one step.
func TestUsersOfAKilledNodeLeaveOnce(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	dying, others := nodes[0], nodes[1:]
	watcher := follow(t, "watcher", others[0])
	staying := []*follower{watcher}
	var leaving []string
	for i := range 200 {
		mover, guest := fmt.Sprint("mover-", i), fmt.Sprint("guest-", i)
		staying = append(staying, follow(t, mover, dying, others[i%2]))
		dying.subscribe(t, "/chat/"+guest).mustOpen(t)
		if i%5 == 0 {
			dying.do(t, "POST", "/users/"+guest, "")
		} else {
			leaving = append(leaving, guest)
		}
	}
	dying.do(t, "POST", "/users/posted", "")
	crowd := startCrowd(t, "crowd", others, 6, 100*time.Millisecond)

	killed := time.Now()
	dying.kill()
	watcher.mustLeaveInTime(t, leaving[0], killed)
	dying.restart(t)
	events := finish(t, nodes, crowd, staying...)
	var places []int // of the departures in the history
	for n, e := range events {
		if strings.HasPrefix(e.data, "User guest-") && strings.Contains(e.data, "disconnected") {
			places = append(places, n)
		}
	}
	if n := len(places); n != len(leaving) || places[n-1]-places[0] != n-1 {
		t.Errorf("the departures have the places %d, want %d in a row", places, len(leaving))
	}
	for _, guest := range leaving {
		mustArriveAndLeave(t, events, guest, 1, 1)
	}
	for _, posted := range []string{"posted", "guest-0", "guest-5"} {
		mustArriveAndLeave(t, events, posted, 1, 0)
	}
}

// A deployment that stops and starts one node after the other causes no events.
func TestRollingRestartCausesNoEvents(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	var followers []*follower
	for i := range 30 {
		followers = append(followers, follow(t, fmt.Sprint("follower-", i), rotate(nodes, i)...))
	}
	nodes[0].subscribe(t, "/chat/guest").mustOpen(t) // the guest does not come back
	crowd := startCrowd(t, "user", nodes, 12, 5*time.Millisecond)
	begin, streams := time.Now(), 0
	for range 2 {
		for _, n := range nodes {
			time.Sleep(time.Second)
			var clients []*follower
			for _, f := range followers {
				if f.isAt(n.server) {
					clients = append(clients, f)
				}
			}
			streams += len(clients)
			stopped := time.Now()
			n.mustStop(t, 5*time.Second+slack)
			mustEndProperly(t, n.server, stopped, clients...)
			n.restart(t)
		}
	}
	if streams < 2*len(followers) {
		t.Errorf("%d streams were open at nodes that were stopped, want at least 60", streams)
	}
	// A node declares another dead only after 12 s of its own, perhaps after the last start.
	left := followers[1].sightingOf(t, leaves("guest"), begin, latest)
	if took := left.at.Sub(begin); took < soonest {
		t.Errorf("the guest left after %v, want at least 10 s", took)
	}
	operations := mustSucceed(t, crowd.stop(), 0)
	events := mustBeOneHistory(t, nodes, operations)
	mustArriveAndLeave(t, events, "guest", 1, 1)
	mustHaveStayed(t, events, followers...)
}

// mustStop fails the test unless the node ends with status 0 within limit of SIGTERM.
func (n *node) mustStop(t *testing.T, limit time.Duration) {
	t.Helper()
	if took, exit := n.stop(t); exit != nil || took > limit {
		t.Errorf("a node ended with %v after %v, want status 0 within %v", exit, took, limit)
	}
}

// mustBeClosed fails the test unless the node refuses connections within limit.
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

// A node that is paused for a short time loses nothing. One that is paused until it is declared
// dead starts over at the same address, and requests that it received meanwhile have no effect.
func TestOnlyANodePausedForTooLongStartsOver(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	paused := nodes[0]
	watcher, sleeper := follow(t, "watcher", nodes[1]), follow(t, "sleeper", paused)
	guest := paused.subscribe(t, "/chat/guest")
	guest.mustOpen(t)
	paused.do(t, "POST", "/users/posted", "")
	crowd := startCrowd(t, "user", nodes[1:], 6, 10*time.Millisecond)
	callers := make([]*caller, 10) // half of which have a connection already
	for i := range callers {
		if callers[i] = paused.caller(t); i%2 == 0 {
			callers[i].call("GET", "/users", "")
		}
	}

	paused.pause()
	time.Sleep(8 * time.Second)
	paused.resume()
	time.Sleep(5 * time.Second)
	mustNotHaveStartedOver(t, []*node{paused}, sleeper)

	begin := time.Now()
	paused.pause()
	time.Sleep(time.Second)
	pending := make([]operation, len(callers))
	var asking sync.WaitGroup
	for i, c := range callers {
		asking.Go(func() {
			o := operation{kind: "say", name: "posted", text: fmt.Sprint("question ", i)}
			o.begin = time.Now()
			o.response, _ = c.call("POST", "/chat/"+o.name, o.text)
			o.end = time.Now()
			pending[i] = o
		})
	}
	watcher.mustLeaveInTime(t, "guest", begin)
	time.Sleep(time.Until(begin.Add(20 * time.Second)))
	paused.resume()
	resumed := time.Now()
	paused.mustServe(t, 2, startLimit)
	asking.Wait()
	guest.mustEnd(t)
	mustEndProperly(t, paused.server, begin, sleeper)
	paused.mustHaveWarnedOnce(t)
	sleeper.sightingOf(t, arrives("sleeper"), resumed, startLimit)
	mustSucceed(t, pending, 0, 503)
	if statuses(pending)[503] == 0 {
		t.Errorf("no pending request was answered: %v", pending)
	}
	operations := mustSucceed(t, crowd.stop())
	for _, o := range pending {
		if o.isAnswered() {
			t.Errorf("%v: want 503 for a pending request", o)
		}
		o.status = 503 // also without a response: it had no effect
		operations = append(operations, o)
	}
	events := mustBeOneHistory(t, nodes, operations)
	watcher.mustHaveRead(t, events)
	sleeper.mustHaveRead(t, events)
	mustArriveAndLeave(t, events, "posted", 1, 0)
	mustArriveAndLeave(t, events, "guest", 1, 1)
	mustArriveAndLeave(t, events, "sleeper", 2, 1)
}

// mustEnd fails the test unless the stream ends properly within 10 s, after any further events.
func (st *stream) mustEnd(t *testing.T) {
	t.Helper()
	defer st.closeAfter(10 * time.Second)()
	if _, err := io.ReadAll(st.r); err != nil {
		t.Errorf("the stream ends with %v, want a proper end", err)
	}
}

// A node that alone loses etcd, because its connections are refused or stall, ends its streams,
// says so once, holds no port, and is back as soon as it reaches etcd again.
func TestNodesCutOffFromEtcdComeBack(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	healthy := startNodes(t, e, 2, longHistory...)
	lost, links := linkedNodes(t, e, 2)
	startAll(t, lost, startLimit)
	watcher := follow(t, "watcher", healthy[0])
	var guests []*stream
	var movers []*follower
	for i, n := range lost {
		guests = append(guests, n.subscribe(t, fmt.Sprint("/chat/guest-", i)))
		guests[i].mustOpen(t)
		movers = append(movers, follow(t, fmt.Sprint("mover-", i), n, healthy[0]))
	}
	nodes := append(healthy, lost...)
	crowd := startCrowd(t, "user", nodes, 8, 10*time.Millisecond)

	begin := time.Now()
	injectAll(links[0], fault{cut: true})
	injectAll(links[1], fault{stalls: everything})
	for i, n := range lost {
		movers[i].mustLoseStream(t, n, begin)
		guests[i].mustEnd(t)
		mustBeClosed(t, n, slack)
	}
	for i, n := range lost {
		watcher.mustLeaveInTime(t, fmt.Sprint("guest-", i), begin)
		n.mustHaveWarnedOnce(t)
	}
	mustNotHaveStartedOver(t, lost)
	for i, n := range lost {
		injectAll(links[i], fault{})
		n.mustServe(t, 2, 3*time.Second+slack)
	}
	operations := mustSucceed(t, crowd.stop(), 0, 503, 504)
	events := mustBeOneHistory(t, nodes, operations)
	watcher.mustHaveRead(t, events)
	mustHaveStayed(t, events, movers...)
}
