// Tests that clients that other people wrote receive every event exactly once, also if they lose
// their connection, and a gap if the server has started over.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	launchdarkly "github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	tmaxmax "github.com/tmaxmax/go-sse"
	"gopkg.in/cenkalti/backoff.v1"
)

func TestClientsReceiveEachEventOnceOrAGap(t *testing.T) {
	t.Parallel()
	for _, c := range clientsOfOthers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			read := c.new(t, c.name)
			lost := "alice: message 050"
			if c.wholeEvents {
				lost = "alice: message 0500\n\n"
			}
			// Bob does not leave meanwhile, and his client receives comments.
			flags := []string{"-grace", "10m", "-keepalive", "200ms"}
			s := start(t, flags...)
			relay := newRelay(t, s.addr, lost)
			bob := read.from(t, relay.url+"/chat/bob")
			bob.expectData(t, arrives("bob"))

			want := []event{s.makes(t, "POST", "/users/alice", "", arrives("alice"))}
			for n := range 1000 {
				want = append(want, s.says(t, "alice", fmt.Sprintf("message %04d", n)))
			}
			await(t, relay.lost, "the connection to be lost")
			relay.down.Store(false)
			bob.expect(t, want...)

			for _, end := range []struct {
				how string
				end func()
			}{
				{"SIGKILL", func() { s.kill() }},
				{"SIGTERM", func() { s.stop(t) }},
			} {
				for len(relay.missed) > 0 {
					<-relay.missed
				}
				end.end()
				await(t, relay.missed, "the client to miss the server after "+end.how)
				s = start(t, append(flags, "-addr", s.addr)...)
				if e := bob.next(t); e.name != "gap" || e.data == "" {
					t.Fatalf("after %s got %+v, want a gap", end.how, e)
				}
				bob.expectData(t, arrives("bob"))
				want := []event{s.makes(t, "POST", "/users/alice", "", arrives("alice"))}
				for n := range 10 {
					text := fmt.Sprintf("message %d\n\n\t  after %s: ¡olé! 🙂", n, end.how)
					want = append(want, s.says(t, "alice", text))
				}
				want = append(want, s.makes(t, "DELETE", "/users/alice", "", leaves("alice")))
				bob.expect(t, want...)
			}
		})
	}
}

// An opening block has an id but no data. A client that takes that id resumes from it. Any other
// client misses the events until it is back, unless its stream has ?lastEventId= in the address.
// docs/clients.md says which clients take the id.
func TestClientsThatLoseTheirConnectionBeforeAnEvent(t *testing.T) {
	t.Parallel()
	for _, c := range clientsOfOthers {
		for _, query := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, with lastEventId: %t", c.name, query), func(t *testing.T) {
				t.Parallel()
				read := c.new(t, c.name)
				s := start(t)
				s.do(t, "POST", "/users/bob", "") // His stream then causes no event.
				id, path := s.lastID(t), "/chat/bob"
				if query {
					path += "?lastEventId=" + id
				}
				relay := newRelay(t, s.addr, "id: "+id+"\n\n")
				bob := read.from(t, relay.url+path)
				await(t, relay.lost, "the connection to be lost")
				missed := s.says(t, "bob", "anyone present?")
				relay.down.Store(false)

				var first event
				eventually(t, time.Minute, "the client to be back", func() bool {
					s.says(t, "bob", "anyone?")
					select {
					case first = <-bob:
						return true
					default:
						return false
					}
				})
				if got, want := first == missed, query || c.takesIDs(t); got != want {
					t.Errorf("got %+v first, which is the missed event: %t, want %t",
						first, got, want)
				}
			})
		}
	}
}

// takesIDs reports whether docs/clients.md says that the version of c used here takes the id of a
// block without data.
func (c otherClient) takesIDs(t *testing.T) bool {
	t.Helper()
	used := readFile(t, "go.mod") + readFile(t, "testdata/node/package.json")
	row := regexp.MustCompile(
		`(?m)^\| ` + regexp.QuoteMeta(c.name) + ` \|[^|]*\| ([0-9.]+) \| (yes|no) \|`)
	for _, fields := range row.FindAllStringSubmatch(readFile(t, "../docs/clients.md"), -1) {
		if strings.Contains(used, fields[1]) {
			return fields[2] == "yes"
		}
	}
	t.Fatalf("docs/clients.md has no row for %s in the version used here", c.name)
	return false
}

