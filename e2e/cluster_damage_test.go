// Tests that hands in a lobby's keys in etcd neither end nodes nor make them differ.
package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// entriesOf returns the keys of the log's entries, in the order in which each node appended them.
func (e *etcd) entriesOf(t *testing.T, node string) []string {
	t.Helper()
	keys, _ := e.keys(t, logKeys+node+"/")
	number := func(key string) int {
		n, err := strconv.Atoi(key[strings.LastIndex(key, "/")+1:])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	slices.SortFunc(keys, func(a, b string) int { return number(a) - number(b) })
	return keys
}

// newestEntry returns the key of the newest entry.
func (e *etcd) newestEntry(t *testing.T) string {
	t.Helper()
	all := prefix(logKeys)
	var answer struct{ KVs []struct{ Key []byte } }
	if err := json.Unmarshal(e.mustAsk(t, "kv/range", map[string]any{
		"key": all.Key, "range_end": all.RangeEnd, "limit": 1, "sort_order": "DESCEND", "sort_target": "MOD",
	}), &answer); err != nil || len(answer.KVs) == 0 {
		t.Fatalf("no entry, %v", err)
	}
	return string(answer.KVs[0].Key)
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

// Running nodes carry on and save a snapshot, so a node that starts later has everything. While no
// node runs, nobody can save one; then the operator lets the lobby go back to its last snapshot.
func TestEntriesChangedByHandAreReplacedByASnapshot(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"", "v3.7.3"} {
		t.Run(version, func(t *testing.T) {
			e := newEtcd(t, 1)
			if version != "" {
				e.program = buildEtcd(t, version)
			}
			e.start(t)
			nodes := startNodes(t, e, 2, longHistory...)
			crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
			watcher := follow(t, "watcher", nodes[0])
			for i, damage := range []func(key string){
				func(key string) { e.put(t, key, "garbage") },
				func(key string) { e.put(t, key, "") }, // the text of a heartbeat
				func(key string) { e.remove(t, key) },
			} {
				time.Sleep(time.Second)
				entries := e.entriesOf(t, e.names(t)[i%2])
				damage(entries[len(entries)/2])
				started := startNode(t, e.url(), longHistory...)
				nodes = append(nodes, started)
				mustBeOneLobby(t, nodes...)
			}
			finish(t, nodes, crowd, watcher)
			mustNotHaveStartedOver(t, nodes)
			for _, n := range nodes[:2] {
				if !strings.Contains(n.errs.String(), "was changed or removed by hand; another snapshot replaces it") {
					t.Errorf("the node at %s printed %q", n.addr, n.errs)
				}
			}

			nodes[0].do(t, "POST", "/users/late", "")
			epoch := epochOf(nodes[0].lastID(t))
			for _, n := range nodes {
				n.stop(t)
			}
			e.remove(t, e.newestEntry(t))
			last := newNode(t, e.url(), longHistory...)
			last.start(t)
			eventually(t, startLimit, "a line about the missing entry", func() bool {
				return strings.Contains(last.errs.String(), "the log in etcd lacks an entry")
			})
			before := len(e.names(t))
			time.Sleep(2 * time.Second)
			if now := len(e.names(t)); now != before || last.starts() > 0 {
				t.Errorf("%d nodes have registered, %d lines", now-before, last.starts())
			}
			last.mustHaveWarnedOnce(t)
			for _, p := range []string{logKeys, nodeKeys, settingsKey} {
				e.remove(t, p)
			}
			last.mustServe(t, 1, startLimit)
			if after := last.lastID(t); epochOf(after) == epoch {
				t.Errorf("the epoch is still %s", epoch)
			}
		})
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
	nodes := []*node{first, second}
	watcher := follow(t, "watcher", second)
	for i, change := range []func(key string){
		func(key string) { e.put(t, key, "garbage") },
		func(key string) { // as if the node had appended another entry
			e.put(t, key, fmt.Sprint(len(e.entriesOf(t, name))+1))
		},
		func(key string) { e.remove(t, key) },
	} {
		known := e.names(t)
		first.do(t, "POST", "/users/alice", "")
		change(nodeKeys + name)
		took := first.mustServe(t, i+2, 4*time.Second+slack)
		t.Logf("after %v: %s", took, first.errs)
		if want := i + 1; strings.Count(first.errs.String(), "\n") != want {
			t.Errorf("it printed %q, want %d lines", first.errs, want)
		}
		mustBeOneLobby(t, nodes...)
		name = slices.DeleteFunc(e.names(t), func(n string) bool { return slices.Contains(known, n) })[0]
	}
	third := startNode(t, e.url(), longHistory...)
	mustBeOneLobby(t, append(nodes, third)...)
	events := mustBeOneHistory(t, append(nodes, third), nil)
	mustArriveAndLeave(t, events, "alice", 1, 0)
	mustHaveStayed(t, events, watcher)
	mustNotHaveStartedOver(t, []*node{second, third})
}

// A stranger puts the keys of a node's next entries. The node removes them and carries on.
func TestKeysOfFutureEntriesStopNoNode(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	nodes := startNodes(t, e, 2, longHistory...)
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	for range 5 {
		for _, name := range e.names(t) {
			next := len(e.entriesOf(t, name)) + 1
			for n := range 200 {
				e.put(t, fmt.Sprint(logKeys, name, "/", next+n), "garbage")
			}
		}
		nodes[0].mustAnswer(t)
	}
	nodes = append(nodes, startNode(t, e.url(), longHistory...))
	finish(t, nodes, crowd)
	mustNotHaveStartedOver(t, nodes)
}
