// Tests that hands in a lobby's keys in etcd neither end nodes nor make them differ.
package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// recentEntry returns the key of an entry that is not among the 9 newest ones.
func (e *etcd) recentEntry(t *testing.T) string {
	t.Helper()
	all := prefix(logKeys)
	var answer struct{ KVs []struct{ Key []byte } }
	if err := json.Unmarshal(e.mustAsk(t, "kv/range", map[string]any{
		"key": all.Key, "range_end": all.RangeEnd, "keys_only": true,
		"limit": 10, "sort_order": "DESCEND", "sort_target": "MOD",
	}), &answer); err != nil || len(answer.KVs) < 10 {
		t.Fatalf("got %d entries, %v", len(answer.KVs), err)
	}
	return string(answer.KVs[9].Key)
}

// names returns the names of the nodes that etcd knows.
func (e *etcd) names(t *testing.T) (names []string) {
	t.Helper()
	keys, _ := e.keys(t, nodeKeys)
	for _, key := range keys {
		names = append(names, strings.TrimPrefix(key, nodeKeys))
	}
	return names
}

// Running nodes carry on and save a snapshot at once, long before the log is large enough for one, so
// a node that starts later has everything.
func TestEntriesChangedByHandAreReplacedByASnapshot(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	nodes := startNodes(t, e, 2, longHistory...)
	crowd := startCrowd(t, "user", nodes, 6, 100*time.Millisecond)
	watcher := follow(t, "watcher", nodes[0])
	for _, damage := range []func(key string){
		func(key string) { e.put(t, key, "garbage") },
		func(key string) { e.put(t, key, "") }, // the text of a heartbeat
		func(key string) { e.remove(t, key) },
	} {
		time.Sleep(time.Second)
		damage(e.recentEntry(t))
		nodes = append(nodes, startNode(t, e.url(), longHistory...))
	}
	finish(t, nodes, crowd, watcher)
	mustNotHaveStartedOver(t, nodes)
	const line = "was changed or removed by hand; another snapshot replaces it\n"
	for _, n := range nodes[:2] {
		if !strings.Contains(n.errs.String(), line) {
			t.Errorf("the node at %s printed %q", n.addr, n.errs)
		}
	}
}

// A node whose count was changed starts over at once. Nothing that the node had acknowledged is
// lost, and the other node does not notice.
func TestNodeWhoseNumberWasChangedStartsOver(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	first := startNode(t, e.url(), longHistory...)
	name := e.names(t)[0]
	second := startNode(t, e.url(), longHistory...)
	watcher := follow(t, "watcher", second)
	first.do(t, "POST", "/users/alice", "")
	e.put(t, nodeKeys+name, "garbage")
	first.mustServe(t, 2, 4*time.Second+slack)
	first.mustHaveWarnedOnce(t)
	events := mustBeOneHistory(t, []*node{first, second}, nil)
	mustArriveAndLeave(t, events, "alice", 1, 0)
	mustHaveStayed(t, events, watcher)
	mustNotHaveStartedOver(t, []*node{second})
}

// A stranger puts the keys of a node's next entries. The node removes them and carries on.
func TestKeysOfFutureEntriesStopNoNode(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	nodes := startNodes(t, e, 2, longHistory...)
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	for range 5 {
		for _, name := range e.names(t) {
			entries, _ := e.keys(t, logKeys+name+"/")
			for n := range 200 {
				e.put(t, fmt.Sprint(logKeys, name, "/", len(entries)+1+n), "garbage")
			}
		}
		nodes[0].mustAnswer(t)
	}
	nodes = append(nodes, startNode(t, e.url(), longHistory...))
	finish(t, nodes, crowd)
	mustNotHaveStartedOver(t, nodes)
}

// All nodes skip what others write into the lobby's keys.
func TestForeignEntriesAreSkipped(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, longHistory...)
	watcher := follow(t, "watcher", nodes[0])
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	begin := time.Now()
	author := e.names(t)[0]
	say := strings.Join([]string{"say", "nobody", "hello"}, fieldEnd) + recordEnd
	for _, value := range []string{
		"", "garbage", "\x00\xff\xfe", strings.Repeat("x", 1<<20), recordEnd + fieldEnd + recordEnd,
		author + recordEnd, say, say + say + "garbage",
	} {
		for _, key := range []string{
			"lobby/", "lobby/x", logKeys, logKeys + "x", logKeys + "x/y", logKeys + "stranger/1",
			logKeys + "stranger/7", logKeys + "STRANGER/1", logKeys + author + "/0",
			logKeys + author + "/999999", logKeys + author + "/-1", logKeys + author + "/01",
			logKeys + author + "/99999999999999999999", logKeys + author + "/1/2",
			nodeKeys + "stranger", snapshotKey + "/x/0", "lobby/state/y",
		} {
			e.put(t, key, value)
		}
	}
	e.put(t, "lobbyx/log/a/1", "another lobby's")
	time.Sleep(time.Second)
	nodes = append(nodes, startNode(t, e.url(), longHistory...))
	known := regexp.MustCompile(`^(user-\S+: text \d+ of actor \d+|` +
		`User (user-\S+|watcher|auditor) (dis)?connected [^\n]*|auditor: that is all)$`)
	for _, event := range finish(t, nodes, crowd, watcher) {
		if !known.MatchString(event.data) {
			t.Errorf("the streams have %+v", event)
		}
	}
	mustNotHaveStartedOver(t, nodes)
	most := 1 + int(time.Since(begin).Seconds())
	for i, n := range nodes {
		if warned := strings.Count(n.errs.String(), "\n"); warned > most || i < 2 && warned == 0 {
			t.Errorf("node %d printed %d lines, want at most one a second", i, warned)
		}
	}
}
