// Here are gates, which stand between a node and etcd and make trouble, and what must hold while
// they do: answers are lost, requests are repeated, and connections stand still.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// trouble is what a gate does. The zero value is none.
type trouble struct {
	cut         bool              // there are no connections, and none can be made
	holds       func(string) bool // what has such a path stands still, requests and answers
	delay       time.Duration     // before a request is passed on
	losesEvery  int               // of so many answers to transactions one is lost, if not 0
	repeatAfter time.Duration     // when each transaction is made once more, if not 0
}

func everything(string) bool   { return true }
func watches(path string) bool { return path == "/v3/watch" }
func puts(path string) bool    { return path == "/v3/kv/txn" }

// gate passes requests on to one etcd server.
type gate struct {
	url    string // for nodes, in place of the server's
	target *url.URL
	proxy  *httputil.ReverseProxy

	mu           sync.Mutex // of what follows
	trouble      trouble
	changed      chan struct{} // closed when there is other trouble
	connections  map[net.Conn]bool
	transactions int            // answered so far
	lost         int            // of these answers
	repeating    sync.WaitGroup // transactions that will be made again
	repeated     int            // those that were
}

// newGates puts a gate before each of etcd's servers. The test ends them.
func newGates(t *testing.T, e *etcd) (gates []*gate) {
	t.Helper()
	for _, m := range e.members {
		gates = append(gates, newGate(t, e.scheme+"://"+m.client))
	}
	return gates
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{url: "http://" + listener.Addr().String(), changed: make(chan struct{}),
		connections: map[net.Conn]bool{}}
	if g.target, err = url.Parse(target); err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0)
	transport := &http.Transport{}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(g.target) },
		Transport:      transport,
		FlushInterval:  -1,
		ErrorLog:       quiet,
		ModifyResponse: g.answered,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // the node sees its connection end
		},
	}
	server := &http.Server{Handler: g, ErrorLog: quiet, ConnState: g.connection}
	go server.Serve(listener)
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return g
}

// urls returns what -etcd is to be.
func urls(gates []*gate) string {
	var urls []string
	for _, g := range gates {
		urls = append(urls, g.url)
	}
	return strings.Join(urls, ",")
}

// make changes the trouble. What stood still and no longer has to goes on.
func (g *gate) make(tr trouble) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trouble = tr
	close(g.changed)
	g.changed = make(chan struct{})
	if tr.cut {
		for conn := range g.connections {
			conn.Close()
		}
	}
}

func makeAll(gates []*gate, tr trouble) {
	for _, g := range gates {
		g.make(tr)
	}
}

// now returns the present trouble, and what is closed when it changes.
func (g *gate) now() (trouble, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trouble, g.changed
}

// connection keeps account of the connections.
func (g *gate) connection(conn net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateNew:
		g.connections[conn] = true
		if g.trouble.cut {
			conn.Close()
		}
	case http.StateClosed:
		delete(g.connections, conn)
	}
}

