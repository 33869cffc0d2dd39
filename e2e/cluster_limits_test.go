// Tests what a lobby on several machines rejects: too many users, different settings, invalid URLs,
// and what others write into its keys.
package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"regexp"
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
	nodes[1].subscribe(t, "/chat/streamer").mustOpen(t) // a stream's own user is always admitted
	nodes[2].do(t, "DELETE", "/users/streamer", "")
	for _, o := range joins {
		if o.status == 201 {
			nodes[0].do(t, "DELETE", "/users/"+o.name, "")
			break
		}
	}
	if r := nodes[1].do(t, "POST", "/users/one-more", ""); r.status != 201 {
		t.Errorf("got %d %q after a user had left, want 201", r.status, r.body)
	}
}

// A node that is started with settings other than the lobby's says so and exits.
func TestNodesWithOtherSettingsExit(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	first := startNode(t, e.url(), "-history", "100", "-max-users", "20")
	for _, c := range []struct{ flag, line string }{
		{"history", "-history 101 -max-users 20"}, {"history", "-max-users 20"},
		{"max-users", "-history 100 -max-users 21"}, {"max-users", "-history 100"},
	} {
		args := append(strings.Fields(c.line), "-etcd", e.url(), "-addr", "127.0.0.1:0")
		mustExit(t, 1, "-"+c.flag, args...)
	}
	same := startNode(t, e.url(), "-max-users", "20", "-history", "100",
		"-grace", "1s", "-max-streams", "5", "-keepalive", "1s") // each node has its own of these
	mustBeOneLobby(t, first, same)
}

// An etcd, or a proxy in front of it, that accepts only small requests still gets snapshots, in
// smaller pieces; old entries are removed, and a node that starts later has everything.
func TestEtcdThatAcceptsOnlySmallRequests(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, e *etcd) (url string){
		"etcd's limits": func(t *testing.T, e *etcd) string {
			e.flags = []string{"--max-request-bytes", "131072", "--max-txn-ops", "16"}
			e.start(t)
			return e.url()
		},
		"nginx's limit": func(t *testing.T, e *etcd) string { // 1 MB
			e.start(t)
			etcd := *e.members[0].server
			etcd.addr = e.members[0].client
			immediate := nginx.with("proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_buffering off;")
			return immediate.before(t, &etcd).url
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEtcd(t, 1)
			url := prepare(t, e)
			settings := []string{"-history", "500"} // 2 MB
			nodes := []*node{startNode(t, url, settings...), startNode(t, url, settings...)}
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
			late := startNode(t, url, settings...)
			if got := late.do(t, "GET", "/users", ""); got.body != list || late.lastID(t) != last {
				t.Errorf("after the restart the last event is %s and the list %.200q, want %s and %.200q",
					late.lastID(t), got.body, last, list)
			}
			if n := len(late.blocksAfter(t, idPlus(t, last, -400), last)); n != 400 {
				t.Errorf("the stream has %d events, want 400", n)
			}
		})
	}
}

func TestInvalidEtcdURLsAreRejected(t *testing.T) {
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

// Neither etcd's grpc-proxy nor an etcd whose JSON gateway is switched off has what a node needs.
func TestEtcdWithoutAGateway(t *testing.T) {
	t.Parallel()
	e := newEtcd(t, 1)
	e.flags = []string{"--enable-grpc-gateway=false"}
	e.start(t)
	newNode(t, e.url()).mustBeTurnedAway(t, "--enable-grpc-gateway")

	addr := reserve(t)
	launch(t, exec.Command(e.program, "grpc-proxy", "start",
		"--endpoints", e.members[0].client, "--listen-addr", addr))
	eventually(t, startLimit, "the grpc-proxy to listen", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	newNode(t, "http://"+addr).mustBeTurnedAway(t, "grpc-proxy")
}

// All nodes skip what others write into the lobby's keys.
func TestForeignEntriesAreSkipped(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 3)
	nodes := startNodes(t, e, 2, longHistory...)
	watcher := follow(t, "watcher", nodes[0])
	crowd := startCrowd(t, "user", nodes, 6, 10*time.Millisecond)
	entries, _ := e.keys(t, logKeys)
	author, _, _ := strings.Cut(strings.TrimPrefix(entries[0], logKeys), "/")
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
	for i, n := range nodes {
		if warned := strings.Count(n.errs.String(), "\n"); warned > 10 || i < 2 && warned == 0 {
			t.Errorf("node %d printed %d lines, want at most one a second", i, warned)
		}
	}
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
	epochs, colors := map[string]bool{}, []string{"red", "blue", "green"}
	var lobbies [][]*node
	var crowds []*crowd
	for i, name := range []string{"", "/blue/", "/lobbyx"} {
		e.suffix = name
		lobbies = append(lobbies, startNodes(t, e, 2, longHistory...))
		crowds = append(crowds, startCrowd(t, colors[i], lobbies[i], 4, 10*time.Millisecond))
	}
	time.Sleep(2 * time.Second)
	for i, nodes := range lobbies {
		events := finish(t, nodes, crowds[i])
		epochs[epochOf(events[0].id)] = true
		for _, event := range events {
			for other, color := range colors {
				if other != i && strings.Contains(event.data, color) {
					t.Errorf("the %s lobby has %+v", colors[i], event)
				}
			}
		}
	}
	if len(epochs) != len(lobbies) {
		t.Errorf("the epochs are %v, want one for each lobby", epochs)
	}
	e.remove(t, "blue/")
	for _, n := range lobbies[1] {
		n.mustServe(t, 2, startLimit)
	}
	others := slices.Concat(lobbies[0], lobbies[2])
	mustNotHaveStartedOver(t, others)
	for _, n := range others {
		if !epochs[epochOf(n.lastID(t))] {
			t.Errorf("%s changed its epoch when another lobby was emptied", n.addr)
		}
	}
	e.suffix = "" // /lobby is the default name
	named := startNode(t, e.url()+"/lobby", longHistory...)
	mustBeOneLobby(t, append([]*node{named}, lobbies[0]...)...)
}
