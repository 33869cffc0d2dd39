// Here belongs that several nodes are one lobby while many clients act, read and move about, and
// nothing breaks.
package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// longHistory lets a test read all that happened in it.
var longHistory = []string{"-history", "1000000"}

func TestThreeNodesAreOneLobbyUnderLoad(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3, longHistory...)
	followers := followEach(t, nodes)
	crowd := startCrowd(t, "user", nodes, 24, 0)
	time.Sleep(10 * time.Second)
	operations := crowd.stop()
	mustSucceed(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	t.Logf("%d operations, %d events", len(operations), len(events))
}

// Whoever moves from node to node, as browsers behind a load balancer do, misses nothing, and is no
// news to anyone.
func TestStreamsHopBetweenNodesWithoutNoise(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, startEtcd(t, 3), 3, longHistory...)
	still := follow(t, "still", nodes[0])
	var hoppers []*follower
	seed := seed(t)
	for i := range 60 {
		f := &follower{
			name: fmt.Sprint("hopper-", i), hops: rand.New(rand.NewPCG(seed, uint64(i))),
			nodes: servers(slices.Concat(nodes[i%3:], nodes[:i%3])),
		}
		f.start(t)
		hoppers = append(hoppers, f)
	}
	crowd := startCrowd(t, "user", nodes, 6, 20*time.Millisecond)
	time.Sleep(10 * time.Second)
	operations := crowd.stop()
	mustSucceed(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	still.mustHaveRead(t, events)
	streams := 0
	mustHaveStayed(t, events, hoppers...)
	for _, f := range hoppers {
		streams += f.opened
	}
	if streams < 60*8 {
		t.Errorf("60 hoppers had only %d streams", streams)
	}
	t.Logf("%d streams, %d events", streams, len(events))
}

// A stream that is resumed on a node which has not come as far as its id waits there. That is no
// gap.
func TestResumeWaitsOnANodeThatLags(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	here := startNode(t, e)
	gates := newGates(t, e)
	there := newNode(t, urls(gates))
	there.start(t)
	there.mustServe(t, 1, 10*time.Second+slack)
	here.do(t, "POST", "/users/alice", "")
	for n := range 3 {
		makeAll(gates, trouble{holds: everything})
		text := fmt.Sprint("news ", n)
		id := here.do(t, "POST", "/chat/alice", text).header.Get("Last-Event-ID")
		opened := make(chan *stream, 1)
		begin := time.Now()
		go func() {
			st, err := there.trySubscribe("/chat/alice", "Last-Event-ID", id)
			if err != nil {
				t.Error(err)
			}
			opened <- st
		}()
		select {
		case st := <-opened:
			t.Fatalf("got a stream at %s while the node knew nothing of %s",
				st.header.Get("Last-Event-ID"), id)
		case <-time.After(time.Second):
		}
		makeAll(gates, trouble{})
		st := <-opened
		if st == nil {
			return
		}
		st.mustOpen(t)
		if st.lastID != id {
			t.Errorf("the stream begins at %s, want %s", st.lastID, id)
		}
		here.do(t, "POST", "/chat/alice", "more "+text)
		st.expectRun(t, "alice: more "+text)
		st.body.Close()
		t.Logf("the stream was there after %v", time.Since(begin))
	}
	if lives := there.lives(); lives != 1 {
		t.Errorf("the node has had %d lives, want 1", lives)
	}
}