// standStill waits while what has that path is to stand still.
func (g *gate) standStill(ctx context.Context, path string) error {
	for {
		tr, changed := g.now()
		if tr.holds == nil || !tr.holds(path) {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ServeHTTP passes a request on.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // or nobody would notice that the node gives up
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if g.standStill(r.Context(), r.URL.Path) != nil {
		panic(http.ErrAbortHandler)
	}
	if tr, _ := g.now(); tr.delay > 0 {
		select {
		case <-time.After(tr.delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if tr, _ := g.now(); tr.repeatAfter > 0 && puts(r.URL.Path) {
		g.repeatLater(tr.repeatAfter, r, body)
	}
	g.proxy.ServeHTTP(w, r)
}

// repeatLater makes a request to etcd once more.
func (g *gate) repeatLater(delay time.Duration, r *http.Request, body []byte) {
	again := r.Clone(context.Background())
	url := *g.target
	url.Path = r.URL.Path
	again.URL, again.Host, again.RequestURI = &url, "", ""
	again.Body = io.NopCloser(bytes.NewReader(body))
	g.repeating.Add(1)
	time.AfterFunc(delay, func() {
		defer g.repeating.Done()
		resp, err := g.proxy.Transport.RoundTrip(again)
		if err != nil {
			return
		}
		readWhole(resp)
		g.mu.Lock()
		g.repeated++
		g.mu.Unlock()
	})
}

// errLost is why an answer is not passed on.
var errLost = errors.New("the answer is lost")

// answered makes trouble with an answer.
func (g *gate) answered(resp *http.Response) error {
	path, ctx := resp.Request.URL.Path, resp.Request.Context()
	if puts(path) {
		g.mu.Lock()
		g.transactions++
		lost := g.trouble.losesEvery > 0 && g.transactions%g.trouble.losesEvery == 0
		if lost {
			g.lost++
		}
		g.mu.Unlock()
		if lost {
			return errLost
		}
	}
	if err := g.standStill(ctx, path); err != nil {
		return err
	}
	resp.Body = &heldBody{resp.Body, g, ctx, path}
	return nil
}

// heldBody is an answer's body that stands still when the gate says so.
type heldBody struct {
	io.ReadCloser
	gate *gate
	ctx  context.Context
	path string
}

func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if held := b.gate.standStill(b.ctx, b.path); held != nil {
		return 0, held
	}
	return n, err
}

// The gates themselves: each kind of trouble is there, and ends.
func TestGatesMakeTrouble(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	g := newGates(t, e)[0]
	client := http.Client{Transport: &http.Transport{}, Timeout: 500 * time.Millisecond}
	t.Cleanup(client.CloseIdleConnections)
	put := `{"success":[{"request_put":{"key":"YQ==","value":"YQ=="}}]}`
	txn := func() error {
		resp, err := client.Post(g.url+"/v3/kv/txn", "application/json", strings.NewReader(put))
		if err == nil {
			_, err = readWhole(resp)
		}
		return err
	}
	fails := func(n int) (failed int) {
		for range n {
			if txn() != nil {
				failed++
			}
		}
		return failed
	}
	version := func() int {
		answer := string(e.mustAsk(t, "kv/range", keyRange{Key: []byte("a")}))
		_, text, _ := strings.Cut(answer, `"version":"`)
		text, _, _ = strings.Cut(text, `"`)
		version, _ := strconv.Atoi(text)
		return version
	}
	if n := fails(5); n > 0 {
		t.Errorf("%d transactions failed without trouble", n)
	}
	for _, tr := range []trouble{{cut: true}, {holds: puts}, {delay: 2 * time.Second}} {
		g.make(tr)
		if n := fails(2); n < 2 {
			t.Errorf("with %+v %d of 2 transactions failed", tr, n)
		}
		g.make(trouble{})
		if n := fails(1); n > 0 {
			t.Errorf("after %+v a transaction failed", tr)
		}
	}
	before := version()
	g.make(trouble{holds: watches, losesEvery: 5})
	if n := fails(10); n != 2 {
		t.Errorf("%d of 10 answers were lost, want 2", n)
	}
	watch := func() error {
		resp, err := client.Post(g.url+"/v3/watch", "application/json",
			strings.NewReader(`{"create_request":{"key":"YQ=="}}`))
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if watch() == nil {
		t.Error("a watch has begun that was to stand still")
	}
	g.make(trouble{})
	if err := watch(); err != nil {
		t.Errorf("after that, a watch: %v", err)
	}
	g.make(trouble{repeatAfter: time.Millisecond})
	fails(3)
	g.repeating.Wait()
	if puts := version() - before; puts != 16 { // what is lost is only the answer
		t.Errorf("the key was put %d times, want 16", puts)
	}
}

// startGated starts so many nodes, each of which reaches etcd only through gates of its own.
func startGated(t *testing.T, e *etcd, count int) (nodes []*node, gates [][]*gate) {
	t.Helper()
	for range count {
		own := newGates(t, e)
		n := newNode(t, urls(own), longHistory...)
		n.start(t)
		n.mustServe(t, 1, 10*time.Second+slack)
		nodes, gates = append(nodes, n), append(gates, own)
	}
	return nodes, gates
}

// Answers of etcd's get lost on their way, and requests come twice, the second time much later.
// Each change happens once.
func TestAnswersAreLostAndRequestsRepeated(t *testing.T) {
	t.Parallel()
	nodes, gates := startGated(t, startEtcd(t, 3), 3)
	all := slices.Concat(gates...)
	makeAll(all, trouble{losesEvery: 5, repeatAfter: 3 * time.Second})
	followers := followEach(t, nodes)
	crowd := startCrowd(t, "user", nodes, 12, 5*time.Millisecond)
	time.Sleep(8 * time.Second)
	operations := crowd.stop()
	makeAll(all, trouble{})
	mustSucceed(t, operations)
	lost, repeated := 0, 0
	for _, g := range all {
		g.repeating.Wait()
		lost, repeated = lost+g.lost, repeated+g.repeated
	}
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	mustHaveLivedOnce(t, nodes)
	if lost < 20 || repeated < 100 {
		t.Errorf("only %d answers were lost and %d requests repeated", lost, repeated)
	}
	t.Logf("%d operations, %d answers lost, %d requests repeated, silent for %v",
		len(operations), lost, repeated, crowd.silence())
}

// All that a node has sent comes once more when the node is long dead and the others have forgotten
// its name. Nothing happens again.
func TestDeadNodeIsRepeated(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	nodes, gates := startGated(t, e, 1)
	dying, gate := nodes[0], gates[0][0]
	gate.make(trouble{repeatAfter: time.Minute})
	dying.kill()
	dying.restart(t) // so that its very first entry is repeated too
	alive := startNode(t, e, longHistory...)
	guest := dying.subscribe(t, "/chat/guest")
	guest.mustOpen(t)
	dying.do(t, "POST", "/users/alice", "")
	for n := range 20 {
		dying.do(t, "POST", "/chat/alice", fmt.Sprint("message ", n))
	}
	dying.do(t, "DELETE", "/users/alice", "")
	dying.kill()
	gate.make(trouble{})
	known := func() (nodes int) {
		keys, _ := e.keys(t, "lobby")
		for _, key := range keys {
			if strings.HasPrefix(key, "lobby/nodes/") {
				nodes++
			}
		}
		return nodes
	}
	eventually(t, 13*time.Second+slack, "the guest to leave", func() bool {
		return !strings.Contains(alive.do(t, "GET", "/users", "").body, "guest")
	})
	eventually(t, 20*time.Second, "the dead to be forgotten", func() bool {
		alive.mustFlood(t, "carol", 200)
		return known() == 1
	})
	gate.mu.Lock()
	early := gate.repeated
	gate.mu.Unlock()
	if early > 0 {
		t.Errorf("%d requests were repeated before the dead were forgotten", early)
	}
	before := alive.lastID(t)
	gate.repeating.Wait()
	if gate.repeated < 25 {
		t.Errorf("only %d requests were repeated", gate.repeated)
	}
	if after := alive.lastID(t); after != before || known() != 1 {
		t.Errorf("the last event was %s and is %s now, with %d nodes, want 1", before, after, known())
	}
}

// Whatever stands still on the way to all of etcd's servers but one, a node finds that one.
func TestOneWayToEtcdIsEnough(t *testing.T) {
	t.Parallel()
	troubles := []trouble{{holds: watches}, {holds: puts}, {holds: everything}, {cut: true}}
	nodes, gates := startGated(t, startEtcd(t, 3), len(troubles)) // each has a trouble of its own
	followers := followEach(t, nodes)
	crowd := startCrowd(t, "user", nodes, 12, 10*time.Millisecond)
	for good := range 3 {
		time.Sleep(time.Second)
		for i, own := range gates {
			own[good].make(trouble{})
			own[(good+1)%3].make(troubles[i])
			own[(good+2)%3].make(troubles[i])
		}
		time.Sleep(6 * time.Second)
	}
	for _, own := range gates {
		makeAll(own, trouble{})
	}
	operations := crowd.stop()
	mustSucceed(t, operations)
	if silence := crowd.silence(); silence > 5*time.Second+slack {
		t.Errorf("nothing succeeded for %v, want at most 5 s", silence)
	} else {
		t.Logf("%d operations, silent for %v", len(operations), silence)
	}
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	mustHaveLivedOnce(t, nodes)
}

// A node that gets half of what it needs on every way does not hang, tells nothing that is not so,
// and is well again afterwards.
func TestHalfOfEtcdIsNotEnough(t *testing.T) {
	t.Parallel()
	troubles := []trouble{{holds: watches}, {holds: puts}, {delay: 400 * time.Millisecond}}
	e := startEtcd(t, 3)
	well := startNode(t, e, longHistory...)
	ill, gates := startGated(t, e, len(troubles))
	nodes := append([]*node{well}, ill...)
	followers := []*follower{follow(t, "watcher", well)}
	for i, n := range ill {
		followers = append(followers, follow(t, fmt.Sprint("mover-", i), n, well))
	}
	crowd := startCrowd(t, "user", nodes, 12, 10*time.Millisecond)
	time.Sleep(time.Second)
	for i, tr := range troubles {
		makeAll(gates[i], tr)
	}
	time.Sleep(20 * time.Second)
	for _, own := range gates {
		makeAll(own, trouble{})
	}
	for _, n := range ill {
		eventually(t, 13*time.Second+slack, n.addr+" to answer", func() bool {
			r, err := n.request(http.DefaultClient, "GET", "/users", "")
			return err == nil && r.status == 200
		})
	}
	time.Sleep(time.Second)
	operations := crowd.stop()
	mustBeClear(t, operations)
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	for _, o := range operations {
		if took := o.end.Sub(o.begin); took > 14*time.Second+slack {
			t.Errorf("%v took %v", o, took)
		}
	}
	for i, n := range ill {
		t.Logf("with trouble %d: %d lives", i, n.lives())
	}
	t.Logf("statuses %v", statuses(operations))
}
