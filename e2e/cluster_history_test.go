// Checks that what many clients do and read on several nodes is one linearizable history: a crowd
// of clients that act at random, followers that read streams, and how all of it must fit together.
package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// longHistory lets a test read everything that happened in it.
var longHistory = []string{"-history", "1000000"}

// actor is a client that makes random operations at one node for as long as they succeed there, and
// then at the next node.
type actor struct {
	name   string // the first part of the names of its users
	number int
	nodes  []*server
	at     int // the index of the node that it asks
	random *rand.Rand
	http   http.Client
	guest  string // the present user whom no other actor knows; empty if there is none
	done   []operation
}

// act makes one operation.
func (a *actor) act() {
	o := operation{name: fmt.Sprintf("%s-%d", a.name, a.random.IntN(12))}
	method, path := "POST", ""
	switch n := a.random.IntN(10); {
	case n < 4:
		o.kind, o.text = "say", fmt.Sprintf("text %d of actor %d", len(a.done), a.number)
		path = "/chat/" + o.name
	case n < 6:
		o.kind, method, path = "list", "GET", "/users"
	case n < 7:
		o.kind = "join"
	case n < 8:
		o.kind, method = "leave", "DELETE"
	case a.guest == "":
		o.kind = "join"
		o.name = fmt.Sprintf("%s-guest-%d-of-%d", a.name, len(a.done), a.number)
		a.guest = o.name
	default:
		o.kind, method, o.name, a.guest = "leave", "DELETE", a.guest, ""
	}
	if path == "" {
		path = "/users/" + o.name
	}
	o.begin = time.Now()
	var err error
	o.response, err = a.nodes[a.at].request(&a.http, method, path, o.text)
	if o.end = time.Now(); err != nil {
		o.response = response{body: err.Error()} // with status 0
	}
	a.done = append(a.done, o)
	if !o.isAnswered() {
		a.at = (a.at + 1) % len(a.nodes)
		time.Sleep(20 * time.Millisecond) // perhaps no node is listening
	}
}

// isAnswered reports whether the response says what the operation did.
func (o operation) isAnswered() bool { return o.status >= 200 && o.status < 500 }

// isUnique reports whether no other operation can have caused the event that this one causes.
func (o operation) isUnique() bool {
	return o.kind == "say" || o.kind == "join" && strings.Contains(o.name, "-guest-")
}

// wouldMake returns the data of the event that the operation causes if it succeeds.
func (o operation) wouldMake() string {
	if o.kind == "join" {
		return arrives(o.name)
	}
	return o.name + ": " + o.text
}

// crowd is a group of actors that act at the same time.
type crowd struct {
	actors []*actor
	began  time.Time
	ctx    context.Context // done when they are to stop
	halt   func()
	acting sync.WaitGroup
}

// startCrowd starts actors that are spread over the nodes and pause after each operation. They stop
// when the test ends, if not earlier.
func startCrowd(
	t *testing.T, name string, nodes []*node, actors int, pause time.Duration,
) *crowd {
	t.Helper()
	c := &crowd{began: time.Now()}
	c.ctx, c.halt = context.WithCancel(context.Background())
	seed := seed(t)
	for i := range actors {
		a := &actor{
			name: name, number: i, nodes: servers(nodes), at: i % len(nodes),
			random: rand.New(rand.NewPCG(seed, uint64(i))),
			http:   http.Client{Transport: &http.Transport{}, Timeout: time.Minute},
		}
		c.actors = append(c.actors, a)
		c.acting.Go(func() {
			for c.ctx.Err() == nil {
				a.act()
				select {
				case <-c.ctx.Done():
				case <-time.After(pause):
				}
			}
			a.http.CloseIdleConnections()
		})
	}
	t.Cleanup(func() { c.stop() })
	return c
}

// servers returns the nodes as servers that clients can ask, even after a restart of their process.
func servers(nodes []*node) (all []*server) {
	for _, n := range nodes {
		all = append(all, n.server)
	}
	return all
}

// stop lets the actors finish their operations and returns all that they made.
func (c *crowd) stop() (done []operation) {
	c.halt()
	c.acting.Wait()
	for _, a := range c.actors {
		done = append(done, a.done...)
	}
	return done
}

// mustSucceedWithin fails the test if an actor went without success for longer than limit. The
// crowd must have stopped.
func (c *crowd) mustSucceedWithin(t *testing.T, limit time.Duration) {
	t.Helper()
	longest := time.Duration(0)
	for _, a := range c.actors {
		last := c.began
		for i, o := range a.done {
			if o.isAnswered() || i == len(a.done)-1 {
				longest, last = max(longest, o.end.Sub(last)), o.end
			}
		}
	}
	t.Logf("at most %v without success", longest)
	if longest > limit+slack {
		t.Errorf("nothing succeeded for %v, want at most %v", longest, limit)
	}
}

