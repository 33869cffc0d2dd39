// Tests the limits of a lobby on several machines, its settings, and which etcd and which keys it
// uses.
package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// -max-users limits all nodes together, even if all are asked at once.
func TestMaxUsersHoldsAcrossNodes(t *testing.T) {
	t.Parallel()
	const most = 50
	nodes := startNodes(t, startEtcd(t, 3), 3, "-max-users", fmt.Sprint(most))
	joins := make([]operation, 300)
	var joining sync.WaitGroup
	for i := range 30 {
		c := nodes[i%3].caller(t)
		joining.Go(func() {
			for n := range 10 {
				o := &joins[10*i+n]
				o.kind, o.name = "join", fmt.Sprintf("user-%d-%d", i, n)
				o.response, _ = c.call("POST", "/users/"+o.name, "")
			}
		})
	}
	joining.Wait()
	mustSucceed(t, joins, 503)
	if counts := statuses(joins); counts[201] != most || counts[503] != len(joins)-most {
		t.Errorf("got the statuses %v, want %d times 201 and otherwise 503", counts, most)
	}
	for _, n := range nodes {
		if users := strings.Count(n.do(t, "GET", "/users", "").body, "User: "); users != most {
			t.Errorf("the list has %d users, want %d", users, most)
		}
		n.mustBeFull(t, "POST /users/one-more")
	}
}

// A node that is started with settings other than the lobby's, or without a valid URL, says so and
// exits.
func TestNodesWithOtherSettingsExit(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	first := startNode(t, e.url(), "-history", "100", "-max-users", "20")
	mustExit(t, 1, "-history", "-max-users", "20", "-etcd", e.url(), "-addr", "127.0.0.1:0")
	mustExit(t, 1, "-max-users", "-history", "100", "-etcd", e.url(), "-addr", "127.0.0.1:0")
	mustExit(t, 2, "etcd", "-etcd", "127.0.0.1:2379", "-addr", "127.0.0.1:0")
	same := startNode(t, e.url(), "-max-users", "20", "-history", "100",
		"-grace", "1s", "-max-streams", "5", "-keepalive", "1s") // each node has its own of these
	mustBeOneLobby(t, first, same)
}

// An etcd that accepts only small requests still gets snapshots, in smaller pieces; old entries are
// removed, and a node that starts later has everything.
func TestEtcdThatAcceptsOnlySmallRequests(t *testing.T) {
	t.Parallel()
	e := newEtcd(t, 1)
	e.flags = []string{"--max-request-bytes", "131072", "--max-txn-ops", "16"}
	e.start(t)
	settings := []string{"-history", "500"} // 2 MB
	nodes := startNodes(t, e, 2, settings...)
	first, _ := e.keys(t, logKeys)
	eventually(t, time.Minute, "the first entry to be removed", func() bool {
		var flooding sync.WaitGroup
		for i := range 80 { // enough for entries of 128 KiB
			flooding.Go(func() { nodes[i%2].mustFlood(t, fmt.Sprint("flood-", i), 15) })
		}
		flooding.Wait()
		keys, _ := e.keys(t, logKeys)
		return !slices.Contains(keys, first[0])
	})
	mustNotHaveStartedOver(t, nodes)
	last, list := nodes[0].lastID(t), nodes[0].do(t, "GET", "/users", "").body
	for _, n := range nodes {
		if printed := n.errs.String(); printed != "" {
			t.Errorf("the node at %s printed %q", n.addr, printed)
		}
		n.kill()
	}
	late := startNode(t, e.url(), settings...)
	if got := late.do(t, "GET", "/users", ""); got.body != list || late.lastID(t) != last {
		t.Errorf("after the restart the last event is %s and the list %.200q, want %s and %.200q",
			late.lastID(t), got.body, last, list)
	}
	if n := len(late.blocksAfter(t, idPlus(t, last, -400), last)); n != 400 {
		t.Errorf("the stream has %d events, want 400", n)
	}
}

// A node that cannot reach etcd says so once, holds no port while it waits, and stops when it is
// told to.
func TestNodeWaitsForEtcd(t *testing.T) {
	t.Parallel()
	e := newEtcd(t, 1)
	waiting, stopped := newNode(t, e.url()), newNode(t, e.url())
	waiting.start(t)
	stopped.start(t)
	time.Sleep(3 * time.Second)
	mustBeClosed(t, waiting, 0)
	stopped.mustStop(t, slack)
	e.start(t)
	waiting.mustServe(t, 1, 3*time.Second+slack)
	waiting.mustHaveWarnedOnce(t)
}

// One of the URLs leads to a different etcd, such as a member that has lost its disk and formed a
// new cluster.
func TestURLOfAnotherClusterIsLeftOut(t *testing.T) {
	t.Parallel()
	e, other := startEtcd(t, 2), startEtcd(t, 1)
	nodes := startNodes(t, e, 1)
	for range 3 { // Each starts with a random URL.
		nodes = append(nodes, startNode(t, other.url()+","+e.url()))
	}
	mustBeOneLobby(t, nodes...)
	for _, n := range nodes[1:] {
		want := other.url() + ": left out, as it belongs to a different etcd cluster than most URLs"
		if got := n.errs.String(); !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("the node at %s printed %q, want %q", n.addr, got, want)
		}
	}
	if keys, _ := other.keys(t, "lobby/"); len(keys) > 0 {
		t.Errorf("the other etcd has the keys %q", keys)
	}
}

func TestLobbiesInOneEtcdAreSeparate(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	var nodes []*node
	var lists []response
	for i, name := range []string{"", "/lobbyx", "/blue/"} {
		n := startNode(t, e.url()+name)
		n.do(t, "POST", fmt.Sprint("/users/user-", i), "")
		nodes, lists = append(nodes, n), append(lists, n.do(t, "GET", "/users", ""))
		if want := fmt.Sprint("Connected users:\nUser: user-", i); lists[i].body != want {
			t.Errorf("the list of %q is %q, want %q", name, lists[i].body, want)
		}
	}
	e.remove(t, "blue/")
	nodes[2].mustServe(t, 2, startLimit)
	mustNotHaveStartedOver(t, nodes[:2])
	nodes[0] = startNode(t, e.url()+"/lobby") // the default name
	for i, n := range nodes[:2] {
		got, want := n.do(t, "GET", "/users", ""), lists[i]
		if got.body != want.body || n.lastID(t) != want.header.Get("Last-Event-ID") {
			t.Errorf("the list is %q at %s, want %q as before", got.body, n.lastID(t), want.body)
		}
	}
}