// otherClient is a client that other people wrote.
type otherClient struct {
	name string // in docs/clients.md
	new  func(t *testing.T, name string) client

	// wholeEvents tells to cut connections only between events: this client takes the end of a
	// connection for the end of an event, dispatches half an event, and resumes after it.
	wholeEvents bool
}

var clientsOfOthers = []otherClient{
	{name: "eventsource", new: newNodeClient},
	{name: "eventsource-client", new: newNodeClient},
	{name: "launchdarkly-eventsource", new: newNodeClient},
	{name: "launchdarkly/eventsource", new: newLaunchDarklyClient},
	{name: "tmaxmax/go-sse", new: newTmaxmaxClient},
	{name: "r3labs/sse", new: newR3labsClient, wholeEvents: true},
}

// client reads the stream at url until ctx is done, reconnects as often as the other people's
// client does by itself, and dispatches what that client delivers. The error says why it ended
// before ctx was done.
type client func(ctx context.Context, url string, dispatch func(event)) error

// reading has the events of a client at work, and room for all events of a test.
type reading chan event

// from makes the client read the stream at url until the test ends.
func (c client) from(t *testing.T, url string) reading {
	ctx, stop := context.WithCancel(context.Background())
	r, done := make(reading, 2000), make(chan struct{})
	t.Cleanup(func() { stop(); <-done })
	go func() {
		defer close(done)
		err := c(ctx, url, func(e event) {
			select {
			case r <- e:
			case <-ctx.Done():
			}
		})
		if ctx.Err() == nil {
			t.Errorf("the client ended: %v", err)
		}
	}()
	return r
}

// next returns the next event that was dispatched.
func (r reading) next(t *testing.T) event {
	t.Helper()
	select {
	case e := <-r:
		return e
	case <-time.After(time.Minute):
		t.Fatal("the client got nothing for a minute")
		return event{}
	}
}

// expect fails the test unless the next events are those of want.
func (r reading) expect(t *testing.T, want ...event) {
	t.Helper()
	for _, w := range want {
		if got := r.next(t); got != w {
			t.Fatalf("the client got %+v, want %+v", got, w)
		}
	}
}

// expectData fails the test unless the next event is a message with that data.
func (r reading) expectData(t *testing.T, data string) {
	t.Helper()
	if e := r.next(t); e.name != "message" || e.data != data {
		t.Fatalf("the client got %+v, want a message with %q", e, data)
	}
}

// npmPackages returns the folder with testdata/node and the packages that it names, which it
// installs once for all tests.
func npmPackages(t *testing.T) (dir string) {
	t.Helper()
	needs(t, "node")
	needs(t, "npm")
	if out, err := installNPM(); err != nil {
		missing(t, "the npm packages can't be installed: %v\n%s", err, out)
	}
	return nodeDir()
}

func nodeDir() string { return filepath.Join(filepath.Dir(binary), "node") }

var installNPM = sync.OnceValues(func() ([]byte, error) {
	if err := os.CopyFS(nodeDir(), os.DirFS("testdata/node")); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci",
		"--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = nodeDir()
	return npm.CombinedOutput()
})

// newNodeClient returns a client of the npm package name, which runs in its own process.
func newNodeClient(t *testing.T, name string) client {
	script := filepath.Join(npmPackages(t), "client.js")
	return func(ctx context.Context, url string, dispatch func(event)) error {
		node := exec.CommandContext(ctx, "node", script, name, url)
		var stderr bytes.Buffer
		node.Stderr = &stderr
		out, err := node.StdoutPipe()
		if err != nil {
			return err
		}
		if err := node.Start(); err != nil {
			return err
		}
		for decoder := json.NewDecoder(out); ; {
			var e struct{ ID, Name, Data string }
			if err := decoder.Decode(&e); err != nil {
				return fmt.Errorf("%w, %v: %s", err, node.Wait(), &stderr)
			}
			dispatch(event{e.ID, e.Name, e.Data})
		}
	}
}