// statuses counts the operations by status, which is 0 without a response.
func statuses(operations []operation) map[int]int {
	counts := map[int]int{}
	for _, o := range operations {
		counts[o.status]++
	}
	return counts
}

// mustSucceed fails the test unless each operation has a response below 500 or one of the allowed
// statuses, which are 0, 503 and 504. It returns the operations.
func mustSucceed(t *testing.T, operations []operation, allowed ...int) []operation {
	t.Helper()
	const unknown = "It is not yet known whether this request took effect; a stream will tell."
	for _, o := range operations {
		if o.isAnswered() {
			continue
		}
		if !slices.Contains(allowed, o.status) || o.status != 0 && !o.isError(o.status) ||
			o.status == 504 && strings.TrimSuffix(o.body, "\n") != unknown {
			t.Errorf("%v with %v; the statuses are %v, of those that failed only %v are allowed",
				o, o.header, statuses(operations), allowed)
			break
		}
		if o.status != 0 {
			o.mustAskToRetry(t)
		}
	}
	return operations
}

// finish stops the crowd. It fails the test unless all operations succeeded, the nodes have one
// history that explains them, and each follower has read it and never left. It returns the history.
func finish(t *testing.T, nodes []*node, c *crowd, followers ...*follower) []event {
	t.Helper()
	operations := mustSucceed(t, c.stop())
	events := mustBeOneHistory(t, nodes, operations)
	mustHaveStayed(t, events, followers...)
	t.Logf("%d operations, %d events", len(operations), len(events))
	return events
}

// mustBeOneHistory fails the test unless all nodes have the same events, from the first of the
// epoch on, and these explain the operations. It returns the events.
func mustBeOneHistory(t *testing.T, nodes []*node, operations []operation) []event {
	t.Helper()
	nodes[0].do(t, "POST", "/users/auditor", "")
	r := nodes[0].do(t, "POST", "/chat/auditor", "that is all")
	if r.status != 200 {
		t.Fatalf("say: got %d %q, want 200", r.status, r.body)
	}
	last := r.header.Get("Last-Event-ID")
	epoch := epochOf(last)
	blocks := mustHaveSameBlocks(t, nodes, epoch+"-0", last)
	var events []event
	reader := sseReader{r: bufio.NewReader(strings.NewReader(strings.Join(blocks, "")))}
	for range blocks {
		e, err := reader.next()
		if err != nil {
			t.Fatalf("after %d events of %d blocks: %v", len(events), len(blocks), err)
		}
		events = append(events, e)
	}
	mustFollow(t, epoch, 1, events)
	if want := numberOf(epoch, last); len(events) != want {
		t.Fatalf("the streams have %d events, want %d", len(events), want)
	}
	mustAlternate(t, events)
	mustExplain(t, epoch, events, operations)
	return events
}

// mustHaveSameBlocks returns the blocks of a stream from the event after the id first up to the one
// with the id last, and fails the test unless they are the same on all nodes.
func mustHaveSameBlocks(t *testing.T, nodes []*node, first, last string) (want []string) {
	t.Helper()
	for _, n := range nodes {
		blocks := n.blocksAfter(t, first, last)
		if want == nil {
			want = blocks
		}
		for i, block := range blocks {
			if i >= len(want) || block != want[i] {
				t.Fatalf("block %d of %s is %q, but that of %s is %q",
					i, n.addr, block, nodes[0].addr, want[min(i, len(want)-1)])
			}
		}
	}
	return want
}

// blocksAfter reads a stream from the event after the id first up to the one with the id last, and
// returns its blocks unchanged, except for comments and the opening block, which must not be a gap.
func (n *node) blocksAfter(t *testing.T, first, last string) (blocks []string) {
	t.Helper()
	st := n.subscribe(t, "/chat/auditor?lastEventId="+first)
	defer st.body.Close()
	st.mustOpen(t)
	for {
		block := st.block(t)
		if !strings.HasPrefix(block, ":") {
			blocks = append(blocks, block)
		}
		if strings.HasPrefix(block, "id: "+last+"\n") {
			return blocks
		}
	}
}

// mustAlternate fails the test unless, from the first event of an epoch on, only users who are not
// present arrive, and only users who are present speak and leave.
func mustAlternate(t *testing.T, events []event) {
	t.Helper()
	users := map[string]bool{}
	for _, e := range events {
		name, _, speaks := strings.Cut(e.data, ": ")
		if !speaks {
			name, _, _ = strings.Cut(strings.TrimPrefix(e.data, "User "), " ")
		}
		if arrival := e.data == arrives(name); users[name] == arrival {
			t.Fatalf("%+v happened while the user's presence was %v", e, users[name])
		}
		fold(users, e.data)
	}
}

