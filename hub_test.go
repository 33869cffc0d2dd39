package main

// What belongs here: the hub, asked over its methods, in bubbles of virtual time and beside a
// model; several hubs on one log; and benchmarks of the hub alone. Events as bytes are tested in
// chain/, names, texts and lists in chat/, nodes in cluster/, the server over sockets in e2e/.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
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
	"lobby/internal/memlog"
	"lobby/roster"
)

// bubble is a hub in virtual time, and one who uses it.
type bubble struct {
	*testing.T
	hub  *Hub
	ctx  context.Context
	stop func()
	done chan struct{} // closed when Run has returned

	streams []*Stream // that are closed when the test ends
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

func mustName(t testing.TB, s string) chat.Name {
	t.Helper()
	name, err := chat.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func mustText(t testing.TB, s string) chat.Text {
	t.Helper()
	text, err := chat.ParseText(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (b *bubble) mustJoin(name string) {
	b.Helper()
	if _, _, err := b.hub.Join(b.ctx, mustName(b, name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bubble) mustLeave(name string) {
	b.Helper()
	if _, err := b.hub.Leave(b.ctx, mustName(b, name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bubble) mustSay(from, text string) {
	b.Helper()
	if _, err := b.hub.Say(b.ctx, mustName(b, from), mustText(b, text)); err != nil {
		b.Fatal(err)
	}
}

// mustOpen opens a stream in the name of a user.
func (b *bubble) mustOpen(name string) *Stream {
	b.Helper()
	_, stream, err := b.hub.Subscribe(b.ctx, mustName(b, name), "")
	if err != nil {
		b.Fatal(err)
	}
	b.streams = append(b.streams, stream)
	return stream
}

// expectUsers fails the test unless precisely these users are there.
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
	defer hub.Release(users)
	body := slices.Concat(slices.Collect(users.Pieces())...)
	for line := range strings.Lines(string(body)) {
		if name, ok := strings.CutPrefix(line, "User: "); ok {
			names = append(names, strings.TrimSuffix(name, "\n"))
		}
	}
	return id, names, nil
}

// close closes a stream, and waits until the hub knows.
func (b *bubble) close(stream *Stream) {
	stream.Close()
	synctest.Wait()
}

// event is an event as a client dispatches it: its id, and its text, or "(gap)", or "(comment)".
type event struct{ id, text string }

// read returns what there is to read at this time, and what ended the stream, if that has ended.
func (b *bubble) read(stream *Stream) (events []event, err error) {
	synctest.Wait()
	ctx, cancel := context.WithCancel(b.ctx)
	waits := make(chan struct{})
	go func() { synctest.Wait(); cancel(); close(waits) }()
	defer func() { <-waits }()
	for {
		data, err := stream.Next(ctx)
		if err == context.Canceled {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		events = append(events, eventsIn(data)...)
	}
}

// eventsIn returns the events of a part of a stream, without its opening.
func eventsIn(data []byte) (events []event) {
	for block := range strings.SplitSeq(strings.TrimSuffix(string(data), "\n\n"), "\n\n") {
		var e event
		var lines []string
		for line := range strings.SplitSeq(block, "\n") {
			field, value, _ := strings.Cut(line, ": ")
			switch field {
			case "id":
				e.id = value
			case "data":
				lines = append(lines, value)
			}
		}
		e.text = strings.Join(lines, "\n")
		if strings.Contains(block, "event: gap\n") {
			e.text = "(gap)"
		} else if block == ": keep-alive" {
			e.text = "(comment)"
		}
		if e.text != "" {
			events = append(events, e)
		}
	}
	return events
}

func texts(events []event) (texts []string) {
	for _, e := range events {
		texts = append(texts, e.text)
	}
	return texts
}

// expect fails the test unless precisely these texts are there to be read at this time.
func (b *bubble) expect(stream *Stream, want ...string) {
	b.Helper()
	events, _ := b.read(stream)
	if got := texts(events); !slices.Equal(got, want) {
		b.Fatalf("the stream got %q, want %q", got, want)
	}
}

func arrival(name string) string   { return "User " + name + " connected to the chat." }
func departure(name string) string { return "User " + name + " disconnected from the chat." }

func TestUserStaysForTheGrace(t *testing.T) {
	const grace = 5 * time.Second
	for _, c := range []struct {
		name string
		then func(b *bubble) // what happens after alice's only stream has closed
		want []string        // what others hear of that
	}{
		{name: "until it is over", then: func(b *bubble) { time.Sleep(grace - 1) }},
		{name: "and leaves then", then: func(b *bubble) { time.Sleep(grace) }, want: []string{departure("alice")}},
		{name: "and is back with a stream", then: func(b *bubble) {
			time.Sleep(grace - 1)
			b.mustOpen("alice")
			time.Sleep(2 * grace)
		}},
		{name: "anew after each last stream", then: func(b *bubble) {
			time.Sleep(grace - 1)
			b.close(b.mustOpen("alice"))
			time.Sleep(grace - 1)
		}},
		{name: "anew, and leaves then", then: func(b *bubble) {
			time.Sleep(grace - 1)
			b.close(b.mustOpen("alice"))
			time.Sleep(grace)
		}, want: []string{departure("alice")}},
		{name: "and stays if it joins", then: func(b *bubble) {
			time.Sleep(grace - 1)
			b.mustJoin("alice")
			time.Sleep(2 * grace)
		}},
		{name: "unless it is removed", then: func(b *bubble) {
			b.mustLeave("alice")
			time.Sleep(2 * grace)
		}, want: []string{departure("alice")}},
		{name: "which a removal and an arrival begin anew", then: func(b *bubble) {
			b.mustLeave("alice")
			time.Sleep(grace - 1)
			b.close(b.mustOpen("alice"))
			time.Sleep(grace - 1)
		}, want: []string{departure("alice"), arrival("alice")}},
		{name: "while others leave in their own time", then: func(b *bubble) {
			time.Sleep(time.Second)
			b.close(b.mustOpen("carol"))
			time.Sleep(grace - 1)
		}, want: []string{arrival("carol"), departure("alice")}},
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

func TestUserIsThereWhileAnythingHoldsIt(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		tab1, tab2 := b.mustOpen("alice"), b.mustOpen("alice")
		b.mustJoin("bob")
		b.close(b.mustOpen("bob"))
		time.Sleep(time.Minute)
		b.close(tab1)
		time.Sleep(time.Minute)
		b.expectUsers("alice", "bob") // a second tab holds one, a join the other
		b.close(tab2)
		time.Sleep(time.Minute)
		b.expectUsers("bob")
	})
}

func TestStreamsOfARemovedUserHoldNobody(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		old := b.mustOpen("alice")
		b.mustLeave("alice")
		young := b.mustOpen("alice")
		time.Sleep(time.Second)
		b.expect(old, arrival("alice"), departure("alice"), arrival("alice"))
		b.expect(young, arrival("alice"))
		b.close(old)
		time.Sleep(time.Minute)
		b.expect(young, "(comment)", "(comment)", "(comment)", "(comment)")
	})
}

func TestWatchHoldsNobody(t *testing.T) {
	config := DefaultConfig
	config.MaxStreams = 1
	inBubble(t, config, func(b *bubble) {
		id, watcher, err := b.hub.Watch(b.ctx, "")
		if err != nil || !strings.HasSuffix(id.String(), "-0") {
			t.Fatal(id, err)
		}
		if id, _, err := b.hub.Watch(b.ctx, ""); err != ErrTooManyStreams || id == (chain.ID{}) {
			t.Errorf("a second stream: got %v at %q", err, id)
		}
		b.mustJoin("alice")
		b.expect(watcher, arrival("alice"))
		b.close(watcher)
		time.Sleep(time.Minute)
		b.mustOpen("bob") // there is room for it
		b.expectUsers("alice", "bob")
	})
}

// A process that was paused (SIGSTOP, a closed lid) finds its timers due before it has heard who
// came back.
func TestPauseDoesNotCountForTheGrace(t *testing.T) {
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

			// Run waits for this request's answer to be taken, as if the process were paused.
			q := request[chat.Name, chain.ID]{mustName(t, "nobody"), make(chan result[chain.ID])}
			b.hub.leaves <- q
			time.Sleep(pause)
			back := make(chan *Stream)
			go func() { back <- b.mustOpen("alice") }()
			<-q.answer
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

// After a pause, those who go later have the grace that they would have had without it.
func TestPauseDelaysOnlyWhoWasToLeaveInIt(t *testing.T) {
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
		q := request[chat.Name, chain.ID]{mustName(t, "nobody"), make(chan result[chain.ID])}
		b.hub.leaves <- q
		time.Sleep(time.Second)
		<-q.answer
		for n := range 2 * before {
			visit(before + n)
		}
		b.read(bob)
		b.close(b.mustOpen("last"))
		time.Sleep(grace - 1)
		events, _ := b.read(bob)
		if slices.Contains(texts(events), departure("last")) {
			t.Error("the last one has left before the grace was over")
		}
		time.Sleep(time.Nanosecond)
		b.expect(bob, departure("last"))
	})
}

func TestGracesAreBounded(t *testing.T) {
	config := DefaultConfig
	config.Grace = time.Hour
	inBubble(t, config, func(b *bubble) {
		b.mustOpen("bob").Close() // counts once
		bob, alice := mustName(t, "bob"), b.mustOpen("alice")
		alice.Close()
		for range maxGraces - 2 {
			_, stream, err := b.hub.Subscribe(b.ctx, bob, "")
			if err != nil {
				t.Fatal(err)
			}
			stream.Close()
		}
		b.mustOpen("bob").Close() // takes the first of bob's off
		b.expectUsers("alice", "bob")
		time.Sleep(time.Minute)
		b.mustOpen("bob").Close() // takes alice's off
		b.expectUsers("bob")
		time.Sleep(time.Hour - 1)
		b.expectUsers("bob") // whose grace has not ended with those before it
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		b.expectUsers()
	})
}

func TestJoinRefusesNewUsersWhenFull(t *testing.T) {
	config := DefaultConfig
	config.MaxUsers = 1
	inBubble(t, config, func(b *bubble) {
		b.mustOpen("alice")
		b.mustOpen("bob") // a stream's own user always gets in
		if _, _, err := b.hub.Join(b.ctx, mustName(t, "carol")); err != ErrTooManyUsers {
			t.Errorf("Join of a new user: %v, want ErrTooManyUsers", err)
		}
		b.mustJoin("alice") // is there already
		b.expectUsers("alice", "bob")
	})
}

func TestReaderThatFallsBehindAsksTheHub(t *testing.T) {
	config := DefaultConfig
	config.KeepAlive = time.Hour
	inBubble(t, config, func(b *bubble) {
		stream := b.mustOpen("alice")
		stream.Next(b.ctx)
		stream.Next(b.ctx) // her arrival, and there the stream stands
		var want []string
		for i := range 1000 {
			time.Sleep(time.Second)
			b.mustSay("alice", fmt.Sprint(i))
			want = append(want, fmt.Sprint("alice: ", i))
		}
		b.stop() // Run serves open streams even then
		events, err := b.read(stream)
		if got := texts(events); !slices.Equal(got, want) || err != io.EOF {
			t.Errorf("got %d events and %v, want %d and io.EOF", len(got), err, len(want))
		}
		stream.Close()
	})
}

func TestStop(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		alice, bob := b.mustOpen("alice"), b.mustOpen("bob")
		b.mustSay("alice", "one")
		b.mustSay("alice", "two") // is being gathered
		b.stop()
		for stream, want := range map[*Stream][]string{
			alice: {arrival("alice"), arrival("bob"), "alice: one", "alice: two"},
			bob:   {arrival("bob"), "alice: one", "alice: two"},
		} {
			if events, err := b.read(stream); err != io.EOF || !slices.Equal(texts(events), want) {
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
		id, _, err := b.hub.Join(b.ctx, mustName(t, "carol"))
		if err != ErrStopped || id != (chain.ID{}) {
			t.Errorf("Join: %v with id %q, want ErrStopped and none", err, id)
		}
		bob.Close()
		<-b.done
		bob.Close() // returns at once
	})
}

func TestCallerThatGivesUpChangesNothing(t *testing.T) {
	hub := mustHub(t, DefaultConfig)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id, _, err := hub.Subscribe(ctx, mustName(t, "alice"), "")
	if !errors.Is(err, context.Canceled) || id != (chain.ID{}) {
		t.Errorf("got %v with id %q, want context.Canceled and none", err, id)
	}
	go hub.Run(t.Context()) // which has not run yet
	id, names, err := list(t.Context(), hub)
	if err != nil || !strings.HasSuffix(id.String(), "-0") || len(names) > 0 {
		t.Errorf("then got %v at %v, %v, want nobody and no event", names, id, err)
	}
}

func TestConfig(t *testing.T) {
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
			t.Errorf("NewHub takes a config whose %s makes no sense", name)
		}
	}
	least := Config{History: 1, MaxUsers: 1, MaxStreams: 1, Grace: 0, KeepAlive: time.Millisecond}
	inBubble(t, least, func(b *bubble) {
		b.close(b.mustOpen("alice"))
		b.expectUsers() // because there is no grace
	})
}

// model is what a hub should do, told the simplest way.
type model struct {
	config Config
	users  map[string]*modelUser
	events []string // the text of each event; the id of events[i] ends in i+1
}

type modelUser struct {
	stays   bool
	streams int       // that are open
	leaves  time.Time // when, while nothing but a grace holds the user
	order   int       // among those that leave at one time
}

// enter returns the user of that name, who arrives if it is new.
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

// pass removes the users whose grace is over by now.
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
	user   *modelUser // whom it holds; nil for nobody
	events []event    // what it got
	after  int        // the number of the event after which it begins
	gap    bool       // whether it begins with a gap
}

// check fails the test unless the stream got what it should: everything or, if it was closed before
// all was read, the beginning of that.
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
	if got := texts(ms.events); !slices.Equal(got, want) {
		t.Fatalf("a stream from %d on got %q, want %q", ms.after, got, want)
	}
	for i, e := range ms.events {
		if number(e.id) != first+i {
			t.Fatalf("event %d has the id %s, want number %d", i, e.id, first+i)
		}
	}
}

// number returns the number in an id.
func number(id string) int {
	n := -1
	fmt.Sscanf(id[strings.Index(id, "-")+1:], "%d", &n)
	return n
}

// TestModel drives a hub with random operations beside a model, and compares every answer, and
// every event on every stream.
func TestModel(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testModel(t, rand.New(rand.NewPCG(seed, 0))) })
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
				id, isNew, err := b.hub.Join(b.ctx, mustName(t, name))
				wantNew := m.users[name] == nil
				if wantNew && len(m.users) >= config.MaxUsers {
					check("join", id, err, ErrTooManyUsers)
					continue
				}
				m.enter(name).stays = true
				check("join", id, isNew && err == nil, wantNew)
			case 1:
				id, err := b.hub.Leave(b.ctx, mustName(t, name))
				if m.users[name] == nil {
					check("leave", id, err, ErrNotConnected)
					continue
				}
				m.remove(name)
				check("leave", id, err, nil)
			case 2, 3:
				text := fmt.Sprintf("%d\n%s", step, name)
				id, err := b.hub.Say(b.ctx, mustName(t, name), mustText(t, text))
				if m.users[name] == nil {
					check("say", id, err, ErrNotConnected)
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
				holds := random.IntN(4) > 0
				if holds {
					id, ms.Stream, err = b.hub.Subscribe(b.ctx, mustName(t, name), lastEventID)
				} else {
					id, ms.Stream, err = b.hub.Watch(b.ctx, lastEventID)
				}
				if len(open) == config.MaxStreams {
					check("open", id, err, ErrTooManyStreams)
					continue
				}
				if holds {
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

// A log that was begun under another first key is read again in another epoch.
func TestVisitIsFoundInAnotherEpoch(t *testing.T) {
	for visit, users := range map[string]int{"old-2": 1, "old-1": 0, "old": 1} {
		r := room{chain: chain.New(1, time.Minute), users: make(map[string]*user)}
		r.carryOut("n", chat.Command{Do: chat.Open, Name: mustName(t, "alice")})
		r.carryOut("n", chat.Command{Do: chat.Shut, Name: mustName(t, "alice"), Visit: visit})
		if len(r.users) != users {
			t.Errorf("after a stream of visit %s has closed there are %d users, want %d", visit, len(r.users), users)
		}
	}
}

// machine is a hub that is connected with others through a log, for one life.
type machine struct {
	hub     *Hub
	stop    func()
	ended   chan struct{} // closed when Run has returned
	isCut   atomic.Bool   // whether the machine is cut off from the log
	history []event       // since the log began; complete when ended is closed
	turns   chan chat.Turn
}

// startMachine starts a machine, and waits until it is one of the lobby's.
func startMachine(t *testing.T, config Config, log *memlog.Log) *machine {
	view, m := log.Open(), &machine{ended: make(chan struct{}), turns: make(chan chat.Turn)}
	view.Delay, view.Cut = func() time.Duration { return rand.N(20 * time.Millisecond) }, m.isCut.Load
	settings := cluster.Settings{History: config.History, MaxUsers: config.MaxUsers}
	node, err := cluster.NewNode(view.Session, view, settings, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	m.hub = mustHub(t, config)
	m.hub.Connect(node.Name(), node.Commands(), m.turns)
	ctx, stop := context.WithCancel(context.Background())
	nodeCtx, stopNode := context.WithCancel(context.Background())
	m.stop = stop
	go node.Run(nodeCtx)
	go func() { m.hub.Run(ctx); stopNode(); close(m.ended) }()
	go func() {
		for {
			select {
			case turn := <-node.Turns():
				select {
				case m.turns <- turn:
				case <-m.ended:
				}
			case <-m.ended:
				return
			}
		}
	}()
	<-node.Ready()
	_, stream, err := m.hub.Watch(ctx, "log-0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer stream.Close() // before which Run does not return
		for data, err := stream.Next(context.Background()); err == nil; data, err = stream.Next(context.Background()) {
			m.history = append(m.history, eventsIn(data)...)
		}
	}()
	return m
}

// state returns the state that the machine would save now.
func (m *machine) state() string {
	saved := make(chan chat.Result, 1)
	m.turns <- chat.Save{Page: chat.Page{Done: saved}}
	state, _ := json.Marshal((<-saved).State)
	return string(state)
}

// TestHubsOnOneLogAgree has clients do what they like on three machines, which are cut off from the
// log now and then and come back as others, and compares what everyone has seen.
func TestHubsOnOneLogAgree(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) { testHubsOnOneLog(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func testHubsOnOneLog(t *testing.T, random *rand.Rand) {
	const clients, operations = 20, 200
	config := Config{History: 1 << 20, MaxUsers: 8, MaxStreams: 50, Grace: 5 * time.Second, KeepAlive: time.Hour}
	log := memlog.New(`{"version":1,"epoch":"log","history":1048576,"maxUsers":8}`)
	var machines [3]atomic.Pointer[machine]
	var lives []*machine
	for i := range machines {
		machines[i].Store(startMachine(t, config, log))
		lives = append(lives, machines[i].Load())
	}
	said, refused := make(map[string]string), make(map[string]bool) // texts that were taken, by id, and others
	var record sync.Mutex
	var acting sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		acting.Go(func() {
			for n := range operations {
				time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
				hub := machines[random.IntN(len(machines))].Load().hub
				name := mustName(t, fmt.Sprint("user-", random.IntN(12)))
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
					id, err := hub.Say(t.Context(), name, mustText(t, text))
					record.Lock()
					if err == nil {
						said[id.String()] = name.String() + ": " + text
					} else if err != ErrUnknown {
						refused[text] = true
					}
					record.Unlock()
				}
			}
		})
	}
	for range 12 {
		time.Sleep(time.Duration(random.IntN(10_000)) * time.Millisecond)
		i := random.IntN(len(machines))
		m := machines[i].Load()
		m.isCut.Store(true)
		time.Sleep(time.Duration(random.IntN(15_000)) * time.Millisecond)
		m.isCut.Store(false)
		time.Sleep(time.Second)
		select {
		case <-m.ended:
			machines[i].Store(startMachine(t, config, log))
			lives = append(lives, machines[i].Load())
		default:
		}
	}
	acting.Wait()
	// One more begins from a saved state, in which a user has joined and has streams on all others.
	last, tabs, alice := []*machine(nil), []*Stream(nil), mustName(t, "alice")
	for i := range machines {
		last = append(last, machines[i].Load())
		_, tab, _ := last[i].hub.Subscribe(t.Context(), alice, "")
		tabs = append(tabs, tab)
	}
	last[0].hub.Join(t.Context(), alice)
	for joined, at := log.Len(), int64(0); at < joined; _, at = log.State() {
		last[0].hub.Say(t.Context(), alice, mustText(t, fmt.Sprint(log.Len(), strings.Repeat(" text", 800))))
	}
	last = append(last, startMachine(t, config, log))
	lives = append(lives, last[3])
	time.Sleep(time.Minute) // until everyone whom nothing holds has gone
	for i, m := range last {
		if m.state() != last[0].state() {
			t.Errorf("machine %d has another state than machine 0", i)
		}
	}
	for _, tab := range tabs {
		tab.Close()
	}
	time.Sleep(time.Minute)
	for _, m := range last {
		m.stop()
	}
	for _, m := range lives {
		<-m.ended
	}
	longest := slices.MaxFunc(lives, func(a, b *machine) int { return len(a.history) - len(b.history) })
	for i, m := range lives {
		if !slices.Equal(m.history, longest.history[:len(m.history)]) {
			t.Errorf("life %d saw other events", i)
		}
	}
	texts, here := make(map[string]bool), make(map[string]bool)
	for i, e := range longest.history {
		name, text, isMessage := strings.Cut(e.text, ": ")
		if e.id != fmt.Sprint("log-", i+1) || isMessage && (texts[e.text] || refused[text] || !here[name]) {
			t.Fatalf("event %d is %.80q", i+1, e)
		}
		texts[e.text] = isMessage
		if user, what, _ := strings.Cut(strings.TrimPrefix(e.text, "User "), " "); !isMessage {
			if here[user] = e.text == arrival(user); !here[user] && e.text != departure(user) {
				t.Fatalf("event %d is %q: %q", i+1, e, what)
			}
		}
	}
	for id, text := range said {
		if i := number(id); i > len(longest.history) || longest.history[i-1].text != text {
			t.Errorf("%.80q was acknowledged as %s, and is not there", text, id)
		}
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
		hub.Join(b.Context(), mustName(b, fmt.Sprint("user", i)))
	}
	return hub
}

func BenchmarkJoinAndLeave(b *testing.B) {
	for _, users := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			hub, alice := startHub(b, users), mustName(b, "alice")
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
				hub, alice := startHub(b, users), mustName(b, "alice")
				for b.Loop() {
					if state == "changed" {
						hub.Join(b.Context(), alice)
						hub.Leave(b.Context(), alice)
					}
					_, users, _ := hub.List(b.Context(), roster.Text)
					hub.Release(users)
				}
			})
		}
	}
}

// An operation is a page of a state that is saved, and the same page of the burial of a node. On a
// busy machine, the longest is one that was interrupted.
func BenchmarkPage(b *testing.B) {
	r := room{chain: chain.New(4096, time.Minute), users: make(map[string]*user)}
	done, after, holds := make(chan chat.Result, 1), "", []time.Duration(nil)
	for b.Loop() {
		if after == "" {
			b.StopTimer()
			for i := range 100_000 {
				r.hold("n", mustName(b, fmt.Sprint("user", i)))
			}
			b.StartTimer()
		}
		page := chat.Page{After: after, Done: done}
		for _, turn := range []chat.Turn{chat.Save{Page: page}, chat.Burial{Node: "n", Page: page}} {
			start := time.Now()
			r.take(turn)
			holds = append(holds, time.Since(start))
			after = (<-done).Next
		}
	}
	slices.Sort(holds)
	b.ReportMetric(float64(holds[len(holds)-1].Microseconds()), "longest-µs")
	b.ReportMetric(float64(holds[len(holds)*999/1000].Microseconds()), "p99.9-µs")
}
