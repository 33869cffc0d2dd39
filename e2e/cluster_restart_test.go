// Tests what a lobby keeps when nodes start and stop and when its log in etcd is compacted or
// emptied, and what a new node gets.
package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A node that joins a lobby of 100,000 users under load soon serves, with the same list and the
// same history as the others. Nothing else runs at the same time.
func TestNewNodeHasEverything(t *testing.T) {
	const users, connections = 100_000, 500
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, "-max-users", "200000")
	var joining sync.WaitGroup
	for i := range connections {
		joining.Go(func() {
			n := nodes[i%2]
			n.mustRepeat(t, users/connections, func(k int) string {
				return n.text(fmt.Sprintf("POST /users/joined-%d-%d", i, k), "")
			})
		})
	}
	joining.Wait()
	crowd := startCrowd(t, "user", nodes, 4, 50*time.Millisecond)
	late := newNode(t, e.url(), "-max-users", "200000")
	late.start(t)
	late.mustServe(t, 1, 2*time.Second+slack)
	mustSucceed(t, crowd.stop())

	nodes = append(nodes, late)
	nodes[0].do(t, "POST", "/users/auditor", "")
	last := nodes[0].do(t, "POST", "/chat/auditor", "that is all").header.Get("Last-Event-ID")
	oldest := idPlus(t, last, -4096)
	mustHaveSameBlocks(t, nodes, oldest, last)
	list := nodes[0].do(t, "GET", "/users", "").body
	if strings.Count(list, "\n") < users {
		t.Fatalf("the list has only %d bytes", len(list))
	}
	for _, n := range nodes {
		if n.do(t, "GET", "/users", "").body != list {
			t.Errorf("%s has another list", n.addr)
		}
		tooOld := n.subscribe(t, "/chat/auditor", "Last-Event-ID", idPlus(t, oldest, -1))
		if !tooOld.readOpening(t) {
			t.Errorf("the history of %s is too long", n.addr)
		}
	}
}

// When etcd is emptied while nodes run, each starts over in a new epoch, and resuming clients
// receive a gap.
func TestEmptiedLogStartsANewEpoch(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3)
	nodes[0].do(t, "POST", "/users/alice", "")
	before := nodes[0].lastID(t)
	followers := followEach(t, nodes)
	e.remove(t, "lobby/")
	for _, n := range nodes {
		n.mustServe(t, 2, startLimit)
	}
	if list := nodes[0].do(t, "GET", "/users", ""); strings.Contains(list.body, "User: alice\n") {
		t.Errorf("the list is %q, want no user from before", list.body)
	}
	isGap := func(s sighting) bool { return s.name == "gap" }
	for i, f := range followers {
		eventually(t, startLimit, f.name+" to receive a gap", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.ContainsFunc(f.seen, isGap)
		})
		mustEndProperly(t, nodes[i].server, time.Time{}, f)
	}
	mustBeOneLobby(t, nodes...)
	epoch := epochOf(nodes[0].lastID(t))
	if epoch == epochOf(before) {
		t.Errorf("the epoch is still %s", epoch)
	}
	for _, f := range followers {
		f.stop()
		gaps := slices.DeleteFunc(f.seen, func(s sighting) bool { return !isGap(s) })
		if len(gaps) != 1 || epochOf(gaps[0].id) != epoch {
			t.Errorf("%s received the gaps %+v, want one, with an id of the new epoch", f.name, gaps)
		}
	}
}

// mustBeOneLobby fails the test unless streams on all nodes deliver what is said at each node.
func mustBeOneLobby(t *testing.T, nodes ...*node) {
	t.Helper()
	for i, n := range nodes {
		n.do(t, "POST", "/users/speaker", "")
		var streams []*stream
		for _, other := range nodes {
			st := other.subscribe(t, "/chat/speaker", "Last-Event-ID", n.lastID(t))
			st.mustOpen(t)
			streams = append(streams, st)
		}
		text := fmt.Sprint("said at node ", i)
		id := n.do(t, "POST", "/chat/speaker", text).header.Get("Last-Event-ID")
		want := event{id, "message", "speaker: " + text}
		for k, st := range streams {
			e := st.mustNext(t)
			for e.data != want.data {
				e = st.mustNext(t)
			}
			if e != want {
				t.Errorf("node %d has %+v, want %+v", k, e, want)
			}
			st.body.Close()
		}
	}
}

// Whether all nodes are stopped or killed, the lobby continues unchanged once they have restarted.
// Compaction up to the newest revision loses nothing: before and after a snapshot was saved, while
// nodes run and while none does.
func TestNeitherRestartsNorCompactionLoseAnything(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, longHistory...)
	traveler := follow(t, "traveler", nodes...)
	nodes[0].subscribe(t, "/chat/guest").mustOpen(t) // the guest does not come back
	nodes[1].do(t, "POST", "/users/posted", "")
	var operations []operation
	round := 0
	act := func(floods int) {
		t.Helper()
		crowd := startCrowd(t, fmt.Sprint("round-", round), nodes, 6, 10*time.Millisecond)
		round++
		var flooding sync.WaitGroup
		for i := range floods {
			flooding.Go(func() { nodes[i%len(nodes)].mustFlood(t, fmt.Sprint("flood-", i), 128) })
		}
		e.compact(t)
		flooding.Wait()
		e.compact(t)
		operations = append(operations, mustSucceed(t, crowd.stop())...)
	}
	hasSnapshot := func() bool {
		keys, _ := e.keys(t, snapshotKey)
		return slices.Contains(keys, snapshotKey)
	}
	act(0)
	if hasSnapshot() {
		t.Fatal("the lobby has a snapshot already")
	}
	nodes = append(nodes, startNode(t, e.url(), longHistory...))
	for _, n := range nodes {
		n.stop(t)
	}
	e.compact(t)
	startAll(t, nodes, startLimit)
	act(12)
	eventually(t, startLimit, "a snapshot", hasSnapshot)
	nodes = append(nodes, startNode(t, e.url(), longHistory...))
	for _, n := range nodes {
		n.kill()
	}
	e.compact(t)
	startAll(t, nodes, startLimit)
	act(0)
	traveler.sightingOf(t, leaves("guest"), time.Time{}, latest)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, traveler)
	mustArriveAndLeave(t, events, "posted", 1, 0)
}

func TestLobbyRemovesOldEntriesAndDeadNodes(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	nodes := startNodes(t, e, 2, "-history", "100")
	dying, alive := nodes[0], nodes[1]
	dying.subscribe(t, "/chat/guest").mustOpen(t)
	dying.kill()
	eventually(t, latest, "the guest to leave", func() bool {
		return !strings.Contains(alive.do(t, "GET", "/users", "").body, "guest")
	})
	for range 4 {
		var flooding sync.WaitGroup
		for i := range 16 { // 8 MiB; a snapshot is due after 4
			flooding.Go(func() { alive.mustFlood(t, fmt.Sprint("flood-", i), 128) })
		}
		flooding.Wait()
	}
	eventually(t, startLimit, "the lobby to keep one node and less than 16 MiB of 32", func() bool {
		keys, _ := e.keys(t, "lobby/")
		size := 0
		for _, key := range keys {
			size += len(e.mustAsk(t, "kv/range", keyRange{Key: []byte(key)})) * 3 / 4 // of base64
		}
		return size < 16<<20 && len(e.names(t)) == 1
	})
}