// mustExplain fails the test unless the events, which begin with the first of the epoch, explain
// the operations. This is linearizability, because each response names the event after which its
// operation took effect: a change that succeeded is the event that its response names, a list is
// what the events up to that one add up to, rejected changes are absent, nothing happened twice,
// and no operation takes less into account than one that had ended before it began.
func mustExplain(t *testing.T, epoch string, events []event, operations []operation) {
	t.Helper()
	times := map[string]int{} // the number of events with that data
	for _, e := range events {
		times[e.data]++
	}
	at := make([][]operation, len(events)+1) // by the number of the event that the response names
	var answered []operation
	for _, o := range operations {
		if o.isUnique() {
			least, most := 0, 0
			switch {
			case o.made() != "":
				least, most = 1, 1
			case !o.isAnswered() && o.status != 503:
				most = 1
			}
			if n := times[o.wouldMake()]; n < least || n > most {
				t.Fatalf("%v: its event occurs %d times", o, n)
			}
		}
		if !o.isAnswered() {
			continue
		}
		n := numberOf(epoch, o.header.Get("Last-Event-ID"))
		if n < 0 || n > len(events) {
			t.Fatalf("%v is not between the first and the last of %d events", o, len(events))
		}
		at[n] = append(at[n], o)
		answered = append(answered, o)
	}
	users, data := map[string]bool{}, ""
	for n, operations := range at {
		if n > 0 {
			data = events[n-1].data
			fold(users, data)
		}
		made, list := 0, ""
		for _, o := range operations {
			if o.made() != "" {
				made++
			}
			if o.kind == "list" && o.body == list {
				continue // its twin has been checked
			}
			if err := o.check(users, data); err != nil {
				t.Fatalf("%v: %v", o, err)
			}
			if o.kind == "list" {
				list = o.body
			}
		}
		if made > 1 {
			t.Fatalf("event %d was caused by more than one of %v", n, operations)
		}
	}
	mustKeepRealTime(t, epoch, answered)
}

// follower is a client that reads a stream. When the stream ends, it resumes at the next node,
// after the last id that it received.
type follower struct {
	name  string
	nodes []*server
	hops  *rand.Rand // if not nil, it leaves each stream after 0.1 to 1 s

	ctx     context.Context
	halt    func()
	reading sync.WaitGroup
	http    http.Client

	mu     sync.Mutex // protects the fields below
	lastID string
	seen   []sighting
	opened int    // the number of streams so far
	at     string // the address of the node that it has a stream from; empty between two streams
	ends   []ending
}

// sighting is an event, or a gap, that a follower received, and when.
type sighting struct {
	event
	at time.Time
}

// ending is the end of a stream that the follower did not leave on its own.
type ending struct {
	node string // its address
	at   time.Time
	err  error // io.EOF if it was a proper end
}

// followEach starts a follower at each of the nodes.
func followEach(t *testing.T, nodes []*node) (followers []*follower) {
	t.Helper()
	for i, n := range nodes {
		followers = append(followers, follow(t, fmt.Sprint("follower-", i), n))
	}
	return followers
}

// follow starts a follower at the first of the nodes and waits until it has a stream.
func follow(t *testing.T, name string, nodes ...*node) *follower {
	t.Helper()
	return hop(t, name, nil, nodes...)
}

