// Tests that presence is the same on several nodes as on one machine: tabs, reloads, the grace
// period, POST and DELETE.
package e2e

import (
	"testing"
	"time"
)

// The watcher compares every event, so that no additional one goes unnoticed.
func TestPresenceIsTheSameOnAllNodes(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Second
	nodes := startNodes(t, startEtcd(t, 3), 3, "-grace", grace.String())
	nodes[0].do(t, "POST", "/users/watcher", "")
	watcher := nodes[2].subscribe(t, "/chat/watcher")
	open := func(node int) *stream {
		st := nodes[node].subscribe(t, "/chat/alice")
		st.mustOpen(t)
		return st
	}
	request := func(node int, method string, status int) {
		t.Helper()
		if r := nodes[node].do(t, method, "/users/alice", ""); r.status != status {
			t.Errorf("%s at node %d: got %d, want %d", method, node, r.status, status)
		}
	}
	arrived := func() { t.Helper(); watcher.expectRun(t, arrives("alice")) }
	left := func() { t.Helper(); watcher.expectRun(t, leaves("alice")) }
	quiet := func() { // nothing happens for longer than the grace period
		t.Helper()
		time.Sleep(grace + time.Second)
		nodes[0].do(t, "POST", "/chat/watcher", "quiet")
		watcher.expectRun(t, "watcher: quiet")
	}
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"two tabs on two nodes are one user", func() {
			a := open(0)
			arrived()
			b := open(1)
			a.body.Close()
			quiet()
			b.body.Close()
			left()
		}},
		{"reloads that alternate between nodes cause no events", func() {
			a := open(0)
			arrived()
			for _, node := range []int{1, 2, 0} {
				a.body.Close()
				a = open(node)
			}
			quiet()
			a.body.Close()
			b := open(1)
			quiet()
			b.body.Close()
			left()
		}},
		{"POST keeps the user of another node's stream", func() {
			a := open(0)
			arrived()
			request(1, "POST", 200)
			a.body.Close()
			quiet()
			request(2, "POST", 200)
			request(0, "DELETE", 200)
			left()
		}},
		{"DELETE removes the user of another node's stream", func() {
			a := open(0)
			arrived()
			request(1, "DELETE", 200)
			left()
			request(2, "DELETE", 404)
			request(1, "POST", 201)
			arrived()
			a.body.Close()
			quiet()
			request(0, "DELETE", 200)
			left()
		}},
		{"streams from before DELETE do not end a later visit", func() {
			a, b := open(0), open(1)
			arrived()
			request(2, "DELETE", 200)
			left()
			c := open(2)
			arrived()
			a.body.Close()
			b.body.Close()
			quiet()
			c.body.Close()
			left()
		}},
		{"DELETE within the grace period, and a return on another node", func() {
			a := open(0)
			arrived()
			a.body.Close()
			request(1, "DELETE", 200)
			left()
			b := open(2)
			arrived()
			quiet()
			b.body.Close()
			left()
		}},
	} {
		t.Log(c.name)
		c.do()
	}
}

// When a stream on one node closes, its user stays for the grace period on every node.
func TestGracePeriodIsTheSameOnEveryNode(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 1), 2)
	watchers := followEach(t, nodes)
	st := nodes[0].subscribe(t, "/chat/alice")
	st.mustOpen(t)
	closed := time.Now()
	st.body.Close()
	for _, w := range watchers {
		took := w.sightingOf(t, leaves("alice"), closed, 20*time.Second).at.Sub(closed)
		if took < 5*time.Second || took > 6*time.Second+slack {
			t.Errorf("alice left after %v, want 5 s", took)
		}
	}
}
