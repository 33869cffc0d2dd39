// Here belongs what is left when nodes begin and end, when the lobby's log is emptied, restored or
// compacted, and when a node comes fresh to a lobby that is full.
package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A node that comes fresh to a lobby with many users, under load, serves soon, with the same list
// and the same history as the others. Nothing else runs at the same time.
func TestFreshNodeHasEverything(t *testing.T) {
	const users, connections = 100_000, 500
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, "-max-users", "200000")
	var joining sync.WaitGroup
	begin := time.Now()
	for i := range connections {
		joining.Go(func() {
			if err := joinMany(nodes[i%2], i, users/connections); err != nil {
				t.Error(err)
			}
		})
	}
	joining.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d users joined in %v", users, time.Since(begin))
	crowd := startCrowd(t, "user", nodes, 4, 50*time.Millisecond)
	fresh := newNode(t, e.url(), "-max-users", "200000")
	fresh.start(t)
	took := fresh.mustServe(t, 1, 2*time.Second+slack)
	t.Logf("the fresh node serves after %v", took)
	mustSucceed(t, crowd.stop())

	nodes = append(nodes, fresh)
	list := nodes[0].do(t, "GET", "/users", "")
	if strings.Count(list.body, "\n") < users {
		t.Fatalf("the list has only %d bytes", len(list.body))
	}
	nodes[0].do(t, "POST", "/users/auditor", "")
	last := nodes[0].do(t, "POST", "/chat/auditor", "that is all").header.Get("Last-Event-ID")
	oldest := idPlus(t, last, -4096)
	var texts []string
	for _, n := range nodes {
		if r := n.do(t, "GET", "/users", ""); !strings.Contains(r.body, "\nUser: auditor") ||
			strings.Replace(r.body, "\nUser: auditor", "", 1) != list.body {
			t.Errorf("%s has another list", n.addr)
		}
		texts = append(texts, n.rawAfter(t, oldest, last))
		if texts[0] != texts[len(texts)-1] {
			t.Errorf("%s has another history", n.addr)
		}
		tooOld := n.subscribe(t, "/chat/auditor", "Last-Event-ID", idPlus(t, oldest, -1))
		if !tooOld.readOpening(t) {
			t.Errorf("the history of %s is too long", n.addr)
		}
	}
}

// joinMany makes so many users over one connection, many requests at a time.
func joinMany(n *node, series, users int) error {
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		for i := range users {
			io.WriteString(conn, n.text(fmt.Sprintf("POST /users/joined-%d-%d", series, i), ""))
		}
	}()
	answers := bufio.NewReader(conn)
	for range users {
		if r, err := readAnswer(answers); err != nil || r.status != 201 {
			return fmt.Errorf("got %d %q, %v, want 201", r.status, r.body, err)
		}
	}
	return nil
}

// All nodes stop, and start again: the lobby goes on as if nothing had been.
func TestAllNodesAreStoppedAndStarted(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3, longHistory...)
	traveller := follow(t, "traveller", nodes...)
	guest := nodes[0].subscribe(t, "/chat/guest") // who does not come back
	guest.mustOpen(t)
	nodes[1].do(t, "POST", "/users/posted", "")
	var operations []operation
	var last time.Time // when the last life began
	for n, end := range []func(*node){
		func(n *node) { n.stop(t) },
		func(n *node) { n.kill() },
	} {
		crowd := startCrowd(t, fmt.Sprint("life-", n), nodes, 6, 10*time.Millisecond)
		time.Sleep(time.Second)
		operations = append(operations, crowd.stop()...)
		for _, n := range nodes {
			end(n)
		}
		last = time.Now()
		startAll(t, nodes, 10*time.Second+slack)
	}
	left := traveller.sightingOf(t, leaves("guest"), time.Time{}, latest)
	t.Logf("the guest left %v after the last start", left.at.Sub(last))
	mustSucceed(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, traveller)
	mustBeNoNews(t, events, "posted")
}

// Nodes that are all started at once on an empty etcd agree on one epoch.
func TestAllNodesBeginAtOnce(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	for _, lobby := range []string{"", "/a", "/b", "/c"} {
		e.suffix = lobby
		var nodes []*node
		for range 3 {
			nodes = append(nodes, newNode(t, e.url(), longHistory...))
		}
		startAll(t, nodes, 10*time.Second+slack)
		mustBeOneHistory(t, nodes, nil)
		for _, n := range nodes {
			n.stop(t)
		}
	}
}

// When etcd is emptied under running nodes, each begins a new life in a new epoch, and everyone who
// resumes is told of the gap.
func TestEtcdIsEmptiedUnderRunningNodes(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3)
	nodes[0].do(t, "POST", "/users/alice", "")
	before := nodes[0].lastID(t)
	followers := followEach(t, nodes)
	wiped := time.Now()
	e.wipe(t, "lobby")
	for _, n := range nodes {
		n.mustServe(t, 2, 10*time.Second+slack)
	}
	t.Logf("new lives after %v", time.Since(wiped))
	mustBeInNewEpoch(t, nodes, followers, before)
	if list := nodes[0].do(t, "GET", "/users", ""); strings.Contains(list.body, "User: alice\n") {
		t.Errorf("the list is %q, want nobody of before", list.body)
	}
}

