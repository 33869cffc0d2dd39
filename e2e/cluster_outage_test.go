// Tests what nodes and their clients notice while members of etcd are killed, paused and restarted.
package e2e

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// Whichever members of etcd are killed or paused, nothing is lost or happens twice, and no request
// waits for long.
func TestFailingMembersOfEtcdOnlyDelayRequests(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3, longHistory...)
	followers := followEach(t, nodes)
	pause := func(member int) func() {
		return func() {
			e.members[member].pause()
			time.Sleep(5500 * time.Millisecond)
			e.members[member].resume()
		}
	}
	var operations []operation
	for i, c := range []struct {
		silence time.Duration // the longest allowed time without success
		fail    func()
	}{
		{3 * time.Second, func() {
			leader := e.leader(t)
			e.kill(leader)
			time.Sleep(3 * time.Second)
			e.restart(t, leader)
		}},
		{3 * time.Second, func() {
			follower := (e.leader(t) + 1) % 3
			e.kill(follower)
			time.Sleep(2 * time.Second)
			e.restart(t, follower)
		}},
		{5 * time.Second, func() {
			e.kill()
			time.Sleep(2 * time.Second)
			e.start(t)
		}},
		{5 * time.Second, pause(0)},
		{5 * time.Second, pause(1)},
		{5 * time.Second, pause(2)},
	} {
		crowd := startCrowd(t, fmt.Sprint("round-", i), nodes, 12, 5*time.Millisecond)
		time.Sleep(500 * time.Millisecond)
		c.fail()
		e.mustWork(t)
		time.Sleep(500 * time.Millisecond)
		operations = append(operations, mustSucceed(t, crowd.stop())...)
		crowd.mustSucceedWithin(t, c.silence)
	}
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	mustNotHaveStartedOver(t, nodes, followers...)
}

// During a long outage of etcd, the nodes say that nothing happens, end their streams, and hold no
// port. Soon after etcd is back, so is each node, with everything that it had.
func TestNodesSurviveALongOutageOfEtcd(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3, longHistory...)
	nodes[0].do(t, "POST", "/users/posted", "")
	before := nodes[0].lastID(t)
	followers := followEach(t, nodes)
	nodes[0].subscribe(t, "/chat/guest").mustOpen(t) // the guest does not come back
	crowd := startCrowd(t, "user", nodes, 24, 0)
	time.Sleep(time.Second)

	begin := time.Now()
	e.kill()
	time.Sleep(time.Until(begin.Add(9 * time.Second / 2)))
	unfinished := nodes[0].dial(t)
	io.WriteString(unfinished, nodes[0].text("POST /users/unfinished", "", "Content-Length", "1"))
	for i, f := range followers {
		f.mustLoseStream(t, nodes[i], begin)
		mustBeClosed(t, nodes[i], slack)
	}
	time.Sleep(time.Until(begin.Add(15 * time.Second)))
	if got, _ := io.ReadAll(unfinished); len(got) > 0 {
		t.Errorf("a request that its node has not survived got %q", got)
	}
	mustNotHaveStartedOver(t, nodes)
	for _, n := range nodes {
		n.mustHaveWarnedOnce(t)
		mustBeClosed(t, n, 0)
	}
	e.start(t)
	for _, n := range nodes {
		n.mustServe(t, 2, 3*time.Second+slack)
	}
	time.Sleep(time.Second)
	operations := mustSucceed(t, crowd.stop(), 0, 503, 504)
	counts := statuses(operations)
	if counts[504] == 0 || counts[504] > 24 || counts[503]+counts[504] < 12 {
		t.Errorf("got the statuses %v, want 504 for what was on its way, else 503", counts)
	}
	followers[1].sightingOf(t, leaves("guest"), begin, latest)
	events := mustBeOneHistory(t, nodes, operations)
	if epochOf(events[0].id) != epochOf(before) {
		t.Errorf("the epoch is %s, and was %s", epochOf(events[0].id), epochOf(before))
	}
	mustArriveAndLeave(t, events, "posted", 1, 0)
	mustArriveAndLeave(t, events, "guest", 1, 1)
	for _, f := range followers {
		f.mustHaveRead(t, events)
	}
}

// A node that is told to stop during an outage of etcd, when it is still serving, stops in time.
func TestNodeStopsDuringAnOutageOfEtcd(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	n := startNode(t, e.url())
	st := n.subscribe(t, "/chat/alice")
	st.mustOpen(t)
	e.kill()
	c := n.caller(t)
	asked := make(chan response, 1)
	go func() {
		r, _ := c.call("POST", "/users/bob", "")
		asked <- r
	}()
	time.Sleep(500 * time.Millisecond)
	n.mustStop(t, 5*time.Second+slack)
	st.mustEnd(t)
	o := operation{kind: "join", response: <-asked}
	if mustSucceed(t, []operation{o}, 0, 503, 504); o.isAnswered() {
		t.Errorf("%v without etcd", o)
	}
}
