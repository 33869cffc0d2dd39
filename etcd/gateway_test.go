package etcd

// What belongs here: an etcd in memory for the tests of this package, and helpers. It consists of
// several members that share one store, and a test can make each of them misbehave. It runs in
// synctest bubbles, over connections in memory.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// change is a put, or a removal, which has no Value.
type change struct {
	kv      keyValue
	removed bool
}

// world is a cluster of members.
type world struct {
	t       *testing.T
	members []*member

	mu        sync.Mutex
	cluster   string // its id
	revision  int64
	compacted int64
	keys      map[string]keyValue
	history   []change
	changed   chan struct{} // closed at the next change
	password  string        // alice's; empty if etcd requires none
	tokens    map[string]bool
	asked     []string      // the path of each request that was served
	watches   int           // number of open watches
	late      time.Duration // of each response, and of each message of a watch
}

// testPiece is the size of a snapshot's pieces in the tests.
const testPiece = 1000

// member is an endpoint.
type member struct {
	world  *world
	conns  chan net.Conn
	closed chan struct{}
	open   []net.Conn // all connections that it has accepted
	down   bool       // whether it refuses connections
	gone   bool       // whether connecting to it never ends
	muted  bool       // whether its watches are silent

	// script, unless nil, handles a request instead of serve, which it may call.
	script func(call *call, serve func())
}

// call is a request to a member.
type call struct {
	path string
	body []byte
	w    http.ResponseWriter
	r    *http.Request
}

// hang waits until the client has disconnected.
func (c *call) hang() { <-c.r.Context().Done() }

// delay waits, unless the client disconnects.
func (c *call) delay(late time.Duration) {
	if late > 0 {
		select {
		case <-time.After(late):
		case <-c.r.Context().Done():
		}
	}
}

// abort closes the connection before the response is complete.
func (c *call) abort() { panic(http.ErrAbortHandler) }

// fail sends an error response as etcd does.
func (c *call) fail(status int, message string) {
	c.w.WriteHeader(status)
	fmt.Fprintf(c.w, `{"error":%q,"code":14,"message":%[1]q}`, message)
}

// inWorld runs test in a bubble with a cluster of n members.
func inWorld(t *testing.T, n int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "1")
		for range n {
			m := &member{world: w, conns: make(chan net.Conn), closed: make(chan struct{})}
			w.members = append(w.members, m)
			server := &http.Server{Handler: m}
			go server.Serve(&listener{m})
			defer server.Close()
		}
		test(t, w)
	})
}

func newWorld(t *testing.T, cluster string) *world {
	return &world{t: t, cluster: cluster, revision: 1, keys: map[string]keyValue{},
		changed: make(chan struct{}), tokens: map[string]bool{}}
}