// mustBeInNewEpoch fails the test unless the nodes are in one epoch, which is not the one of the id
// before, and the followers have been told by a gap after their streams had a proper end.
func mustBeInNewEpoch(t *testing.T, nodes []*node, followers []*follower, before string) {
	t.Helper()
	for i, f := range followers {
		eventually(t, 10*time.Second+slack, f.name+" to have a gap", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.ContainsFunc(f.seen, func(s sighting) bool {
				return s.name == "gap" && epochOf(s.id) != epochOf(before)
			})
		})
		mustEndProperly(t, []*follower{f}, nodes[i], time.Time{})
	}
	mustSayEverywhere(t, nodes)
	epoch := epochOf(nodes[0].lastID(t))
	if epoch == epochOf(before) {
		t.Errorf("the epoch is still %s", epoch)
	}
	for _, f := range followers {
		f.stop()
		gaps := 0
		for _, s := range f.seen {
			if s.name == "gap" {
				gaps++
			}
		}
		if gaps != 1 {
			t.Errorf("%s had %d gaps, want 1", f.name, gaps)
		}
	}
}

// mustSayEverywhere fails the test unless the nodes are one lobby: what is said at one is read at
// each.
func mustSayEverywhere(t *testing.T, nodes []*node) {
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
		for k, st := range streams {
			for {
				e := st.mustNext(t)
				if e.data == "speaker: "+text {
					if e.id != id {
						t.Errorf("node %d has %+v, and the answer has %s", k, e, id)
					}
					break
				}
			}
			st.body.Close()
		}
	}
}

// A compaction up to the newest revision loses nothing: before a state was saved and after, while
// nodes run and while none does.
func TestCompactionLosesNothing(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, longHistory...)
	traveller := follow(t, "traveller", nodes...)
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
		done := crowd.stop()
		mustSucceed(t, done)
		operations = append(operations, done...)
	}
	saved := func() bool {
		keys, _ := e.keys(t, "lobby")
		return slices.Contains(keys, "lobby/state")
	}
	act(0) // before any state was saved
	if saved() {
		t.Fatal("a state is saved already")
	}
	nodes = append(nodes, startNode(t, e, longHistory...))
	for _, n := range nodes {
		n.stop(t)
	}
	e.compact(t) // while no node runs
	startAll(t, nodes, 10*time.Second+slack)
	act(12)
	eventually(t, 10*time.Second+slack, "a saved state", saved)
	nodes = append(nodes, startNode(t, e, longHistory...))
	for _, n := range nodes {
		n.kill()
	}
	e.compact(t)
	startAll(t, nodes, 10*time.Second+slack)
	act(0)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, traveller)
}

// What a lobby keeps in etcd is bounded: it removes what it has saved.
func TestLobbyRemovesItsOldEntries(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	nodes := startNodes(t, e, 2, "-history", "100")
	for range 4 {
		var flooding sync.WaitGroup
		for i := range 16 { // 8 MiB, which makes two states due
			flooding.Go(func() { nodes[i%2].mustFlood(t, fmt.Sprint("flood-", i), 128) })
		}
		flooding.Wait()
	}
	size := 0
	holds := func() bool {
		keys, _ := e.keys(t, "lobby")
		size = 0
		for _, key := range keys {
			size += len(e.mustAsk(t, "kv/range", keyRange{Key: []byte(key)})) * 3 / 4 // of base64
		}
		return size < 16<<20
	}
	eventually(t, 10*time.Second+slack, "the lobby to keep less than 16 MiB", holds)
	t.Logf("of 32 MiB, %d KiB are left", size>>10)
}

// A restore from a backup that lacks something that nodes have seen begins a new epoch, with the
// users of the backup: also if the same backup is restored again.
func TestBackupIsRestoredUnderRunningNodes(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 3)
	nodes[0].do(t, "POST", "/users/alice", "")
	epochs := []string{epochOf(nodes[0].lastID(t))}
	backup := e.backup(t)
	for round := range 2 {
		for n := range 50 {
			nodes[n%3].do(t, "POST", "/chat/alice", fmt.Sprint("text ", n))
		}
		nodes[0].do(t, "POST", "/users/bob", "")
		before := nodes[0].lastID(t)
		var followers []*follower
		for i, n := range nodes {
			followers = append(followers, follow(t, fmt.Sprintf("follower-%d-of-%d", i, round), n))
		}
		e.restore(t, backup)
		restored := time.Now()
		for _, n := range nodes {
			n.mustServe(t, 2+round, 10*time.Second+slack)
		}
		t.Logf("new lives %v after the restore", time.Since(restored))
		mustBeInNewEpoch(t, nodes, followers, before)
		list := nodes[0].do(t, "GET", "/users", "")
		if !strings.Contains(list.body, "User: alice") || strings.Contains(list.body, "User: bob") {
			t.Errorf("the list is %q, want the backup's", list.body)
		}
		epoch := epochOf(nodes[0].lastID(t))
		if slices.Contains(epochs, epoch) {
			t.Errorf("the epoch is %s again, after %v", epoch, epochs)
		}
		epochs = append(epochs, epoch)
	}
}

// A restore from a backup that has everything changes nothing.
func TestCompleteBackupIsRestored(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, longHistory...)
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	time.Sleep(time.Second)
	operations := crowd.stop()
	mustSucceed(t, operations)
	before := nodes[0].lastID(t)
	for _, n := range nodes {
		n.stop(t)
	}
	e.restore(t, e.backup(t))
	startAll(t, nodes, 10*time.Second+slack)
	events := mustBeOneHistory(t, nodes, operations)
	if epochOf(events[0].id) != epochOf(before) {
		t.Errorf("the epoch is %s, and was %s", epochOf(events[0].id), epochOf(before))
	}
}
