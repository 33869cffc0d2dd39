// Here is how a test of several machines finds out whether what happened is one history: clients
// that act at random, followers that read all the time, and how everything must fit together.
package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// actor is a client that makes random operations at one node for as long as that one answers with
// success, and then at the next.
type actor struct {
	name   string // the first part of the names of its users and of its texts
	number int
	nodes  []*server
	at     int // the number of the node that it asks
	random *rand.Rand
	http   http.Client
	guest  string // the user whom nobody else knows, while there is one
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
		o.response = response{body: err.Error()} // with the status 0
	}
	a.done = append(a.done, o)
	if !o.isAnswered() {
		a.at = (a.at + 1) % len(a.nodes)
		time.Sleep(20 * time.Millisecond) // it may be that no node is there
	}
}

// isAnswered reports whether it is known what the operation did.
func (o operation) isAnswered() bool { return o.status >= 200 && o.status < 500 }

// isUnique reports whether nobody else can have made the event that this operation makes.
func (o operation) isUnique() bool {
	return o.kind == "say" || o.kind == "join" && strings.Contains(o.name, "-guest-")
}

// wouldMake returns the data of the event that the operation makes if it succeeds.
func (o operation) wouldMake() string {
	if o.kind == "join" {
		return arrives(o.name)
	}
	return o.name + ": " + o.text
}

// crowd is actors that act at the same time.
type crowd struct {
	actors []*actor
	began  time.Time
	ctx    context.Context // done when they are to stop
	halt   func()
	acting sync.WaitGroup
}

// startCrowd starts so many actors, spread over the nodes, which pause after each operation. They
// end with the test at the latest.
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

// stop lets the actors end what they are doing, and returns all that they did.
func (c *crowd) stop() (done []operation) {
	c.halt()
	c.acting.Wait()
	for _, a := range c.actors {
		done = append(done, a.done...)
	}
	return done
}

// silence returns how long an actor was without a success, at most. The crowd must have stopped.
func (c *crowd) silence() (longest time.Duration) {
	for _, a := range c.actors {
		last := c.began
		for _, o := range a.done {
			if o.isAnswered() {
				longest, last = max(longest, o.end.Sub(last)), o.end
			}
		}
		if n := len(a.done); n > 0 {
			longest = max(longest, a.done[n-1].end.Sub(last))
		}
	}
	return longest
}

// statuses counts the operations by status, which is 0 if there was no answer.
func statuses(operations []operation) map[int]int {
	counts := map[int]int{}
	for _, o := range operations {
		counts[o.status]++
	}
	return counts
}

// mustSucceed fails the test if one of the operations got no answer or an error of the server's.
func mustSucceed(t *testing.T, operations []operation) {
	t.Helper()
	mustHaveNo5xx(t, operations)
	for _, o := range operations {
		if o.status == 0 {
			t.Errorf("%v, of %v: want an answer", o, statuses(operations))
			return
		}
	}
}

// mustHaveNo5xx fails the test if one of the operations got an error of the server's.
func mustHaveNo5xx(t *testing.T, operations []operation) {
	t.Helper()
	for _, o := range operations {
		if o.status >= 500 {
			t.Errorf("%v, of %v: want no 5xx", o, statuses(operations))
			return
		}
	}
}

// mustBeClear fails the test if an operation got an error of the server's that is not 503 or 504 as
// the contract has them.
func mustBeClear(t *testing.T, operations []operation) {
	t.Helper()
	const unknown = "It is not known yet whether this happened; a stream will tell."
	for _, o := range operations {
		switch {
		case o.status < 500:
		case !o.isError(503) && !(o.isError(504) && strings.TrimSuffix(o.body, "\n") == unknown):
			t.Errorf("%v with %v: want 503 or 504 as the contract has them", o, o.header)
			return
		default:
			o.mustAskToRetry(t)
		}
	}
}