// listener accepts a member's connections for its http.Server.
type listener struct{ member *member }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.member.conns:
		return conn, nil
	case <-l.member.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error   { close(l.member.closed); return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects to the member whose number is the host of address.
func (w *world) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	i, _ := strconv.Atoi(strings.TrimPrefix(host, "m"))
	m := w.members[i]
	w.mu.Lock()
	down, gone := m.down, m.gone
	w.mu.Unlock()
	if gone {
		select {
		case <-ctx.Done():
		case <-time.After(dialTimeout):
		}
		return nil, errors.New("no connection in time")
	}
	if down {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	select {
	case m.conns <- there:
	case <-m.closed:
		there.Close()
		return nil, net.ErrClosed
	}
	w.set(func() { m.open = append(m.open, there) })
	return here, nil
}

// newLog returns the log of the lobby called lobby, as a new process would open it.
func (w *world) newLog() *Log {
	config := Config{Name: "lobby", dial: w.dial}
	for i := range w.members {
		config.Endpoints = append(config.Endpoints, fmt.Sprintf("http://m%d:2379", i))
	}
	if w.password != "" {
		config.User, config.Password = "alice", w.password
	}
	log := New(config)
	log.maxPiece = testPiece
	w.t.Cleanup(log.http.CloseIdleConnections)
	return log
}

// mustBegin returns a session whose current endpoint is the first member.
func (w *world) mustBegin() *Session {
	w.t.Helper()
	s, err := w.newLog().Begin(w.t.Context(), "settings", Entry{})
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait() // until all members have responded
	s.began.at, s.appender.at, s.saver.at = 0, 0, 0
	return s
}

// set changes the world while requests are being served.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// script sets the script of these members, or of all if there are none.
func (w *world) script(script func(c *call, serve func()), members ...int) {
	w.set(func() {
		for i, m := range w.members {
			if len(members) == 0 || slices.Contains(members, i) {
				m.script = script
			}
		}
	})
}

// limit makes etcd reject pieces and transactions that are larger than this, and counts these
// rejections. (A pointer is longer than the tests' pieces.)
func (w *world) limit(most, operations int) (rejections *atomic.Int64) {
	rejections = new(atomic.Int64)
	w.script(func(c *call, serve func()) {
		var asked transaction
		if c.path == "/v3/kv/txn" {
			asked = decode[transaction](c.body)
		}
		isLarge := func(o operation) bool {
			return o.Put != nil && bytes.Contains(o.Put.Key, []byte("/state/")) && len(o.Put.Value) > most
		}
		switch {
		case slices.ContainsFunc(asked.Success, isLarge):
			rejections.Add(1)
			c.fail(http.StatusBadRequest, "etcdserver: request is too large")
		case len(asked.Success) > operations:
			rejections.Add(1)
			c.fail(http.StatusBadRequest, "etcdserver: too many operations in txn request")
		default:
			serve()
		}
	})
	return rejections
}

// stop makes members close all their connections and refuse new ones.
func (w *world) stop(members ...int) {
	w.set(func() {
		for _, i := range members {
			w.members[i].down = true
			for _, conn := range w.members[i].open {
				conn.Close()
			}
		}
	})
}

// put puts a key as another client would.
func (w *world) put(key, value string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision++
	w.apply(operation{Put: &putRequest{[]byte(key), []byte(value)}})
	w.wake()
	return w.revision
}

// remove removes all keys that begin with prefix, as another client would.
func (w *world) remove(prefix string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision++
	for key := range w.keys {
		if strings.HasPrefix(key, prefix) {
			w.apply(remove([]byte(key)))
		}
	}
	w.wake()
}

// list returns "KEY=VALUE" for each key that begins with prefix, in the order of their last
// changes.
func (w *world) list(prefix string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, kv := range w.find(rangeRequest{Key: []byte(prefix), End: []byte(prefix + "\xff"), SortTarget: "MOD"}).KVs {
		list = append(list, fmt.Sprintf("%s=%s", kv.Key, kv.Value))
	}
	return list
}

// requests returns how many requests with this path were served.
func (w *world) requests(path string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, asked := range w.asked {
		if asked == path {
			n++
		}
	}
	return n
}

func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// find executes a range.
func (w *world) find(r rangeRequest) (a rangeResponse) {
	keys := w.keys
	if r.Revision > 0 {
		keys = map[string]keyValue{}
		for _, change := range w.history {
			if change.kv.Modified <= r.Revision && !change.removed {
				keys[string(change.kv.Key)] = change.kv
			} else if change.kv.Modified <= r.Revision {
				delete(keys, string(change.kv.Key))
			}
		}
	}
	for key, kv := range keys {
		isIn := key == string(r.Key) || r.End != nil && key >= string(r.Key) && key < string(r.End)
		if isIn && kv.Modified >= r.MinModified && (r.MaxModified == 0 || kv.Modified <= r.MaxModified) {
			if r.KeysOnly {
				kv.Value = nil
			}
			a.KVs = append(a.KVs, kv)
		}
	}
	slices.SortFunc(a.KVs, func(a, b keyValue) int {
		if r.SortTarget == "MOD" {
			return cmp.Compare(a.Modified, b.Modified)
		}
		return bytes.Compare(a.Key, b.Key)
	})
	if r.Limit > 0 && len(a.KVs) > r.Limit {
		a.KVs, a.More = a.KVs[:r.Limit], true
	}
	return a
}

// apply executes an operation at the current revision and returns what it read.
func (w *world) apply(o operation) (read rangeResponse) {
	switch {
	case o.Range != nil:
		return w.find(*o.Range)
	case o.Put != nil:
		kv := w.keys[string(o.Put.Key)]
		kv.Key, kv.Value, kv.Modified = o.Put.Key, o.Put.Value, w.revision
		if kv.Version++; kv.Version == 1 {
			kv.Created = w.revision
		}
		w.keys[string(o.Put.Key)] = kv
		w.history = append(w.history, change{kv: kv})
	case o.Delete != nil:
		for _, kv := range w.find(rangeRequest{Key: o.Delete.Key}).KVs {
			delete(w.keys, string(kv.Key))
			w.history = append(w.history, change{keyValue{Key: kv.Key, Modified: w.revision}, true})
		}
	}
	return rangeResponse{}
}

// transact executes a transaction.
func (w *world) transact(t transaction) (a transactionResponse) {
	a.Succeeded = true
	for _, c := range t.Compare {
		kv := w.keys[string(c.Key)]
		a.Succeeded = a.Succeeded && map[string]bool{
			"VERSION": kv.Version == c.Version, "CREATE": kv.Created == c.Created, "MOD": kv.Modified == c.Modified}[c.Target]
	}
	operations := t.Failure
	if a.Succeeded {
		operations = t.Success
	}
	isChange := func(o operation) bool { return o.Put != nil || o.Delete != nil }
	if slices.ContainsFunc(operations, isChange) {
		w.revision++
		defer w.wake()
	}
	for _, o := range operations {
		a.Responses = append(a.Responses, struct {
			Range rangeResponse `json:"response_range"`
		}{w.apply(o)})
	}
	a.Header = header{Cluster: w.cluster, Revision: w.revision}
	return a
}

func (m *member) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c := &call{r.URL.Path, body, rw, r}
	m.world.mu.Lock()
	script, late := m.script, m.world.late
	m.world.mu.Unlock()
	if script != nil {
		script(c, func() { m.serve(c) })
	} else {
		m.serve(c)
	}
	c.delay(late)
}

