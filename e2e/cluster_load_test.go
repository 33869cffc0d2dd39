// Tests that several nodes act as one lobby while many clients act, read and move between them and
// nothing fails.
package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// The nodes are linearizable under load. Clients that move from node to node, as browsers behind a
// load balancer do, miss nothing and cause no events.
func TestStreamsMoveBetweenNodesUnnoticed(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	followers, seed := followEach(t, nodes), seed(t)
	for i := range 60 {
		hops := rand.New(rand.NewPCG(seed, uint64(i)))
		followers = append(followers, hop(t, fmt.Sprint("hopper-", i), hops, rotate(nodes, i)...))
	}
	crowd := startCrowd(t, "user", nodes, 24, 5*time.Millisecond)
	time.Sleep(10 * time.Second)
	finish(t, nodes, crowd, followers...)
	streams := 0
	for _, f := range followers {
		streams += f.opened
	}
	if streams < 60*8 {
		t.Errorf("60 clients opened only %d streams", streams)
	}
}

// A stream that is resumed on a node that has not reached its id yet waits until the node has. It
// does not start with a gap.
func TestResumeWaitsForALaggingNode(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	ahead, links := startNode(t, e.url()), newLinks(t, e)
	behind := startNode(t, urls(links))
	ahead.do(t, "POST", "/users/alice", "")
	injectAll(links, fault{stalls: everything})
	id := ahead.do(t, "POST", "/chat/alice", "news").header.Get("Last-Event-ID")
	opened := make(chan *stream, 1)
	go func() {
		st, err := behind.trySubscribe("/chat/alice", "Last-Event-ID", id)
		if err != nil {
			t.Error(err)
		}
		opened <- st
	}()
	select {
	case st := <-opened:
		t.Fatalf("got the stream %+v while the node knew nothing of %s", st, id)
	case <-time.After(time.Second):
	}
	injectAll(links, fault{})
	st := <-opened
	if st == nil {
		return
	}
	defer st.body.Close()
	st.mustOpen(t)
	if st.lastID != id {
		t.Errorf("the stream starts at %s, want %s", st.lastID, id)
	}
	ahead.do(t, "POST", "/chat/alice", "more news")
	st.expectRun(t, "alice: more news")
	mustNotHaveStartedOver(t, []*node{behind})
}