// mustBeOneHistory fails the test unless all nodes have the same events, from the first of the
// epoch on, and these are what the operations say. It returns the events.
func mustBeOneHistory(t *testing.T, nodes []*node, operations []operation) []event {
	t.Helper()
	mustSay := func() string {
		nodes[0].do(t, "POST", "/users/auditor", "")
		r := nodes[0].do(t, "POST", "/chat/auditor", "that is all")
		if r.status != 200 {
			t.Fatalf("say: got %d %q, want 200", r.status, r.body)
		}
		return r.header.Get("Last-Event-ID")
	}
	last := mustSay()
	epoch := epochOf(last)
	var texts []string
	for _, n := range nodes {
		texts = append(texts, n.rawAfter(t, epoch+"-0", last))
		if texts[0] != texts[len(texts)-1] {
			at := 0
			for at < min(len(texts[0]), len(texts[len(texts)-1])) &&
				texts[0][at] == texts[len(texts)-1][at] {
				at++
			}
			from := max(0, at-200)
			t.Fatalf("the streams of %s and %s differ:\n%.400s\n-----\n%.400s", nodes[0].addr, n.addr,
				texts[0][from:], texts[len(texts)-1][from:])
		}
	}
	var events []event
	reader := sseReader{r: bufio.NewReader(strings.NewReader(texts[0]))}
	for {
		e, err := reader.next()
		if err != nil {
			break
		}
		events = append(events, e)
	}
	mustFollow(t, epoch, 1, events)
	mustComeAndGo(t, events)
	if want := numberOf(epoch, last); len(events) != want {
		t.Fatalf("the streams have %d events, want %d", len(events), want)
	}
	mustExplain(t, epoch, events, operations)
	return events
}

// mustComeAndGo fails the test unless, from the first event of an epoch on, only those who are not
// there arrive, and only those who are there speak and leave.
func mustComeAndGo(t *testing.T, events []event) {
	t.Helper()
	users := map[string]bool{}
	for _, e := range events {
		name, _, speaks := strings.Cut(e.data, ": ")
		if !speaks {
			name, _, _ = strings.Cut(strings.TrimPrefix(e.data, "User "), " ")
		}
		if comes := e.data == arrives(name); users[name] == comes {
			t.Fatalf("%+v, and the user was there: %v", e, users[name])
		}
		fold(users, e.data)
	}
}

// rawAfter returns, as they stand, the blocks of a stream of all events after the id first, up to
// the one with the id last. Comments are left out, and the opening block, which must be no gap.
func (n *node) rawAfter(t *testing.T, first, last string) string {
	t.Helper()
	st := n.subscribe(t, "/chat/auditor?lastEventId="+first)
	defer st.body.Close()
	defer st.closeAfter(time.Minute)()
	st.mustOpen(t)
	var all strings.Builder
	for block := ""; ; {
		line, err := st.r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: after %d bytes of the history: %v", n.addr, all.Len(), err)
		}
		if block += line; line != "\n" {
			continue
		}
		if !strings.HasPrefix(block, ":") {
			all.WriteString(block)
		}
		if strings.HasPrefix(block, "id: "+last+"\n") {
			return all.String()
		}
		block = ""
	}
}

// mustExplain fails the test unless the events, which begin with the first of the epoch, are what
// the operations say: each change that was answered with success is the event that the answer
// names, each list is what the events up to the one that it names add up to, what was refused is
// nowhere, nothing is there twice, and the order is that of real time.
func mustExplain(t *testing.T, epoch string, events []event, operations []operation) {
	t.Helper()
	times := map[string]int{} // how often there is an event with that data
	for _, e := range events {
		times[e.data]++
	}
	at := make([][]operation, len(events)+1) // by the number of the event that the answer names
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
				t.Fatalf("%v: its event is there %d times", o, n)
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
			err := error(nil)
			if o.kind != "list" {
				err = o.check(users, data)
			} else if o.body != list { // or it has been checked
				err, list = o.check(users, data), o.body
			}
			if err != nil {
				t.Fatalf("%v: %v", o, err)
			}
		}
		if made > 1 {
			t.Fatalf("event %d was made by more than one of %v", n, operations)
		}
	}
	mustKeepRealTime(t, epoch, answered)
}

// follower is a client that reads a stream all the time. When its stream ends, it resumes at the
// next node from the last id that it got.
type follower struct {
	name  string
	nodes []*server
	hops  *rand.Rand // nil, or it leaves each stream after 0.1 to 1 s by itself
	http  http.Client

	ctx     context.Context
	halt    func()
	reading sync.WaitGroup
	mu      sync.Mutex // of what follows
	lastID  string
	seen    []sighting
	opened  int    // streams
	at      string // the address of the node that it has a stream of; empty between two streams
	ends    []ending
}

