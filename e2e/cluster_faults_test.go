// Injects faults between nodes and etcd, and tests what holds under them: each test checks that its
// faults occurred.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fault is what a link does wrong. The zero value is nothing.
type fault struct {
	cut         bool                   // connections are closed, and new ones too
	stalls      func(path string) bool // requests and responses with such a path stand still
	delay       time.Duration          // before a request is passed on
	losesEvery  int                    // if not 0, one in that many responses to puts is lost
	repeatAfter time.Duration          // if not 0, each put is sent again after that time
}

func everything(string) bool   { return true }
func watches(path string) bool { return path == "/v3/watch" }
func puts(path string) bool    { return path == "/v3/kv/txn" }

// link is a proxy between a node and one member of etcd.
type link struct {
	url    string // for the node, in place of the member's
	target *url.URL
	proxy  *httputil.ReverseProxy

	mu          sync.Mutex // protects the fields below
	fault       fault
	changed     chan struct{} // closed when the fault changes
	connections map[net.Conn]bool
	puts        int            // transactions with an entry that were answered
	repeating   sync.WaitGroup // puts that will be sent again
	disturbed   bool           // whether a connection was cut, or a request stalled or delayed
	lost        int            // responses
	repeated    int            // puts
}

// newLinks returns a link to each member.
func newLinks(t *testing.T, e *etcd) (links []*link) {
	t.Helper()
	for _, m := range e.members {
		links = append(links, newLink(t, e.scheme+"://"+m.client))
	}
	return links
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{url: "http://" + listener.Addr().String(), changed: make(chan struct{}),
		connections: map[net.Conn]bool{}}
	if l.target, err = url.Parse(target); err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0)
	transport := &http.Transport{}
	l.proxy = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(l.target) },
		Transport:      transport,
		FlushInterval:  -1,
		ErrorLog:       quiet,
		ModifyResponse: l.passResponse,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // closes the node's connection
		},
	}
	server := &http.Server{Handler: l, ErrorLog: quiet, ConnState: l.trackConnection}
	go server.Serve(listener)
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return l
}

// urls returns the value of -etcd.
func urls(links []*link) string {
	var urls []string
	for _, l := range links {
		urls = append(urls, l.url)
	}
	return strings.Join(urls, ",")
}

// inject replaces the link's fault. What stalled because of the old fault goes on.
func (l *link) inject(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
	close(l.changed)
	l.changed = make(chan struct{})
	if f.cut {
		for conn := range l.connections {
			conn.Close()
			l.disturbed = true
		}
	}
}

func injectAll(links []*link, f fault) {
	for _, l := range links {
		l.inject(f)
	}
}

// current returns the link's fault and a channel that is closed when it changes.
func (l *link) current() (fault, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault, l.changed
}

// trackConnection records a connection, or closes it if the link is cut.
func (l *link) trackConnection(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateNew:
		l.connections[conn] = true
		if l.fault.cut {
			conn.Close()
			l.disturbed = true
		}
	case http.StateClosed:
		delete(l.connections, conn)
	}
}

// noteDisturbed notes that a fault stalls or delays a request or a response.
func (l *link) noteDisturbed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disturbed = true
}

func (l *link) wasDisturbed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.disturbed
}