// newLaunchDarklyClient returns github.com/launchdarkly/eventsource. It also dispatches blocks
// without data, which are not events in the standard.
func newLaunchDarklyClient(*testing.T, string) client {
	return func(ctx context.Context, url string, dispatch func(event)) error {
		goOn := func(error) (result launchdarkly.StreamErrorHandlerResult) { return }
		stream, err := launchdarkly.SubscribeWithURL(
			url, launchdarkly.StreamOptionErrorHandler(goOn))
		if err != nil {
			return err
		}
		defer stream.Close() // does not close Events while an event is on its way
		for {
			select {
			case e := <-stream.Events:
				if e.Data() != "" {
					dispatch(event{e.Id(), e.Event(), e.Data()})
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// newTmaxmaxClient returns github.com/tmaxmax/go-sse. It also dispatches blocks without data.
func newTmaxmaxClient(*testing.T, string) client {
	return func(ctx context.Context, url string, dispatch func(event)) error {
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return err
		}
		connection := tmaxmax.NewConnection(req)
		connection.SubscribeToAll(func(e tmaxmax.Event) {
			if e.Data != "" {
				dispatch(event{e.LastEventID, e.Type, e.Data})
			}
		})
		return connection.Connect()
	}
}

// newR3labsClient returns github.com/r3labs/sse. It also dispatches blocks without data, comments
// among them, and ignores retry.
func newR3labsClient(*testing.T, string) client {
	return func(ctx context.Context, url string, dispatch func(event)) error {
		c := r3labs.NewClient(url)
		c.ReconnectStrategy = backoff.WithContext(backoff.NewExponentialBackOff(), ctx)
		for { // It does not reconnect by itself after the proper end of a stream.
			err := c.SubscribeRawWithContext(ctx, func(e *r3labs.Event) {
				if len(e.Data) > 0 {
					dispatch(event{string(e.ID), string(e.Event), string(e.Data)})
				}
			})
			if err != nil || ctx.Err() != nil {
				return err
			}
		}
	}
}

// relay stands between clients and the server, and cuts the first client's connection in the middle
// of its stream.
type relay struct {
	url    string
	lost   chan struct{} // closed when the connection has been cut
	missed chan struct{} // receives when a client could not reach the server
	down   atomic.Bool   // whether no client can reach the server; set when the connection is cut
}

// newRelay starts a relay to the server at addr. It cuts the first connection as soon as the client
// has been sent the text until. It ends with the test.
func newRelay(t *testing.T, addr, until string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	r := &relay{
		url: "http://" + listener.Addr().String(), lost: make(chan struct{}),
		missed: make(chan struct{}, 1),
	}
	go func() {
		for first := true; ; first = false {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.pass(conn, addr, first, until)
		}
	}()
	return r
}

// pass connects a client with the server at addr, until one of them ends the connection or, if it
// is the first client, it has been sent the text until.
func (r *relay) pass(conn net.Conn, addr string, first bool, until string) {
	defer conn.Close()
	up, err := net.Dial("tcp", addr)
	if err == nil {
		defer up.Close()
	}
	if err != nil || r.down.Load() {
		select {
		case r.missed <- struct{}{}:
		default: // The last one has not been received yet.
		}
		return
	}
	go func() {
		io.Copy(up, conn)
		up.Close()
	}()
	if !first {
		io.Copy(conn, up)
		return
	}
	piece, passed := make([]byte, 32<<10), ""
	for {
		n, err := up.Read(piece)
		if err != nil {
			return
		}
		seen := passed + string(piece[:n])
		if begin := strings.Index(seen, until); begin >= 0 {
			conn.Write(piece[:begin+len(until)-len(passed)])
			r.down.Store(true)
			close(r.lost)
			return
		}
		if _, err := conn.Write(piece[:n]); err != nil {
			return
		}
		passed = seen[max(0, len(seen)-len(until)):]
	}
}