// sighting is an event that a follower got, gaps included, and when.
type sighting struct {
	event
	at time.Time
}

// ending is how a stream ended that the follower did not leave by itself.
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

// follow starts a follower, first at the first of the nodes, and waits until it has a stream. It
// ends with the test at the latest.
func follow(t *testing.T, name string, nodes ...*node) *follower {
	t.Helper()
	f := &follower{name: name, nodes: servers(nodes)}
	f.start(t)
	return f
}

func (f *follower) start(t *testing.T) {
	t.Helper()
	f.http.Transport = &http.Transport{ResponseHeaderTimeout: 20 * time.Second}
	f.ctx, f.halt = context.WithCancel(context.Background())
	f.reading.Go(func() {
		for at := 0; f.ctx.Err() == nil; at++ {
			server := f.nodes[at%len(f.nodes)]
			err := f.read(server)
			if err != io.EOF && err != context.DeadlineExceeded {
				select { // it may be that no node is there
				case <-f.ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
		f.http.CloseIdleConnections()
	})
	t.Cleanup(f.stop)
	eventually(t, 10*time.Second+slack, "the stream of "+f.name, func() bool { return f.streams() > 0 })
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
		if reader.lastID != "" { // the opening block's too, which has no data
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

// streams returns how many streams the follower has had so far.
func (f *follower) streams() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened
}

// isAt reports whether the follower has a stream of s.
func (f *follower) isAt(s *server) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at == s.addr
}

// endings returns how the follower's streams at s ended so far.
func (f *follower) endings(s *server) (ends []ending) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.ends {
		if e.node == s.addr {
			ends = append(ends, e)
		}
	}
	return ends
}

// sightingOf waits until the follower has got an event with that data since then, and returns it.
func (f *follower) sightingOf(
	t *testing.T, data string, since time.Time, limit time.Duration,
) (found sighting) {
	t.Helper()
	checked := 0 // of what was seen
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

// mustHaveRead waits until the follower has got the last of the events, which begin with the first
// of the epoch, stops it, and fails the test unless it got each since its first once, in order,
// without a gap.
func (f *follower) mustHaveRead(t *testing.T, events []event) {
	t.Helper()
	last := events[len(events)-1]
	eventually(t, 10*time.Second+slack, f.name+" to read "+last.id, func() bool {
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
			t.Fatalf("%s, over %d streams, got %+v as number %d of its events, want %+v",
				f.name, f.opened, s.event, i, want[min(i, len(want)-1)])
		}
	}
	if len(f.seen) != len(want) {
		t.Fatalf("%s got %d events, want %d", f.name, len(f.seen), len(want))
	}
}

// count returns how many of the events have that data.
func count(events []event, data string) (n int) {
	for _, e := range events {
		if e.data == data {
			n++
		}
	}
	return n
}

// mustHaveStayed fails the test unless the followers have read all events, and none is about their
// coming and going but one arrival each.
func mustHaveStayed(t *testing.T, events []event, followers ...*follower) {
	t.Helper()
	for _, f := range followers {
		f.mustHaveRead(t, events)
		mustBeNoNews(t, events, f.name)
	}
}

// mustHaveLivedOnce fails the test unless each node is in its first life and each follower has its
// first stream.
func mustHaveLivedOnce(t *testing.T, nodes []*node, followers ...*follower) {
	t.Helper()
	for i, n := range nodes {
		if n.lives() != 1 {
			t.Errorf("node %d has had %d lives, want 1", i, n.lives())
		}
	}
	for _, f := range followers {
		if f.streams() != 1 {
			t.Errorf("%s has had %d streams, want 1", f.name, f.streams())
		}
	}
}

// mustBeNoNews fails the test unless the user arrived once and never left.
func mustBeNoNews(t *testing.T, events []event, user string) {
	t.Helper()
	came, left := count(events, arrives(user)), count(events, leaves(user))
	if came != 1 || left != 0 {
		t.Errorf("%s came %d times and left %d times, want one arrival alone", user, came, left)
	}
}
