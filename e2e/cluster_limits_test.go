// Here belongs what a lobby of several machines refuses: too many users, other settings, command
// lines that make no sense, and what others put into its keys.
package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// -max-users holds for all nodes together, also if all are asked at once.
func TestUsersAreLimitedOverAllNodes(t *testing.T) {
	t.Parallel()
	const most = 50
	nodes := startNodes(t, startEtcd(t, 3), 3, "-max-users", fmt.Sprint(most))
	var mu sync.Mutex
	counts := map[int]int{}
	var joining sync.WaitGroup
	for i := range 30 {
		c := nodes[i%3].caller(t)
		joining.Go(func() {
			for n := range 10 {
				r, err := c.call("POST", fmt.Sprintf("/users/user-%d-%d", i, n), "")
				if err != nil {
					t.Error(err)
				}
				if r.status == 503 {
					r.mustAskToRetry(t)
				}
				mu.Lock()
				counts[r.status]++
				mu.Unlock()
			}
		})
	}
	joining.Wait()
	if counts[201] != most || counts[503] != 300-most {
		t.Errorf("got the statuses %v, want %d times 201 and else 503", counts, most)
	}
	for _, n := range nodes {
		if users := strings.Count(n.do(t, "GET", "/users", "").body, "User: "); users != most {
			t.Errorf("the list has %d users, want %d", users, most)
		}
		n.mustBeFull(t, "POST /users/one-more")
	}
	st := nodes[1].subscribe(t, "/chat/streamer") // whom nobody can lock out
	st.mustOpen(t)
	nodes[2].do(t, "DELETE", "/users/streamer", "")
	list := nodes[0].do(t, "GET", "/users", "").body
	_, name, _ := strings.Cut(list, "User: ")
	name, _, _ = strings.Cut(name, "\n")
	nodes[0].do(t, "DELETE", "/users/"+name, "")
	if r := nodes[1].do(t, "POST", "/users/one-more", ""); r.status != 201 {
		t.Errorf("with room for one: got %d, want 201", r.status)
	}
}

// A node that is started with other settings than the lobby's says so and ends.
func TestNodesWithOtherSettingsAreRefused(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	first := startNode(t, e, "-history", "100", "-max-users", "20")
	for _, c := range []struct{ flag, line string }{
		{"history", "-history 101 -max-users 20"}, {"history", "-max-users 20"},
		{"max-users", "-history 100 -max-users 21"}, {"max-users", "-history 100"},
	} {
		args := append(strings.Fields(c.line), "-etcd", e.url(), "-addr", "127.0.0.1:0")
		mustExit(t, 1, "-"+c.flag, args...)
	}
	same := startNode(t, e, "-max-users", "20", "-history", "100",
		"-grace", "1s", "-max-streams", "5", "-keepalive", "1s") // which are each node's own
	mustSayEverywhere(t, []*node{first, same})
}

func TestBadURLsOfEtcdAreRefused(t *testing.T) {
	t.Parallel()
	for _, urls := range []string{
		"", ",", "nonsense", "127.0.0.1:2379", "ftp://127.0.0.1:2379", "http://", "http:///lobby",
		"http://127.0.0.1:x", "http://127.0.0.1:2379/a,http://127.0.0.1:2380/b",
		"http://127.0.0.1:2379/a,http://127.0.0.1:2380", "http://127.0.0.1:2379,",
		"http://127.0.0.1:2379/a b",
	} {
		mustExit(t, 2, "etcd", "-addr", "127.0.0.1:0", "-etcd", urls)
	}
	_, stderr, _ := run(t, "-etcd", "http://joe:secret@127.0.0.1:x")
	if strings.Contains(stderr, "secret") {
		t.Errorf("%q shows the password", stderr)
	}
}

// A node that cannot reach etcd says so once, waits without a port, and ends when it is told to.
func TestNodeWaitsForEtcd(t *testing.T) {
	t.Parallel()
	e := &etcd{program: "etcd", scheme: "http"}
	needs(t, "etcd")
	e.prepare(t, 1)
	n, ended := newNode(t, e.url()), newNode(t, e.url())
	n.start(t)
	ended.start(t)
	time.Sleep(3 * time.Second)
	mustBeClosed(t, n, 0)
	n.mustHaveSaid(t)
	if took, exit := ended.stop(t); exit != nil || took > slack {
		t.Errorf("a node that waits ended with %v after %v, want 0 at once", exit, took)
	}
	e.start(t)
	e.mustWork(t)
	took := n.mustServe(t, 1, 3*time.Second+slack)
	n.mustHaveSaid(t)
	t.Logf("served %v after etcd was there", took)
}