// hop is follow for a follower that leaves each stream after a random time, unless hops is nil. It
// stops when the test ends, if not earlier.
func hop(t *testing.T, name string, hops *rand.Rand, nodes ...*node) *follower {
	t.Helper()
	f := &follower{name: name, nodes: servers(nodes), hops: hops}
	f.http.Transport = &http.Transport{ResponseHeaderTimeout: 20 * time.Second}
	f.ctx, f.halt = context.WithCancel(context.Background())
	f.reading.Go(func() {
		for at := 0; f.ctx.Err() == nil; at++ {
			err := f.read(f.nodes[at%len(f.nodes)])
			if err != io.EOF && err != context.DeadlineExceeded {
				select { // perhaps no node is listening
				case <-f.ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
		f.http.CloseIdleConnections()
	})
	t.Cleanup(f.stop)
	eventually(t, startLimit, "the stream of "+f.name, func() bool { return f.streams() > 0 })
	return f
}

// rotate returns the nodes with the i-th first.
func rotate(nodes []*node, i int) []*node {
	i %= len(nodes)
	return slices.Concat(nodes[i:], nodes[:i])
}

// read reads one stream until it ends.
func (f *follower) read(s *server) error {
	ctx, cancel := f.ctx, context.CancelFunc(func() {})
	if f.hops != nil {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(100+f.hops.IntN(900))*time.Millisecond)
	}
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+"/chat/"+f.name, nil)
	if err != nil {
		return err
	}
	if f.lastID != "" {
		req.Header.Set("Last-Event-ID", f.lastID)
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		r, _ := readWhole(resp)
		return fmt.Errorf("%d %q", r.status, r.body)
	}
	f.mu.Lock()
	f.opened++
	f.at = s.addr
	f.mu.Unlock()
	reader := sseReader{r: bufio.NewReader(resp.Body)}
	for {
		e, err := reader.next()
		f.mu.Lock()
		if reader.lastID != "" { // that of the opening block too, which has no data
			f.lastID = reader.lastID
		}
		switch {
		case err == nil:
			f.seen = append(f.seen, sighting{e, time.Now()})
		case ctx.Err() == nil:
			f.ends = append(f.ends, ending{s.addr, time.Now(), err})
			f.at = ""
		}
		f.mu.Unlock()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

func (f *follower) stop() {
	f.halt()
	f.reading.Wait()
}

// streams returns how many streams the follower has had.
func (f *follower) streams() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// isAt reports whether the follower has a stream from s.
func (f *follower) isAt(s *server) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at == s.addr
}

// firstEnd waits until one of the follower's streams from s has ended since then, and returns how
// the first of them ended.
func (f *follower) firstEnd(
	t *testing.T, s *server, since time.Time, limit time.Duration,
) (end ending) {
	t.Helper()
	eventually(t, limit, "a stream of "+f.name+" from "+s.addr+" to end", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := slices.IndexFunc(f.ends, func(e ending) bool {
			return e.node == s.addr && !e.at.Before(since)
		})
		if i >= 0 {
			end = f.ends[i]
		}
		return i >= 0
	})
	return end
}

// mustEndProperly fails the test unless each of the followers has had a stream from s end since
// then, properly.
func mustEndProperly(t *testing.T, s *server, since time.Time, followers ...*follower) {
	t.Helper()
	for _, f := range followers {
		if end := f.firstEnd(t, s, since, slack); end.err != io.EOF {
			t.Errorf("a stream of %s from %s ended with %v, want a proper end", f.name, s.addr, end.err)
		}
	}
}

// sightingOf waits until the follower has received an event with that data since then, and returns
// it.
func (f *follower) sightingOf(
	t *testing.T, data string, since time.Time, limit time.Duration,
) (found sighting) {
	t.Helper()
	checked := 0 // of the events seen
	eventually(t, limit, fmt.Sprintf("%s to read %q", f.name, data), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for ; checked < len(f.seen); checked++ {
			if s := f.seen[checked]; s.data == data && !s.at.Before(since) {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// mustHaveRead waits until the follower has received the last of the events, which begin with the
// first of the epoch, and stops it. It fails the test unless the follower received each event since
// its own first one once, in order, and without a gap.
func (f *follower) mustHaveRead(t *testing.T, events []event) {
	t.Helper()
	last := events[len(events)-1]
	eventually(t, startLimit, f.name+" to read "+last.id, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.seen) > 0 && f.seen[len(f.seen)-1].event == last
	})
	f.stop()
	first := numberOf(epochOf(last.id), f.seen[0].id)
	if first < 1 || first > len(events) {
		t.Fatalf("%s begins with %+v", f.name, f.seen[0])
	}
	want := events[first-1:]
	for i, s := range f.seen {
		if i >= len(want) || s.event != want[i] {
			t.Fatalf("%s, over %d streams, received %+v as event %d, want %+v",
				f.name, f.opened, s.event, i, want[min(i, len(want)-1)])
		}
	}
}

// mustHaveStayed fails the test unless the followers have read all events and have each arrived
// once and never left.
func mustHaveStayed(t *testing.T, events []event, followers ...*follower) {
	t.Helper()
	for _, f := range followers {
		f.mustHaveRead(t, events)
		mustArriveAndLeave(t, events, f.name, 1, 0)
	}
}

// mustArriveAndLeave fails the test unless the user arrived and left that many times.
func mustArriveAndLeave(t *testing.T, events []event, user string, arrivals, departures int) {
	t.Helper()
	came, left := 0, 0
	for _, e := range events {
		switch e.data {
		case arrives(user):
			came++
		case leaves(user):
			left++
		}
	}
	if came != arrivals || left != departures {
		t.Errorf("%s arrived %d times and left %d times, want %d and %d",
			user, came, left, arrivals, departures)
	}
}

// mustNotHaveStartedOver fails the test unless each node has listened without interruption and each
// follower still has its first stream.
func mustNotHaveStartedOver(t *testing.T, nodes []*node, followers ...*follower) {
	t.Helper()
	for i, n := range nodes {
		if n.starts() != 1 {
			t.Errorf("node %d has started %d times, want 1", i, n.starts())
		}
	}
	for _, f := range followers {
		if f.streams() != 1 {
			t.Errorf("%s has had %d streams, want 1", f.name, f.streams())
		}
	}
}
