package main

// The hub, called through its methods, in bubbles of virtual time and beside a model; several hubs
// on one log; and benchmarks of the hub alone. What a command changes is tested in room/, events as
// bytes in chain/, nodes in cluster/, and the whole server over sockets in e2e/.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lobby/chain"
	"lobby/chat"
	"lobby/cluster"
	"lobby/conns"
	"lobby/internal/memlog"
	"lobby/internal/ssetest"
	"lobby/room"
	"lobby/roster"
)

// seed repeats a random test that has failed: go test -run TestHubBehavesLikeTheModel -seed N .
var seed = flag.Uint64("seed", 0, "seed of random tests; 0 picks some")

// seeds returns the seed that the flag gives, or else n random ones.
func seeds(n int) (all []uint64) {
	if *seed != 0 {
		return []uint64{*seed}
	}
	for range n {
		all = append(all, rand.Uint64())
	}
	return all
}

// bubble is a hub in virtual time, and its user.
type bubble struct {
	*testing.T
	hub  *Hub
	ctx  context.Context
	stop func()
	done chan struct{} // closed when Run has returned

	streams []*Stream // closed when the test ends
}

func inBubble(t *testing.T, config Config, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := mustHub(t, config)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		b := &bubble{T: t, hub: hub, ctx: context.Background(), stop: stop, done: make(chan struct{})}
		go func() {
			defer close(b.done)
			hub.Run(ctx)
		}()
		test(b)
		stop()
		for _, stream := range b.streams {
			stream.Close()
		}
		<-b.done
	})
}

func mustHub(t testing.TB, config Config) *Hub {
	t.Helper()
	hub, err := NewHub(config)
	if err != nil {
		t.Fatal(err)
	}
	return hub
}