// wait returns when the path does not stall.
func (l *link) wait(ctx context.Context, path string) error {
	for {
		f, changed := l.current()
		if f.stalls == nil || !f.stalls(path) {
			return ctx.Err()
		}
		l.noteDisturbed()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ServeHTTP passes a request on.
func (l *link) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // otherwise the link would not notice that the node closes it
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if l.wait(r.Context(), r.URL.Path) != nil {
		panic(http.ErrAbortHandler)
	}
	if f, _ := l.current(); f.delay > 0 {
		l.noteDisturbed()
		select {
		case <-time.After(f.delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f, _ := l.current(); f.repeatAfter > 0 && puts(r.URL.Path) {
		l.repeatLater(f.repeatAfter, r, body)
	}
	l.proxy.ServeHTTP(w, r)
}

// repeatLater sends a request to etcd again.
func (l *link) repeatLater(delay time.Duration, r *http.Request, body []byte) {
	again := r.Clone(context.Background())
	url := *l.target
	url.Path = r.URL.Path
	again.URL, again.Host, again.RequestURI = &url, "", ""
	again.Body = io.NopCloser(bytes.NewReader(body))
	l.repeating.Add(1)
	time.AfterFunc(delay, func() {
		defer l.repeating.Done()
		resp, err := l.proxy.Transport.RoundTrip(again)
		if err != nil {
			return
		}
		readWhole(resp)
		l.mu.Lock()
		l.repeated++
		l.mu.Unlock()
	})
}

// passResponse passes a response on, or returns an error to lose it.
func (l *link) passResponse(resp *http.Response) error {
	path, ctx := resp.Request.URL.Path, resp.Request.Context()
	if puts(path) {
		l.mu.Lock()
		l.puts++
		loses := l.fault.losesEvery > 0 && l.puts%l.fault.losesEvery == 0
		if loses {
			l.lost++
		}
		l.mu.Unlock()
		if loses {
			return errors.New("the response is lost")
		}
	}
	if err := l.wait(ctx, path); err != nil {
		return err
	}
	resp.Body = &stallingBody{resp.Body, l, ctx, path}
	return nil
}

// stallingBody is the body of a response that stands still while the link stalls.
type stallingBody struct {
	io.ReadCloser
	link *link
	ctx  context.Context
	path string
}

func (b *stallingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if stalled := b.link.wait(b.ctx, b.path); stalled != nil {
		return 0, stalled
	}
	return n, err
}

// linkedNodes returns nodes that the test has yet to start, each with its own links to etcd.
func linkedNodes(t *testing.T, e *etcd, count int) (nodes []*node, links [][]*link) {
	t.Helper()
	for range count {
		own := newLinks(t, e)
		nodes = append(nodes, newNode(t, urls(own), longHistory...))
		links = append(links, own)
	}
	return nodes, links
}

// mustAnswer waits until the node returns the list of users.
func (n *node) mustAnswer(t *testing.T) {
	t.Helper()
	c := n.caller(t)
	eventually(t, 20*time.Second+slack, n.addr+" to answer", func() bool {
		r, err := c.call("GET", "/users", "")
		return err == nil && r.status == 200
	})
}

// When responses of etcd are lost and requests reach it twice, the second time much later, each
// change still happens once.
func TestChangesHappenOnceDespiteLossAndRepetition(t *testing.T) {
	t.Parallel()
	nodes, links := linkedNodes(t, startEtcd(t, 3), 3)
	startAll(t, nodes, startLimit)
	all := slices.Concat(links...)
	injectAll(all, fault{losesEvery: 5, repeatAfter: 3 * time.Second})
	followers := followEach(t, nodes)
	crowd := startCrowd(t, "user", nodes, 12, 5*time.Millisecond)
	time.Sleep(8 * time.Second)
	crowd.stop()
	injectAll(all, fault{})
	lost, repeated := 0, 0
	for _, l := range all {
		l.repeating.Wait()
		lost, repeated = lost+l.lost, repeated+l.repeated
	}
	finish(t, nodes, crowd, followers...)
	mustNotHaveStartedOver(t, nodes)
	if lost < 20 || repeated < 100 {
		t.Errorf("only %d responses were lost and %d requests repeated", lost, repeated)
	}
}

// Whatever is wrong with a node's links to all members of etcd but one, the node finds that one.
func TestOneLinkToEtcdIsEnough(t *testing.T) {
	t.Parallel()
	faults := []fault{{stalls: watches}, {stalls: puts}, {stalls: everything}, {cut: true}}
	nodes, links := linkedNodes(t, startEtcd(t, 3), len(faults)) // each has a fault of its own
	startAll(t, nodes, startLimit)
	followers := followEach(t, nodes)
	crowd := startCrowd(t, "user", nodes, 12, 10*time.Millisecond)
	for good := range 3 {
		time.Sleep(time.Second)
		for i, own := range links {
			own[good].inject(fault{})
			own[(good+1)%3].inject(faults[i])
			own[(good+2)%3].inject(faults[i])
		}
		time.Sleep(6 * time.Second)
	}
	for _, own := range links {
		injectAll(own, fault{})
		if !slices.ContainsFunc(own, (*link).wasDisturbed) {
			t.Error("the faults of a node have disturbed nothing")
		}
	}
	finish(t, nodes, crowd, followers...)
	crowd.mustSucceedWithin(t, 5*time.Second)
	mustNotHaveStartedOver(t, nodes)
}