func (m *member) serve(c *call) {
	w := m.world
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, c.path)
	token := c.r.Header.Get("Authorization")
	switch {
	case w.password != "" && c.path != "/v3/auth/authenticate" && token == "":
		c.fail(http.StatusBadRequest, "etcdserver: user name is empty")
		return
	case token != "" && (w.password == "" || !w.tokens[token]): // as etcd 3.4 does
		c.fail(http.StatusUnauthorized, "etcdserver: invalid auth token")
		return
	}
	var response any
	switch c.path {
	case "/v3/kv/txn":
		t := decode[transaction](c.body)
		if len(t.Success) > 0 && t.Success[0].Range != nil {
			at := t.Success[0].Range.Revision
			if at > 0 && at < w.compacted || at > w.revision {
				c.fail(http.StatusBadRequest, "etcdserver: mvcc: required revision has been compacted")
				return
			}
		}
		response = w.transact(t)
	case "/v3/maintenance/status":
		response = transactionResponse{Header: header{Cluster: w.cluster, Revision: w.revision}}
	case "/v3/kv/compaction":
		w.compacted = decode[struct{ Revision int64 }](c.body).Revision
		response = struct{}{}
	case "/v3/auth/authenticate":
		asked := decode[authentication](c.body)
		if w.password == "" {
			c.fail(http.StatusBadRequest, "etcdserver: authentication is not enabled")
			return
		}
		if asked.Name != "alice" || asked.Password != w.password {
			c.fail(http.StatusBadRequest, "etcdserver: authentication failed, invalid user ID or password")
			return
		}
		token := fmt.Sprint("token", len(w.asked))
		w.tokens[token] = true
		response = authentication{Token: token}
	case "/v3/watch":
		m.watch(c)
		return
	}
	json.NewEncoder(c.w).Encode(response)
}

func decode[T any](body []byte) (value T) {
	if err := json.Unmarshal(body, &value); err != nil {
		panic(err)
	}
	return value
}

