// Tests that presence is the same on several nodes as on one machine.
package e2e

import (
	"testing"
	"time"
)

// Tabs, reloads, POST and DELETE on different nodes. The watcher compares every event, so that no
// additional one goes unnoticed.
func TestPresenceIsTheSameOnAllNodes(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	var nodes []*node
	for _, grace := range []string{"2s", "4s", "2s"} {
		nodes = append(nodes, startNode(t, e.url(), "-grace", grace))
	}
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
	quiet := func() { // nothing happens for longer than a grace period
		t.Helper()
		time.Sleep(5 * time.Second)
		nodes[0].do(t, "POST", "/chat/watcher", "quiet")
		watcher.expectRun(t, "watcher: quiet")
	}

	first, second := open(0), open(1) // two tabs
	arrived()
	first.body.Close()
	for _, node := range []int{2, 0, 1, 0} { // reloads
		second.body.Close()
		second = open(node)
	}
	quiet()
	request(1, "POST", 200)
	second.body.Close()
	quiet()
	request(2, "DELETE", 200)
	left()
	request(0, "DELETE", 404)

	first = open(0)
	arrived()
	request(1, "DELETE", 200)
	left()
	second = open(1) // a later visit, which the first stream's end does not end
	arrived()
	first.body.Close()
	quiet()
	second.body.Close()
	closed := time.Now()
	left()
	if took := time.Since(closed); took < 4*time.Second {
		t.Errorf("alice left after %v, want 4 s, the grace period of the node of her stream", took)
	}
}
