// Here belongs what nodes and their clients go through while etcd's servers die, stand still and
// come back.
package e2e

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// Whichever of etcd's servers is killed, nothing is lost, nothing happens twice, and nobody waits
// long.
func TestEtcdServersAreKilledUnderLoad(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3, longHistory...)
	followers := followEach(t, nodes)
	var operations []operation
	for _, c := range []struct {
		name  string
		times int
		bound time.Duration // on the time without a success
		kill  func()
	}{
		{name: "leader", times: 5, bound: 3 * time.Second, kill: func() {
			leader := e.leader(t)
			e.kill(leader)
			time.Sleep(3 * time.Second)
			e.restart(t, leader)
		}},
		{name: "follower", times: 1, bound: 3 * time.Second, kill: func() {
			follower := e.follower(t)
			e.kill(follower)
			time.Sleep(2 * time.Second)
			e.restart(t, follower)
		}},
		{name: "all", times: 1, bound: 5 * time.Second, kill: func() {
			e.kill()
			time.Sleep(2 * time.Second)
			e.start(t)
		}},
	} {
		crowd := startCrowd(t, c.name+"-killed", nodes, 12, 5*time.Millisecond)
		for range c.times {
			time.Sleep(time.Second)
			c.kill()
			e.mustWork(t)
		}
		time.Sleep(time.Second)
		done := crowd.stop()
		operations = append(operations, done...)
		mustSucceed(t, done)
		silence := crowd.silence()
		if silence > c.bound+slack {
			t.Errorf("%s: nothing succeeded for %v, want less than %v", c.name, silence, c.bound)
		}
		t.Logf("%s: %d operations, silent for %v", c.name, len(done), silence)
	}
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	mustHaveLivedOnce(t, nodes, followers...)
}

// While etcd is gone for long, the nodes say that nothing happens, end their streams, and hold no
// port. Each is back by itself soon after etcd is, with everything that was there.
func TestEtcdIsGoneForLong(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3, longHistory...)
	nodes[0].do(t, "POST", "/users/posted", "")
	before := nodes[0].lastID(t)
	followers := followEach(t, nodes)
	guest := nodes[0].subscribe(t, "/chat/guest") // who does not come back
	guest.mustOpen(t)
	crowd := startCrowd(t, "user", nodes, 24, 0)
	time.Sleep(time.Second)

	begin := time.Now()
	e.kill()
	for i, f := range followers {
		limit := 8*time.Second + slack - time.Since(begin)
		eventually(t, limit, "the streams to end", func() bool {
			return len(f.endings(nodes[i].server)) > 0
		})
		end := f.endings(nodes[i].server)[0]
		if took := end.at.Sub(begin); end.err != io.EOF || took < 4500*time.Millisecond {
			t.Errorf("a stream ended with %v after %v, want a proper end after 5 to 8 s", end.err, took)
		} else {
			t.Logf("the streams ended after %v", took)
		}
		mustBeClosed(t, nodes[i], slack)
	}
	time.Sleep(time.Until(begin.Add(15 * time.Second)))
	for _, n := range nodes {
		if n.lives() != 1 {
			t.Error("a node has begun anew without etcd")
		}
		n.mustHaveSaid(t)
		mustBeClosed(t, n, 0)
	}
	e.start(t)
	e.mustWork(t)
	healthy := time.Now()
	for _, n := range nodes {
		n.mustServe(t, 2, 3*time.Second+slack)
	}
	t.Logf("the nodes were back %v after etcd", time.Since(healthy))
	time.Sleep(time.Second)
	operations := crowd.stop()
	mustBeClear(t, operations)
	counts := statuses(operations)
	t.Logf("statuses %v", counts)
	if counts[504] == 0 || counts[504] > 24 || counts[503]+counts[504] < 12 {
		t.Errorf("got the statuses %v of 24 actors, want 504 for what was on its way, else 503", counts)
	}
	left := followers[1].sightingOf(t, leaves("guest"), begin, latest)
	t.Logf("the guest left %v after etcd was back", left.at.Sub(healthy))
	events := mustBeOneHistory(t, nodes, operations)
	if epochOf(events[0].id) != epochOf(before) {
		t.Errorf("the epoch is %s, and was %s", epochOf(events[0].id), epochOf(before))
	}
	mustBeNoNews(t, events, "posted")
	for _, f := range followers {
		f.mustHaveRead(t, events)
	}
	if n := count(events, leaves("guest")); n != 1 {
		t.Errorf("the guest left %d times, want once", n)
	}
}

// A server of etcd's that stands still, with its connections open, costs no node its life.
func TestEtcdServersArePausedUnderLoad(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3, longHistory...)
	followers := followEach(t, nodes)
	var operations []operation
	for n := range 10 {
		paused := n % 3
		if n%2 == 1 {
			paused = e.leader(t)
		}
		crowd := startCrowd(t, fmt.Sprint("round-", n), nodes, 12, 5*time.Millisecond)
		time.Sleep(500 * time.Millisecond)
		e.pause(paused)
		time.Sleep(5500 * time.Millisecond)
		e.resume(paused)
		time.Sleep(500 * time.Millisecond)
		done := crowd.stop()
		operations = append(operations, done...)
		mustSucceed(t, done)
		silence := crowd.silence()
		if silence > 5*time.Second+slack {
			t.Errorf("round %d: nothing succeeded for %v, want at most 5 s", n, silence)
		}
		t.Logf("round %d: %d operations, silent for %v", n, len(done), silence)
		e.mustWork(t)
	}
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	mustHaveLivedOnce(t, nodes, followers...)
}

// A node is told to stop while etcd is gone: it does, in time, whether it serves still or waits.
func TestNodesAreStoppedWhileEtcdIsGone(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	nodes := startNodes(t, e, 2)
	st := nodes[0].subscribe(t, "/chat/alice")
	st.mustOpen(t)
	e.kill()
	asked := make(chan response, 1)
	go func() {
		c := nodes[0].caller(t)
		r, _ := c.call("POST", "/users/bob", "")
		asked <- r
	}()
	time.Sleep(500 * time.Millisecond)
	took, exit := nodes[0].stop(t)
	if exit != nil || took > 5*time.Second+slack {
		t.Errorf("a node that serves ended with %v after %v, want 0 in under 5 s", exit, took)
	}
	t.Logf("a node that serves ended after %v", took)
	defer st.closeAfter(10 * time.Second)()
	if _, err := io.ReadAll(st.r); err != nil {
		t.Errorf("the stream ends with %v, want a proper end", err)
	}
	if r := <-asked; r.status != 503 && r.status != 504 && r.status != 0 {
		t.Errorf("got %d %q without etcd", r.status, r.body)
	}
	mustBeClosed(t, nodes[1], 8*time.Second+slack)
	time.Sleep(time.Second)
	if took, exit := nodes[1].stop(t); exit != nil || took > slack {
		t.Errorf("a node that waits ended with %v after %v, want 0 at once", exit, took)
	}
}