// event returns a line of a watch with these keys.
func event(kvs ...keyValue) string {
	var lines []string
	for _, kv := range kvs {
		line, _ := json.Marshal(kv)
		lines = append(lines, `{"kv":`+string(line)+`}`)
	}
	return `{"result":{"header":{"revision":"1"},"events":[` + strings.Join(lines, ",") + "]}}\n"
}

const created = `{"result":{"header":{"revision":"1"},"created":true}}` + "\n"

// say writes and flushes text.
func (c *call) say(text string) {
	io.WriteString(c.w, text)
	c.w.(http.Flusher).Flush()
}

// watch serves a watch until the client disconnects. The caller holds w.mu.
func (m *member) watch(c *call) {
	w := m.world
	w.watches++
	defer func() { w.watches-- }()
	request := decode[struct {
		Create struct {
			Key   []byte `json:"key"`
			End   []byte `json:"range_end"`
			Start int64  `json:"start_revision"`
		} `json:"create_request"`
	}](c.body).Create
	next := request.Start
	line := strings.Replace(created, `{"revision"`, `{"cluster_id":"`+w.cluster+`","revision"`, 1)
	if next <= w.compacted {
		line += fmt.Sprintf(`{"result":{"canceled":true,"compact_revision":"%d"}}`+"\n", w.compacted)
	}
	for {
		var kvs []keyValue
		for _, change := range w.history {
			isIn := bytes.Compare(change.kv.Key, request.Key) >= 0 && bytes.Compare(change.kv.Key, request.End) < 0
			if change.kv.Modified >= next && isIn {
				kvs = append(kvs, change.kv)
			}
		}
		if len(kvs) > 0 {
			line += event(kvs...)
		}
		next = max(next, w.revision+1)
		changed, late := w.changed, w.late
		if m.muted {
			line = ""
		}
		w.mu.Unlock()
		if line != "" {
			c.delay(late)
			c.say(line)
		}
		line = ""
		select {
		case <-changed:
		case <-c.r.Context().Done():
			w.mu.Lock()
			return
		}
		w.mu.Lock()
	}
}

// follow ranges over the entries of s in a new goroutine.
func follow(ctx context.Context, s *Session) follower {
	f := make(follower, 10_000)
	go func() {
		for entry, err := range s.Entries(ctx, nil) {
			f <- item{entry, err}
		}
	}()
	return f
}

// follower delivers what Entries yields.
type follower chan item

type item struct {
	Entry
	err error
}

// next returns the next item. It fails the test if there is none for a minute.
func (f follower) next(t *testing.T) item {
	t.Helper()
	select {
	case item := <-f:
		return item
	case <-time.After(time.Minute):
		t.Fatal("read nothing for a minute")
		return item{}
	}
}

// mustRead fails the test unless these entries follow, each "NODE/NUMBER=TEXT".
func (f follower) mustRead(t *testing.T, want ...string) {
	t.Helper()
	for _, want := range want {
		item := f.next(t)
		if item.err != nil {
			t.Fatalf("the entries ended with %v, want %s", item.err, want)
		}
		got := fmt.Sprintf("%s/%d=%s", item.Node, item.Number, item.Text)
		if item.Damaged {
			got = fmt.Sprintf("%s/%d is damaged", item.Node, item.Number)
		}
		if got != want {
			t.Fatalf("read %s, want %s", got, want)
		}
	}
}

// mustEnd fails the test unless the entries end with want.
func (f follower) mustEnd(t *testing.T, want error) {
	t.Helper()
	if item := f.next(t); !errors.Is(item.err, want) {
		t.Fatalf("read %v, want the end with %v", item, want)
	}
}

// mustTake fails the test unless do takes from least to most of the bubble's time.
func mustTake(t *testing.T, least, most time.Duration, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took < least || took > most {
		t.Errorf("it took %v, want %v to %v", took, least, most)
	}
}

// mustAppend appends an entry and returns its revision.
func mustAppend(t *testing.T, s *Session, node string, number int, text string) int64 {
	t.Helper()
	revision, err := s.Append(t.Context(), node, number, []byte(text))
	if err != nil {
		t.Fatalf("appending %s/%d: %v", node, number, err)
	}
	return revision
}