func (b *bubble) mustJoin(name string) {
	b.Helper()
	if _, _, err := b.hub.Join(b.ctx, chat.UncheckedName(name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bubble) mustLeave(name string) {
	b.Helper()
	if _, err := b.hub.Leave(b.ctx, chat.UncheckedName(name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bubble) mustSay(from, text string) {
	b.Helper()
	if _, err := b.hub.Say(b.ctx, chat.UncheckedName(from), chat.UncheckedText(text)); err != nil {
		b.Fatal(err)
	}
}

// mustOpen opens a stream in the name of a user.
func (b *bubble) mustOpen(name string) *Stream {
	b.Helper()
	_, stream, err := b.hub.Subscribe(b.ctx, chat.UncheckedName(name), "")
	if err != nil {
		b.Fatal(err)
	}
	b.streams = append(b.streams, stream)
	return stream
}

// expectUsers fails the test unless precisely these users are present.
func (b *bubble) expectUsers(want ...string) {
	b.Helper()
	id, got, err := list(b.ctx, b.hub)
	if err != nil || id == (chain.ID{}) || !slices.Equal(got, want) {
		b.Errorf("the users are %q at %v, %v, want %q", got, id, err, want)
	}
}

func list(ctx context.Context, hub *Hub) (id chain.ID, names []string, err error) {
	id, users, err := hub.List(ctx, roster.Text)
	if err != nil {
		return id, nil, err
	}
	defer users.Return()
	body := slices.Concat(slices.Collect(users.Pieces())...)
	for line := range strings.Lines(string(body)) {
		if name, ok := strings.CutPrefix(line, "User: "); ok {
			names = append(names, strings.TrimSuffix(name, "\n"))
		}
	}
	return id, names, nil
}

// suspend makes Run wait, as if the process were suspended, until resume is called.
func (b *bubble) suspend() (resume func()) {
	unbuffered := make(chan room.Result)
	b.hub.leaves <- request[chat.Name]{chat.UncheckedName("nobody"), unbuffered}
	return func() { <-unbuffered }
}

// close closes a stream, and waits until the hub knows.
func (b *bubble) close(stream *Stream) {
	stream.Close()
	synctest.Wait()
}

// read returns what a stream has to read at this moment, and the error that ended it, if it ended.
func (b *bubble) read(stream *Stream) ([]ssetest.Event, error) {
	var p ssetest.Parser
	err := p.ReadNow(stream)
	return p.Events, err
}

// expect fails the test unless a stream has precisely these texts to read at this moment.
func (b *bubble) expect(stream *Stream, want ...string) {
	b.Helper()
	events, _ := b.read(stream)
	if got := ssetest.Texts(events); !slices.Equal(got, want) {
		b.Fatalf("the stream got %q, want %q", got, want)
	}
}

func arrival(name string) string   { return "User " + name + " connected to the chat." }
func departure(name string) string { return "User " + name + " disconnected from the chat." }

func TestUserStaysForTheGracePeriod(t *testing.T) {
	const grace = 5 * time.Second
	for _, c := range []struct {
		name string
		then func(b *bubble) // what happens after alice's only stream has closed
		want []string        // what others receive
	}{
		{name: "until it is over", then: func(b *bubble) { time.Sleep(grace - 1) }},
		{name: "and leaves then", then: func(b *bubble) {
			time.Sleep(grace)
		}, want: []string{departure("alice")}},
		{name: "and is back with a stream", then: func(b *bubble) {
			time.Sleep(grace - 1)
			b.mustOpen("alice")
			time.Sleep(2 * grace)
		}},
		{name: "again after each last stream", then: func(b *bubble) {
			time.Sleep(grace - 1)
			b.close(b.mustOpen("alice"))
			time.Sleep(grace - 1)
		}},
		{name: "again, and leaves then", then: func(b *bubble) {
			time.Sleep(grace - 1)
			b.close(b.mustOpen("alice"))
			time.Sleep(grace)
		}, want: []string{departure("alice")}},
		{name: "which starts over after a removal and an arrival", then: func(b *bubble) {
			b.mustLeave("alice")
			time.Sleep(grace - 1)
			b.close(b.mustOpen("alice"))
			time.Sleep(grace - 1)
		}, want: []string{departure("alice"), arrival("alice")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := DefaultConfig
			config.KeepAlive = time.Hour
			inBubble(t, config, func(b *bubble) {
				bob, alice := b.mustOpen("bob"), b.mustOpen("alice")
				time.Sleep(time.Second)
				b.expect(bob, arrival("bob"), arrival("alice"))
				b.close(alice)
				c.then(b)
				b.expect(bob, c.want...)
			})
		})
	}
}

// A process that was suspended (SIGSTOP, a closed lid) finds its timers due before it has seen who
// has reconnected.
func TestSuspensionDoesNotCountForTheGracePeriod(t *testing.T) {
	const grace = 5 * time.Second
	config := DefaultConfig
	config.KeepAlive = time.Hour
	for _, pause := range []time.Duration{grace + 2*maxLate, time.Minute} {
		inBubble(t, config, func(b *bubble) {
			bob, alice, carol := b.mustOpen("bob"), b.mustOpen("alice"), b.mustOpen("carol")
			time.Sleep(time.Second)
			b.read(bob)
			b.close(alice)
			b.close(carol)

			resume := b.suspend()
			time.Sleep(pause)
			back := make(chan *Stream)
			go func() { back <- b.mustOpen("alice") }()
			resume()
			<-back
			b.expect(bob)
			late := min(pause-grace, grace)
			time.Sleep(late - 1)
			b.expect(bob)
			time.Sleep(time.Nanosecond)
			b.expect(bob, departure("carol"))
			time.Sleep(time.Minute)
			b.expect(bob)
		})
	}
}

// After a suspension, users who leave later have the same grace period as without it.
func TestSuspensionDelaysOnlyExpiriesDuringIt(t *testing.T) {
	const grace, apart = 5 * time.Second, 50 * time.Millisecond
	config := DefaultConfig
	config.KeepAlive = time.Hour
	inBubble(t, config, func(b *bubble) {
		bob := b.mustOpen("bob")
		visit := func(n int) {
			b.close(b.mustOpen(fmt.Sprint(n)))
			time.Sleep(apart)
		}
		const before = int(grace / apart)
		for n := range before {
			visit(n)
		}
		resume := b.suspend()
		time.Sleep(time.Second)
		resume()
		for n := range 2 * before {
			visit(before + n)
		}
		b.read(bob)
		b.close(b.mustOpen("last"))
		time.Sleep(grace - 1)
		events, _ := b.read(bob)
		if slices.Contains(ssetest.Texts(events), departure("last")) {
			t.Error("the last user left before the grace period was over")
		}
		time.Sleep(time.Nanosecond)
		b.expect(bob, departure("last"))
	})
}

func TestGracePeriodsAreBounded(t *testing.T) {
	config := DefaultConfig
	config.Grace = time.Hour
	inBubble(t, config, func(b *bubble) {
		b.mustOpen("bob").Close() // counts once
		bob, alice := chat.UncheckedName("bob"), b.mustOpen("alice")
		alice.Close()
		for range maxExpiries - 2 {
			_, stream, err := b.hub.Subscribe(b.ctx, bob, "")
			if err != nil {
				t.Fatal(err)
			}
			stream.Close()
		}
		b.mustOpen("bob").Close() // ends the first of bob's
		b.expectUsers("alice", "bob")
		time.Sleep(time.Minute)
		b.mustOpen("bob").Close() // ends alice's
		b.expectUsers("bob")
		time.Sleep(time.Hour - 1)
		b.expectUsers("bob") // bob's grace period has not ended with those before it
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		b.expectUsers()
	})
}

func TestReaderThatFallsBehindAsksTheHub(t *testing.T) {
	config := DefaultConfig
	config.KeepAlive = time.Hour
	inBubble(t, config, func(b *bubble) {
		stream := b.mustOpen("alice")
		stream.Next(b.ctx)
		stream.Next(b.ctx) // her arrival, after which the stream stops reading
		var want []string
		for i := range 1000 {
			time.Sleep(time.Second)
			b.mustSay("alice", fmt.Sprint(i))
			want = append(want, fmt.Sprint("alice: ", i))
		}
		b.stop() // Run serves open streams even then
		events, err := b.read(stream)
		if got := ssetest.Texts(events); !slices.Equal(got, want) || err != io.EOF {
			t.Errorf("got %d events and %v, want %d and io.EOF", len(got), err, len(want))
		}
		stream.Close()
	})
}

func TestFiguresCountOnlyIfToldTo(t *testing.T) {
	for _, counts := range []bool{false, true} {
		config := DefaultConfig
		config.Counts = counts
		inBubble(t, config, func(b *bubble) {
			b.mustJoin("alice")
			b.mustSay("alice", "hello")
			b.mustOpen("bob")
			want := Figures{Users: 2, Streams: 1}
			if counts {
				want.Counts = room.Counts{Arrivals: 2, Messages: 1}
			}
			if got, err := b.hub.Figures(); got != want || err != nil {
				b.Errorf("got %+v, %v, want %+v", got, err, want)
			}
			b.stop()
			synctest.Wait()
			if _, err := b.hub.Figures(); err != ErrStopped {
				b.Errorf("after the end got %v", err)
			}
		})
	}
}

func TestStoppingEndsStreamsAfterAllEvents(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		alice, bob := b.mustOpen("alice"), b.mustOpen("bob")
		b.mustSay("alice", "one")
		b.mustSay("alice", "two") // in a batch that is not sealed yet
		b.stop()
		for stream, want := range map[*Stream][]string{
			alice: {arrival("alice"), arrival("bob"), "alice: one", "alice: two"},
			bob:   {arrival("bob"), "alice: one", "alice: two"},
		} {
			if events, err := b.read(stream); err != io.EOF || !slices.Equal(ssetest.Texts(events), want) {
				t.Errorf("a stream got %q and %v, want %q and io.EOF", events, err, want)
			}
		}
		alice.Close()
		synctest.Wait()
		select {
		case <-b.done:
			t.Error("Run has returned though a stream is open")
		default:
		}
		id, _, err := b.hub.Join(b.ctx, chat.UncheckedName("carol"))
		if err != ErrStopped || id != (chain.ID{}) {
			t.Errorf("Join: %v with id %q, want ErrStopped and none", err, id)
		}
		bob.Close()
		<-b.done
		bob.Close() // returns at once
	})
}

func TestCallerWhoseContextEndsChangesNothing(t *testing.T) {
	hub := mustHub(t, DefaultConfig)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id, _, err := hub.Subscribe(ctx, chat.UncheckedName("alice"), "")
	if !errors.Is(err, context.Canceled) || id != (chain.ID{}) {
		t.Errorf("got %v with id %q, want context.Canceled and none", err, id)
	}
	go hub.Run(t.Context())
	id, names, err := list(t.Context(), hub)
	if err != nil || !strings.HasSuffix(id.String(), "-0") || len(names) > 0 {
		t.Errorf("afterwards the users are %v at %v, %v, want nobody and no event", names, id, err)
	}
}

func TestNewHubRejectsSettingsThatMakeNoSense(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"history":     func(c *Config) { c.History = 0 },
		"max users":   func(c *Config) { c.MaxUsers = 0 },
		"max streams": func(c *Config) { c.MaxStreams = -1 },
		"grace":       func(c *Config) { c.Grace = -1 },
		"keep-alive":  func(c *Config) { c.KeepAlive = 0 },
	} {
		config := DefaultConfig
		spoil(&config)
		if _, err := NewHub(config); err == nil {
			t.Errorf("NewHub accepts a config whose %s makes no sense", name)
		}
	}
	least := Config{History: 1, MaxUsers: 1, MaxStreams: 1, Grace: 0, KeepAlive: time.Millisecond}
	inBubble(t, least, func(b *bubble) {
		b.close(b.mustOpen("alice"))
		b.expectUsers() // because there is no grace period
	})
}

// model is the simplest implementation of what a hub should do.
type model struct {
	config Config
	users  map[string]*modelUser
	events []string // the text of each event; the id of events[i] ends in i+1
}

type modelUser struct {
	stays   bool
	streams int       // open ones
	leaves  time.Time // the end of the last grace period
	order   int       // among users who leave at the same time
}

// enter returns the user of that name, adding the user if needed.
func (m *model) enter(name string) *modelUser {
	u := m.users[name]
	if u == nil {
		u = &modelUser{}
		m.users[name] = u
		m.events = append(m.events, arrival(name))
	}
	return u
}

func (m *model) remove(name string) {
	delete(m.users, name)
	m.events = append(m.events, departure(name))
}

// pass removes the users whose grace period is over by now.
func (m *model) pass() {
	names := slices.SortedFunc(maps.Keys(m.users), func(a, b string) int {
		u, v := m.users[a], m.users[b]
		return cmp.Or(u.leaves.Compare(v.leaves), u.order-v.order)
	})
	for _, name := range names {
		u := m.users[name]
		if u.streams == 0 && !u.stays && !u.leaves.After(time.Now()) {
			m.remove(name)
		}
	}
}

// modelStream is a stream, and what it should get.
type modelStream struct {
	*Stream
	user   *modelUser      // whom it keeps present; nil for nobody
	events []ssetest.Event // what it got
	after  int             // the number of the event after which it starts
	gap    bool            // whether it starts with a gap
}

// check fails the test unless the stream got what it should: everything or, if it was closed before
// it was read to the end, the beginning of that.
func (ms *modelStream) check(t *testing.T, m *model, everything bool) {
	t.Helper()
	want := slices.Clone(m.events[ms.after:])
	first := ms.after + 1
	if ms.gap {
		want, first = slices.Insert(want, 0, "(gap)"), ms.after
	}
	if !everything {
		want = want[:min(len(want), len(ms.events))]
	}
	if got := ssetest.Texts(ms.events); !slices.Equal(got, want) {
		t.Fatalf("a stream after %d got %q, want %q", ms.after, got, want)
	}
	for i, e := range ms.events {
		if number(e.ID) != first+i {
			t.Fatalf("event %d has the id %s, want number %d", i, e.ID, first+i)
		}
	}
}

// number returns the number in an id.
func number(id string) int {
	n := -1
	fmt.Sscanf(id[strings.Index(id, "-")+1:], "%d", &n)
	return n
}

// TestHubBehavesLikeTheModel performs random operations on a hub and on a model, and compares every
// result and every event on every stream.
func TestHubBehavesLikeTheModel(t *testing.T) {
	for _, seed := range seeds(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { testModel(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func testModel(t *testing.T, random *rand.Rand) {
	config := Config{History: 30, MaxUsers: 5, MaxStreams: 8, Grace: time.Second, KeepAlive: time.Hour}
	inBubble(t, config, func(b *bubble) {
		m := &model{config: config, users: map[string]*modelUser{}}
		var open []*modelStream
		epoch := ""
		check := func(op string, id chain.ID, got, want any) {
			t.Helper()
			if got != want || number(id.String()) != len(m.events) {
				t.Fatalf("%s: got %v with the id %v, want %v with number %d", op, got, id, want, len(m.events))
			}
			epoch, _, _ = strings.Cut(id.String(), "-")
		}
		catchUp := func() {
			for _, ms := range open {
				events, _ := b.read(ms.Stream)
				ms.events = append(ms.events, events...)
			}
		}
		for step := range 1000 {
			synctest.Wait()
			m.pass()
			name := string(rune('a' + random.IntN(7)))
			switch random.IntN(8) {
			case 0:
				id, isNew, err := b.hub.Join(b.ctx, chat.UncheckedName(name))
				wantNew := m.users[name] == nil
				if wantNew && len(m.users) >= config.MaxUsers {
					check("join", id, err, room.ErrTooManyUsers)
					continue
				}
				m.enter(name).stays = true
				check("join", id, isNew && err == nil, wantNew)
			case 1:
				id, err := b.hub.Leave(b.ctx, chat.UncheckedName(name))
				if m.users[name] == nil {
					check("leave", id, err, room.ErrNotPresent)
					continue
				}
				m.remove(name)
				check("leave", id, err, nil)
			case 2, 3:
				text := fmt.Sprintf("%d\n%s", step, name)
				id, err := b.hub.Say(b.ctx, chat.UncheckedName(name), chat.UncheckedText(text))
				if m.users[name] == nil {
					check("say", id, err, room.ErrNotPresent)
					continue
				}
				m.events = append(m.events, name+": "+text)
				check("say", id, err, nil)
			case 4:
				id, names, err := list(b.ctx, b.hub)
				check("list", id, fmt.Sprint(names), fmt.Sprint(slices.Sorted(maps.Keys(m.users))))
				check("list", id, err, nil)
			case 5:
				ms := &modelStream{after: len(m.events)}
				lastEventID := ""
				if random.IntN(3) > 0 && epoch != "" {
					after := max(0, len(m.events)-config.History-3) + random.IntN(config.History+6)
					lastEventID = fmt.Sprint(epoch, "-", after)
					ms.gap = after > len(m.events) || after < len(m.events)-config.History
					if !ms.gap {
						ms.after = after
					}
				}
				var id chain.ID
				var err error
				isNamed := random.IntN(4) > 0
				if isNamed {
					id, ms.Stream, err = b.hub.Subscribe(b.ctx, chat.UncheckedName(name), lastEventID)
				} else {
					id, ms.Stream, err = b.hub.Watch(b.ctx, lastEventID)
				}
				if len(open) == config.MaxStreams {
					if err != ErrTooManyStreams {
						t.Fatalf("open: got %v, want ErrTooManyStreams", err)
					}
					continue
				}
				if isNamed {
					ms.user = m.enter(name)
					ms.user.streams++
				}
				check("open", id, err, nil)
				open = append(open, ms)
			case 6:
				if len(open) == 0 {
					continue
				}
				catchUp()
				i := random.IntN(len(open))
				ms := open[i]
				open = slices.Delete(open, i, i+1)
				ms.check(t, m, false)
				b.close(ms.Stream)
				if ms.user != nil {
					ms.user.streams--
					ms.user.leaves, ms.user.order = time.Now().Add(config.Grace), step
				}
			case 7:
				time.Sleep(time.Duration(random.IntN(4)) * config.Grace / 3)
				catchUp()
			}
		}
		synctest.Wait()
		m.pass()
		b.stop()
		for _, ms := range open {
			events, err := b.read(ms.Stream)
			if err != io.EOF {
				t.Errorf("a stream ended with %v, want io.EOF", err)
			}
			ms.events = append(ms.events, events...)
			ms.check(t, m, true)
			ms.Close()
		}
	})
}

func TestPendingRequestsFailWhenTheLogIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := mustHub(t, DefaultConfig)
		commands, steps := make(chan room.Command, 10), make(chan room.Step)
		hub.Connect("node", commands, steps, nil)
		go hub.Run(t.Context())
		alice, ctx := chat.UncheckedName("alice"), t.Context()
		pending := []func() error{
			func() error { _, _, err := hub.Join(ctx, alice); return err },
			func() error { _, _, err := list(ctx, hub); return err },
			func() error { _, _, err := hub.Watch(ctx, ""); return err },
			func() error { _, _, err := hub.Subscribe(ctx, alice, ""); return err },
			func() error { _, err := hub.Leave(ctx, alice); return err },
			func() error { _, err := hub.Say(ctx, alice, chat.UncheckedText("hello")); return err },
		}
		errs := make([]error, len(pending))
		for i, request := range pending {
			go func() { errs[i] = request() }()
			<-commands
		}
		steps <- room.End{Unknown: 5}
		synctest.Wait() // Run has returned, since no stream is open.
		want := []error{ErrUnknown, ErrStopped, ErrStopped, ErrUnknown, ErrUnknown, ErrStopped}
		if !slices.Equal(errs, want) {
			t.Errorf("the requests got %v, want %v", errs, want)
		}
	})
}

// machine is a hub that is connected to others through a log.
type machine struct {
	hub     *Hub
	stop    func()
	ended   chan struct{}   // closed when Run has returned
	isCut   atomic.Bool     // whether the machine is cut off from the log
	history []ssetest.Event // since the log began; complete when ended is closed

	steps     chan room.Step
	results   chan room.StepResult
	snapshots chan chan room.Snapshot
}

// startMachine starts a machine, and waits until it is part of the lobby.
func startMachine(t *testing.T, config Config, log *memlog.Log) *machine {
	m := &machine{
		hub:   mustHub(t, config),
		ended: make(chan struct{}),
		steps: make(chan room.Step), results: make(chan room.StepResult, 1),
		snapshots: make(chan chan room.Snapshot),
	}
	view := log.Open()
	view.Delay, view.Cut = func() time.Duration { return rand.N(20 * time.Millisecond) }, m.isCut.Load
	settings := cluster.Settings{History: config.History, MaxUsers: config.MaxUsers}
	node, err := cluster.NewNode(view.Session, view, settings, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	m.hub.Connect(node.Name(), node.Commands(), m.steps, m.results)
	ctx, stop := context.WithCancel(context.Background())
	nodeCtx, stopNode := context.WithCancel(context.Background())
	m.stop = stop
	go node.Run(nodeCtx)
	go func() { m.hub.Run(ctx); stopNode(); close(m.ended) }()
	go m.relay(node)
	<-node.Ready()
	_, stream, err := m.hub.Watch(ctx, "log-0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer stream.Close() // Run does not return before this.
		var p ssetest.Parser
		for {
			data, err := stream.Next(context.Background())
			if err != nil {
				return
			}
			p.Write(data)
			m.history = p.Events
		}
	}()
	return m
}

// relay gives the node's steps to the hub, and takes snapshots between them.
func (m *machine) relay(node *cluster.Node) {
	apply := func(step room.Step) {
		select {
		case m.steps <- step:
		case <-m.ended:
		}
	}
	for {
		select {
		case step := <-node.Steps():
			apply(step)
		case result := <-m.results:
			node.Results() <- result
		case snapshot := <-m.snapshots:
			apply(room.TakeSnapshot{})
			snapshot <- (<-m.results).Snapshot
		case <-m.ended:
			return
		}
	}
}

// state returns the state of the machine as text.
func (m *machine) state() string {
	snapshot := make(chan room.Snapshot)
	m.snapshots <- snapshot
	state, _ := json.Marshal(<-snapshot)
	return string(state)
}

// said is what clients were told of their messages.
type said struct {
	sync.Mutex
	accepted map[string]string // the event's text, by id
	rejected map[string]bool   // the messages that must not have been sent
}

// TestHubsOnOneLogAgree has clients do random things on three machines, which are cut off from the
// log now and then and come back with another node, and compares what everyone has seen.
func TestHubsOnOneLogAgree(t *testing.T) {
	for _, seed := range seeds(2) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testHubsOnOneLog(t, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func testHubsOnOneLog(t *testing.T, random *rand.Rand) {
	const clients = 20
	config := Config{
		History: 1 << 20, MaxUsers: 8, MaxStreams: 50, Grace: 5 * time.Second, KeepAlive: time.Hour,
	}
	log := memlog.New(`{"version":2,"epoch":"log","history":1048576,"maxUsers":8}`)
	var current [3]atomic.Pointer[machine]
	var all []*machine
	start := func(i int) {
		current[i].Store(startMachine(t, config, log))
		all = append(all, current[i].Load())
	}
	for i := range current {
		start(i)
	}
	said := said{accepted: make(map[string]string), rejected: make(map[string]bool)}
	var acting sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		anyHub := func() *Hub { return current[random.IntN(len(current))].Load().hub }
		acting.Go(func() { act(t, client, random, anyHub, &said) })
	}
	for range 12 {
		time.Sleep(time.Duration(random.IntN(10_000)) * time.Millisecond)
		i := random.IntN(len(current))
		m := current[i].Load()
		m.isCut.Store(true)
		time.Sleep(time.Duration(random.IntN(15_000)) * time.Millisecond)
		m.isCut.Store(false)
		time.Sleep(time.Second)
		select {
		case <-m.ended:
			start(i)
		default:
		}
	}
	acting.Wait()
	all = append(all, mustRestore(t, config, log, current[0].Load(), current[1].Load(), current[2].Load()))
	for _, m := range all {
		m.stop()
		<-m.ended
	}
	longest := slices.MaxFunc(all, func(a, b *machine) int { return len(a.history) - len(b.history) }).history
	for i, m := range all {
		if !slices.Equal(m.history, longest[:len(m.history)]) {
			t.Errorf("machine %d saw other events", i)
		}
	}
	mustMakeSense(t, longest)
	said.mustBeIn(t, longest)
}

// act does random things as one of the clients.
func act(t *testing.T, client int, random *rand.Rand, anyHub func() *Hub, said *said) {
	const operations = 200
	for n := range operations {
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		hub, name := anyHub(), chat.UncheckedName(fmt.Sprint("user-", random.IntN(12)))
		switch random.IntN(6) {
		case 0:
			hub.Join(t.Context(), name)
		case 1:
			hub.Leave(t.Context(), name)
		case 2:
			if _, stream, err := hub.Subscribe(t.Context(), name, ""); err == nil {
				time.Sleep(time.Duration(random.IntN(4000)) * time.Millisecond)
				stream.Close()
			}
		case 3:
			list(t.Context(), hub)
		default:
			text := fmt.Sprint(client, " ", n, strings.Repeat(" text", 800))
			id, err := hub.Say(t.Context(), name, chat.UncheckedText(text))
			said.Lock()
			if err == nil {
				said.accepted[id.String()] = name.String() + ": " + text
			} else if err != ErrUnknown {
				said.rejected[text] = true
			}
			said.Unlock()
		}
	}
}

// mustRestore starts one more machine, from a snapshot in which a user has joined and has streams
// on all current machines, and fails the test unless it has the same state as they have.
func mustRestore(t *testing.T, config Config, log *memlog.Log, current ...*machine) *machine {
	t.Helper()
	alice := chat.UncheckedName("alice")
	var tabs []*Stream
	for _, m := range current {
		_, tab, err := m.hub.Subscribe(t.Context(), alice, "")
		if err != nil {
			t.Fatal(err)
		}
		tabs = append(tabs, tab)
	}
	current[0].hub.Join(t.Context(), alice)
	for joined, at := log.Len(), int64(0); at < joined; _, at = log.Snapshot() {
		text := fmt.Sprint(log.Len(), strings.Repeat(" text", 800))
		current[0].hub.Say(t.Context(), alice, chat.UncheckedText(text))
	}
	restored := startMachine(t, config, log)
	time.Sleep(time.Minute) // until everyone whom nothing keeps present has left
	want := current[0].state()
	for i, m := range append(current[1:], restored) {
		if m.state() != want {
			t.Errorf("machine %d has another state than machine 0", i+1)
		}
	}
	for _, tab := range tabs {
		tab.Close()
	}
	time.Sleep(time.Minute)
	return restored
}

// mustMakeSense fails the test unless the ids count up, no message occurs twice, and users arrive
// only while they are absent, and speak and leave only while they are present.
func mustMakeSense(t *testing.T, history []ssetest.Event) {
	t.Helper()
	present, messages := make(map[string]bool), make(map[string]bool)
	for i, e := range history {
		if e.ID != fmt.Sprint("log-", i+1) {
			t.Fatalf("event %d has the id %s", i+1, e.ID)
		}
		if from, _, isMessage := strings.Cut(e.Text, ": "); isMessage {
			if messages[e.Text] || !present[from] {
				t.Fatalf("event %d is %.80q, a second time or from a user who is not present", i+1, e.Text)
			}
			messages[e.Text] = true
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(e.Text, "User "), " ")
		want := arrival(name)
		if present[name] {
			want = departure(name)
		}
		if e.Text != want {
			t.Fatalf("event %d is %q, want %q", i+1, e.Text, want)
		}
		present[name] = !present[name]
	}
}

// mustBeIn fails the test unless all accepted messages are in the history, and no rejected one is.
func (s *said) mustBeIn(t *testing.T, history []ssetest.Event) {
	t.Helper()
	for id, text := range s.accepted {
		if i := number(id); i > len(history) || history[i-1].Text != text {
			t.Errorf("%.80q was acknowledged as %s, and is not in the history", text, id)
		}
	}
	for _, e := range history {
		if _, text, isMessage := strings.Cut(e.Text, ": "); isMessage && s.rejected[text] {
			t.Errorf("%.80q was rejected, and is in the history", text)
		}
	}
}

// What main.go sets on each connection.
func TestFailureToLimitAConnectionIsPrintedAtMostOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr strings.Builder
		prepare := prepareConn(&stderr)
		for _, after := range []time.Duration{0, time.Second - 1, 1} {
			time.Sleep(after)
			broken := &conns.Conn{TCPConn: new(net.TCPConn)} // no option can be set on it
			if ctx := prepare(t.Context(), broken); ctx.Value(connKey{}) != broken {
				t.Error("the connection is not served")
			}
		}
		line := "lobby: cannot limit a connection: invalid argument\n"
		if got := stderr.String(); got != line+line {
			t.Errorf("printed %q in a second, want %q twice", got, line)
		}
	})
}

// Load balancers keep connections for 600 s, and lose a request on one that the server has closed.
func TestIdleConnectionsOutliveThoseOfLoadBalancers(t *testing.T) {
	if got := newHTTPServer(nil, io.Discard).IdleTimeout; got < 620*time.Second {
		t.Errorf("idle connections are closed after %v, want at least 620s", got)
	}
}

// Benchmarks.

// startHub runs a hub with users until the benchmark ends.
func startHub(b *testing.B, users int) *Hub {
	config := DefaultConfig
	config.MaxUsers = users + 1
	hub := mustHub(b, config)
	go hub.Run(b.Context())
	for i := range users {
		hub.Join(b.Context(), chat.UncheckedName(fmt.Sprint("user", i)))
	}
	return hub
}

func BenchmarkJoinAndLeave(b *testing.B) {
	for _, users := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			hub, alice := startHub(b, users), chat.UncheckedName("alice")
			for b.Loop() {
				hub.Join(b.Context(), alice)
				hub.Leave(b.Context(), alice)
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, users := range []int{10, 1_000, 100_000} {
		for _, state := range []string{"unchanged", "changed"} {
			b.Run(fmt.Sprintf("users=%d/%s", users, state), func(b *testing.B) {
				hub, alice := startHub(b, users), chat.UncheckedName("alice")
				for b.Loop() {
					if state == "changed" {
						hub.Join(b.Context(), alice)
						hub.Leave(b.Context(), alice)
					}
					_, users, _ := hub.List(b.Context(), roster.Text)
					users.Return()
				}
			})
		}
	}
}