// What others put into the lobby's keys is skipped by all nodes alike.
func TestGarbageInTheLobbysKeysIsSkipped(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, longHistory...)
	watcher := follow(t, "watcher", nodes[0])
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	keys, _ := e.keys(t, "lobby")
	var entry string // some entry's key
	for _, key := range keys {
		if strings.HasPrefix(key, "lobby/log/") {
			entry = key
		}
	}
	author, _, _ := strings.Cut(strings.TrimPrefix(entry, "lobby/log/"), "/")
	if author == "" {
		t.Fatalf("%q have no entry", keys)
	}
	for _, value := range []string{
		"", "garbage", "\x00\xff\xfe", strings.Repeat("x", 1<<20), "\x1e\x1f\x1e", author + "\x1e",
		author + "\x1esay\x1fnobody\x1fhello",
	} {
		for _, key := range []string{
			"", "x", "log/", "log/x", "log/x/y", "log/stranger/1", "log/stranger/7", "log/STRANGER/1",
			"log/" + author + "/0", "log/" + author + "/999999", "log/" + author + "/-1",
			"log/" + author + "/01", "log/" + author + "/99999999999999999999",
			"log/" + author + "/1/2", "nodes/stranger", "state/x/0", "state/y",
		} {
			e.put(t, "lobby/"+key, value)
		}
	}
	e.put(t, "lobbyx/log/a/1", "another lobby's")
	time.Sleep(time.Second)
	fresh := startNode(t, e, longHistory...)
	nodes = append(nodes, fresh)
	operations := crowd.stop()
	mustSucceed(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, watcher)
	known := regexp.MustCompile(`^(user-\S+: text \d+ of actor \d+|` +
		`User (user-\S+|watcher|auditor) (dis)?connected [^\n]*|auditor: that is all)$`)
	for _, e := range events {
		if !known.MatchString(e.data) {
			t.Errorf("%+v is on the streams", e)
		}
	}
	mustHaveLivedOnce(t, nodes)
	for i, n := range nodes {
		if said := strings.Count(n.errs.String(), "\n"); said > 10 || i < 2 && said == 0 {
			t.Errorf("node %d has said %d lines, want one a second at most", i, said)
		}
	}
}

// Lobbies in one etcd know nothing of each other.
func TestLobbiesInOneEtcdAreSeparate(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	var lobbies [][]*node
	for _, name := range []string{"", "/blue/", "/lobbyx"} {
		e.suffix = name
		lobbies = append(lobbies, startNodes(t, e, 2, longHistory...))
	}
	epochs, colours := map[string]bool{}, []string{"red", "blue", "green"}
	var crowds []*crowd
	for i, nodes := range lobbies {
		crowds = append(crowds, startCrowd(t, colours[i], nodes, 4, 10*time.Millisecond))
	}
	time.Sleep(2 * time.Second)
	for i, nodes := range lobbies {
		operations := crowds[i].stop()
		mustSucceed(t, operations)
		events := mustBeOneHistory(t, nodes, operations)
		epochs[epochOf(events[0].id)] = true
		for _, e := range events {
			for other, colour := range colours {
				if other != i && strings.Contains(e.data, colour) {
					t.Errorf("%+v is in the lobby that is %s", e, colours[i])
				}
			}
		}
	}
	if len(epochs) != len(lobbies) {
		t.Errorf("the epochs are %v, want one for each lobby", epochs)
	}
	e.wipe(t, "blue")
	for _, n := range lobbies[1] {
		n.mustServe(t, 2, 10*time.Second+slack)
	}
	for _, n := range slices.Concat(lobbies[0], lobbies[2]) {
		if n.lives() != 1 || !epochs[epochOf(n.lastID(t))] {
			t.Errorf("another lobby was emptied, and %s is in life %d", n.addr, n.lives())
		}
	}
	e.suffix = "" // and the lobby's name in full is the same lobby
	named := newNode(t, e.url()+"/lobby", longHistory...)
	named.start(t)
	named.mustServe(t, 1, 10*time.Second+slack)
	mustSayEverywhere(t, append([]*node{named}, lobbies[0]...))
}
