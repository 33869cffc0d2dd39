package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"
	"weak"

	"github.com/julienschmidt/httprouter"
)

// Reading the event stream format.

// event is what a browser's EventSource would dispatch, or a comment.
type event struct{ id, name, data string }

// sseReader reads the event stream format as the HTML standard's section 9.2.6
// has it, one byte at a time, and shares no code with what writes it.
type sseReader struct {
	events []event // dispatched, and comments with the name ":"
	lastID string  // what a client would reconnect with
	retry  string

	id, name, data string
	hasData        bool
	line           []byte
	sawCR          bool
}

func (s *sseReader) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == '\n' && s.sawCR:
			s.sawCR = false
		case c == '\n' || c == '\r':
			s.sawCR = c == '\r'
			s.endLine(string(s.line))
			s.line = s.line[:0]
		default:
			s.sawCR = false
			s.line = append(s.line, c)
		}
	}
	return len(p), nil
}

func (s *sseReader) endLine(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch {
	case line == "":
		s.lastID = s.id
		if s.hasData {
			s.events = append(s.events, event{s.id, cmp.Or(s.name, "message"), strings.TrimSuffix(s.data, "\n")})
		}
		s.name, s.data, s.hasData = "", "", false
	case field == "":
		s.events = append(s.events, event{s.lastID, ":", value})
	case field == "id":
		s.id = value
	case field == "event":
		s.name = value
	case field == "data":
		s.data, s.hasData = s.data+value+"\n", true
	case field == "retry":
		s.retry = value
	}
}

// take returns the data of the events so far, a gap's as "(gap)" and a
// comment's as "(comment)", and forgets them.
func (s *sseReader) take() (lines []string) {
	for _, e := range s.events {
		switch e.name {
		case "message":
			lines = append(lines, e.data)
		case ":":
			lines = append(lines, "(comment)")
		default:
			lines = append(lines, "("+e.name+")")
		}
	}
	s.events = nil
	return lines
}

// The hub, in bubbles of virtual time.

// bubble is a hub and one who uses it.
type bubble struct {
	*testing.T
	*Hub
	ctx   context.Context
	stop  func()
	done  chan struct{} // closed when Run has returned
	began time.Time
}

// inBubble runs test beside a hub in a bubble of virtual time.
func inBubble(t *testing.T, config Config, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub, err := NewHub(config)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		b := &bubble{t, hub, context.Background(), stop, make(chan struct{}), time.Now()}
		go func() {
			defer close(b.done)
			hub.Run(ctx)
		}()
		test(b)
	})
}

// reader is a stream that is read as it comes, until it is closed.
type reader struct {
	sseReader
	b      *bubble
	data   chan []byte
	cancel context.CancelFunc
	ended  chan error // gets what ended the stream
}

// open opens a stream and reads it.
func (b *bubble) open(name, lastEventID string) *reader {
	b.Helper()
	_, stream, err := b.Subscribe(b.ctx, b.name(name), lastEventID)
	if err != nil {
		b.Fatal(err)
	}
	return b.read(stream)
}

// read reads a stream in the background.
func (b *bubble) read(stream *Stream) *reader {
	ctx, cancel := context.WithCancel(b.ctx)
	r := &reader{b: b, data: make(chan []byte, 1<<16), cancel: cancel, ended: make(chan error, 1)}
	go func() {
		defer stream.Close()
		for {
			data, err := stream.Next(ctx)
			if err != nil {
				r.ended <- err
				return
			}
			r.data <- data
		}
	}()
	return r
}

// sync waits until all is read that is to be had at this time.
func (r *reader) sync() *reader {
	synctest.Wait()
	for len(r.data) > 0 {
		r.Write(<-r.data)
	}
	return r
}

func (r *reader) close() {
	r.cancel()
	<-r.ended
	synctest.Wait()
}

// expect fails the test unless precisely these lines have come since the last call.
func (r *reader) expect(lines ...string) {
	r.b.Helper()
	if got := r.sync().take(); !slices.Equal(got, lines) {
		r.b.Fatalf("the stream got %q, want %q", got, lines)
	}
}

func (b *bubble) name(s string) Name {
	b.Helper()
	name, err := ParseName(s)
	if err != nil {
		b.Fatal(err)
	}
	return name
}

func (b *bubble) join(name string) {
	b.Helper()
	if _, _, err := b.Join(b.ctx, b.name(name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bubble) leave(name string) {
	b.Helper()
	if _, err := b.Leave(b.ctx, b.name(name)); err != nil {
		b.Fatal(err)
	}
}

func (b *bubble) say(from, s string) ID {
	b.Helper()
	text, err := ParseText(s)
	if err != nil {
		b.Fatal(err)
	}
	id, err := b.Say(b.ctx, b.name(from), text)
	if err != nil {
		b.Fatal(err)
	}
	return id
}

func (b *bubble) users() string {
	b.Helper()
	_, users, err := b.List(b.ctx)
	if err != nil {
		b.Fatal(err)
	}
	return string(users.Text)
}

const (
	arrived = "User %s connected to the chat."
	left    = "User %s disconnected from the chat."
)

func TestUserStaysForTheGrace(t *testing.T) {
	const grace = 5 * time.Second
	aliceArrived, aliceLeft := fmt.Sprintf(arrived, "alice"), fmt.Sprintf(left, "alice")

	for _, c := range []struct {
		name  string
		after func(b *bubble) // what happens once alice's only stream has ended
		want  []string        // what others hear of it from then on
	}{
		{"and leaves when it is over", func(b *bubble) { time.Sleep(grace) }, []string{aliceLeft}},
		{"until it is over", func(b *bubble) { time.Sleep(grace - 1) }, nil},
		{"and is back with a stream", func(b *bubble) {
			time.Sleep(grace - 1)
			b.open("alice", "")
			time.Sleep(2 * grace)
		}, nil},
		{"anew after each last stream", func(b *bubble) {
			time.Sleep(grace - 1)
			b.open("alice", "").close()
			time.Sleep(grace - 1)
		}, nil},
		{"anew, and leaves then", func(b *bubble) {
			time.Sleep(grace - 1)
			b.open("alice", "").close()
			time.Sleep(grace)
		}, []string{aliceLeft}},
		{"and stays if it joins", func(b *bubble) {
			time.Sleep(grace - 1)
			b.join("alice")
			time.Sleep(2 * grace)
		}, nil},
		{"unless it is removed", func(b *bubble) {
			b.leave("alice")
			time.Sleep(2 * grace)
		}, []string{aliceLeft}},
		{"which an arrival after a removal starts again", func(b *bubble) {
			b.leave("alice")
			time.Sleep(grace - 1)
			b.open("alice", "").close()
			time.Sleep(grace - 1)
		}, []string{aliceLeft, aliceArrived}},
		{"while others leave in their own time", func(b *bubble) {
			time.Sleep(time.Second)
			b.open("carol", "").close()
			time.Sleep(grace - 1)
		}, []string{fmt.Sprintf(arrived, "carol"), aliceLeft}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := DefaultConfig
			config.KeepAlive = time.Hour
			inBubble(t, config, func(b *bubble) {
				bob := b.open("bob", "")
				alice := b.open("alice", "")
				time.Sleep(time.Second)
				bob.expect(fmt.Sprintf(arrived, "bob"), aliceArrived)
				alice.close()
				c.after(b)
				bob.expect(c.want...)
			})
		})
	}
}

func TestUserIsThereAsLongAsAStreamOrAJoinHoldsIt(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		tab1, tab2 := b.open("alice", ""), b.open("alice", "")
		b.join("bob")
		b.open("bob", "").close()
		time.Sleep(time.Minute)
		tab1.close()
		time.Sleep(time.Minute)
		if got := b.users(); got != "Connected users:\nUser: alice\nUser: bob" {
			t.Errorf("a second tab and a join hold their users: got %q", got)
		}
		tab2.close()
		time.Sleep(time.Minute)
		if got := b.users(); got != "Connected users:\nUser: bob" {
			t.Errorf("the last tab's user has left: got %q", got)
		}
	})
}

func TestStreamsOfARemovedUserReadOnAsNobodys(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		old := b.open("alice", "")
		b.leave("alice")
		young := b.open("alice", "")
		time.Sleep(time.Second)
		old.expect(fmt.Sprintf(arrived, "alice"), fmt.Sprintf(left, "alice"), fmt.Sprintf(arrived, "alice"))
		young.expect(fmt.Sprintf(arrived, "alice"))
		old.close()
		time.Sleep(time.Minute)
		young.expect("(comment)", "(comment)", "(comment)", "(comment)")
	})
}

func TestNoGrace(t *testing.T) {
	config := DefaultConfig
	config.Grace = 0
	inBubble(t, config, func(b *bubble) {
		b.open("alice", "").close()
		if got := b.users(); got != "Connected users:\n" {
			t.Errorf("got %q, want nobody there", got)
		}
	})
}

func TestKeepAliveFollowsQuietOnly(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		r := b.open("alice", "")
		r.expect(fmt.Sprintf(arrived, "alice"))
		time.Sleep(15*time.Second - 1)
		r.expect()
		time.Sleep(time.Nanosecond)
		r.expect("(comment)")
		time.Sleep(10 * time.Second)
		b.say("alice", "hello")
		r.expect("alice: hello")
		time.Sleep(15*time.Second - 1)
		r.expect()
		time.Sleep(time.Nanosecond)
		r.expect("(comment)")
		time.Sleep(15 * time.Second)
		r.expect("(comment)")
	})
}

func TestEventsThatComeCloseTogetherAreGathered(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		r := b.open("alice", "")
		r.expect(fmt.Sprintf(arrived, "alice"))
		time.Sleep(time.Second)

		b.say("alice", "first")
		r.expect("alice: first") // at once, after the quiet
		b.say("alice", "second")
		time.Sleep(minRound - time.Nanosecond)
		b.say("alice", "third")
		r.expect()
		time.Sleep(time.Nanosecond)
		r.expect("alice: second", "alice: third") // one step after a batch of one

		flood := slices.Repeat([]string{"alice: more"}, gatherRounds+1)
		for range flood {
			b.say("alice", "more")
		}
		time.Sleep(2*minRound - time.Nanosecond)
		r.expect()
		time.Sleep(time.Nanosecond)
		r.expect(flood...) // two steps after a batch of two

		b.say("alice", "last")
		time.Sleep(gatherRounds*minRound - time.Nanosecond)
		r.expect()
		time.Sleep(time.Nanosecond)
		r.expect("alice: last") // no later than that, after any number

		time.Sleep(minRound)
		b.say("alice", "first again")
		r.expect("alice: first again")
	})
}

func TestABatchThatIsFullIsNotHeldBack(t *testing.T) {
	long := strings.Repeat("\n", maxLines-1)
	long += strings.Repeat("x", maxText-len(long))
	inBubble(t, DefaultConfig, func(b *bubble) {
		name := strings.Repeat("\U0001F600", maxName)
		b.join(name)
		_, stream, err := b.Subscribe(b.ctx, b.name(name), "")
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		const messages = 100
		for range messages {
			b.say(name, long)
		}
		var r sseReader
		for got := 0; got < messages-maxBatch/maxText; { // the others may still be gathered
			data, err := stream.Next(b.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) > maxBatch {
				t.Fatalf("%d bytes at once, want at most %d", len(data), maxBatch)
			}
			r.Write(data)
			events := len(r.take())
			if len(data) > maxEvent*max(events, 1) {
				t.Fatalf("%d events are %d bytes, want at most %d each", events, len(data), maxEvent)
			}
			got += events
		}
		if took := time.Since(b.began); took != 0 {
			t.Errorf("full batches were held back for %v", took)
		}
	})
}

// stall opens a stream that is read no further than its opening block.
func (b *bubble) stall(name string) *Stream {
	b.Helper()
	_, stream, err := b.Subscribe(b.ctx, b.name(name), "")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := stream.Next(b.ctx); err != nil {
		b.Fatal(err)
	}
	return stream
}

// readAll reads a stream until nothing more comes.
func (b *bubble) readAll(stream *Stream) *sseReader {
	b.Helper()
	var r sseReader
	ctx, cancel := context.WithTimeout(b.ctx, 2*gatherRounds*minRound)
	defer cancel()
	for {
		data, err := stream.Next(ctx)
		if err != nil {
			return &r
		}
		r.Write(data)
	}
}

func TestAReaderThatFallsBehind(t *testing.T) {
	for _, c := range []struct {
		name    string
		history int
		batches int // that it is behind
		gap     bool
	}{
		{"a little, goes on along the chain", 1, recentBatches - 2, false},
		{"as far as the history goes, gets all from there", 2 * recentBatches, 2*recentBatches - 1, false},
		{"further, is told of the gap", recentBatches, 2 * recentBatches, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := DefaultConfig
			config.History = c.history
			inBubble(t, config, func(b *bubble) {
				stream := b.stall("alice")
				defer stream.Close()
				first, err := stream.Next(b.ctx) // alice's arrival, and in its batch stands the stream
				if err != nil || !strings.Contains(string(first), "connected") {
					t.Fatal(string(first), err)
				}
				var want []string
				for i := range c.batches {
					time.Sleep(2 * gatherRounds * minRound)
					want = append(want, fmt.Sprint("alice: ", i))
					b.say("alice", fmt.Sprint(i))
				}
				runtime.GC() // takes what nothing keeps
				r := b.readAll(stream)
				if c.gap {
					if len(r.events) != 2 || !strings.HasSuffix(r.events[1].id, fmt.Sprint("-", c.batches+1)) {
						t.Fatalf("got %q, want the batch where the stream stands and a gap up to the last event", r.events)
					}
					want = []string{"alice: 0", "(gap)"}
				}
				if got := r.take(); !slices.Equal(got, want) {
					t.Errorf("got %d events from %q on, want %d", len(got), got[:min(3, len(got))], len(want))
				}
				time.Sleep(time.Second)
				b.say("alice", "again")
				if got := b.readAll(stream).take(); !slices.Equal(got, []string{"alice: again"}) {
					t.Errorf("after that it got %q", got)
				}
			})
		})
	}
}

func TestAStalledReaderDoesNotHoldWhatFollows(t *testing.T) {
	config := DefaultConfig
	config.History = 1
	inBubble(t, config, func(b *bubble) {
		stream := b.stall("alice")
		defer stream.Close()
		stream.Next(b.ctx)
		var batches []weak.Pointer[batch]
		for i := range 3 * recentBatches {
			time.Sleep(2 * gatherRounds * minRound)
			other := b.stall("bob")
			batches = append(batches, weak.Make(other.at.batch))
			other.Close()
			b.say("alice", fmt.Sprint(i))
		}
		runtime.GC()
		kept := 0
		for _, w := range batches {
			if w.Value() != nil {
				kept++
			}
		}
		if kept > recentBatches+2 {
			t.Errorf("%d of %d batches are kept for a stalled reader, want at most %d", kept, len(batches), recentBatches+2)
		}
	})
}

// A name is a part of the request that it comes in, which may be long.
func TestAUserDoesNotHoldTheRequest(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		request := strings.Repeat("a", maxHead)
		held := weak.Make(unsafe.StringData(request))
		b.Join(b.ctx, b.name(request[:maxName]))
		b.Join(b.ctx, b.name("bob")) // Run may hold the last name that it was sent
		runtime.GC()
		if held.Value() != nil {
			t.Error("the user's name holds all of the request")
		}
	})
}

func TestStop(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		alice, late := b.open("alice", ""), b.stall("bob")
		b.say("alice", "one")
		b.say("alice", "two") // is being gathered
		b.stop()
		synctest.Wait()
		if err := <-alice.ended; err != io.EOF {
			t.Errorf("the stream ended with %v, want io.EOF", err)
		}
		alice.expect(fmt.Sprintf(arrived, "alice"), fmt.Sprintf(arrived, "bob"), "alice: one", "alice: two")
		if got := b.readAll(late).take(); !slices.Equal(got, []string{fmt.Sprintf(arrived, "bob"), "alice: one", "alice: two"}) {
			t.Errorf("a stream that is read late got %q", got)
		}
		select {
		case <-b.done:
			t.Error("Run has returned though a stream is open")
		default:
		}
		id, _, err := b.Join(b.ctx, b.name("carol"))
		if err != ErrStopped || id.String() != "" {
			t.Errorf("Join: %v with id %q, want ErrStopped and none", err, id)
		}
		late.Close()
		<-b.done
		late.Close() // is done at once
	})
}

func TestAReaderFarBehindGetsAllWhenTheHubStops(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		stream := b.stall("alice")
		var want []string
		for i := range 2 * recentBatches {
			time.Sleep(2 * gatherRounds * minRound)
			want = append(want, fmt.Sprint("alice: ", i))
			b.say("alice", fmt.Sprint(i))
		}
		b.stop()
		synctest.Wait()
		runtime.GC()
		if got := b.readAll(stream).take(); !slices.Equal(got[1:], want) {
			t.Errorf("got %d events, want %d", len(got)-1, len(want))
		}
		stream.Close()
	})
}

func TestACallerThatGivesUpChangesNothing(t *testing.T) {
	hub, err := NewHub(DefaultConfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if id, _, err := hub.Subscribe(ctx, Name{"alice"}, ""); !errors.Is(err, context.Canceled) || id.String() != "" {
		t.Errorf("got %v with id %q, want context.Canceled and none", err, id)
	}
	go hub.Run(t.Context()) // which has not run yet
	if id, users, err := hub.List(t.Context()); err != nil || id.seq != 0 || len(users.names) != 0 {
		t.Errorf("then got %v at %v, %v, want nobody and no event", users, id, err)
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
	if _, err := NewHub(least); err != nil {
		t.Errorf("NewHub does not take the least of all: %v", err)
	}
}

// model is what a hub should do, told the simplest way.
type model struct {
	config  Config
	users   map[string]*modelUser
	events  []string // each event's line; the id of events[i] ends in i+1
	streams int
}

type modelUser struct {
	joined   bool
	streams  int
	leavesAt time.Time // zero while something holds the user
	order    int       // among those that leave at one time
}

func (m *model) enter(name string) (u *modelUser, arrived bool) {
	if m.users[name] == nil {
		if len(m.users) == m.config.MaxUsers {
			return nil, false
		}
		m.users[name] = &modelUser{}
		m.events = append(m.events, "User "+name+" connected to the chat.")
		arrived = true
	}
	u = m.users[name]
	u.leavesAt = time.Time{}
	return u, arrived
}

func (m *model) remove(name string) {
	delete(m.users, name)
	m.events = append(m.events, "User "+name+" disconnected from the chat.")
}

// pass removes the users whose grace is over by now.
func (m *model) pass() {
	names := slices.SortedFunc(maps.Keys(m.users), func(a, b string) int {
		return cmp.Or(m.users[a].leavesAt.Compare(m.users[b].leavesAt), m.users[a].order-m.users[b].order)
	})
	for _, name := range names {
		if at := m.users[name].leavesAt; !at.IsZero() && !at.After(time.Now()) {
			m.remove(name)
		}
	}
}

// modelStream is an open stream, and what it should have got.
type modelStream struct {
	*reader
	user  *modelUser // for who it is counted
	name  string
	after int  // number of the event that it reads on from
	gap   bool // whether it begins with a gap
}

// TestModel drives a hub with random operations beside a model, and compares
// every answer, and every event on every stream.
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
		var open, closed []*modelStream
		number := func(id ID) int { return int(id.seq) }
		check := func(op string, id ID, got, want any) {
			t.Helper()
			if got != want || number(id) != len(m.events) {
				t.Fatalf("%s: got %v with the id %v, want %v with number %d", op, got, id, want, len(m.events))
			}
		}
		for step := range 1000 {
			synctest.Wait()
			m.pass()
			name := string(rune('a' + random.IntN(7)))
			switch random.IntN(8) {
			case 0:
				id, joined, err := b.Join(b.ctx, b.name(name))
				u, arrived := m.enter(name)
				if u == nil {
					check("join", id, err, ErrTooManyUsers)
					continue
				}
				u.joined = true
				check("join", id, joined && err == nil, arrived)
			case 1:
				id, err := b.Leave(b.ctx, b.name(name))
				if m.users[name] == nil {
					check("leave", id, err, ErrNotConnected)
					continue
				}
				m.remove(name)
				check("leave", id, err, nil)
			case 2, 3:
				text, _ := ParseText(fmt.Sprintf("%d\n%s", step, name))
				id, err := b.Say(b.ctx, b.name(name), text)
				if m.users[name] == nil {
					check("say", id, err, ErrNotConnected)
					continue
				}
				m.events = append(m.events, name+": "+text.String())
				check("say", id, err, nil)
			case 4:
				id, users, err := b.List(b.ctx)
				var want strings.Builder
				want.WriteString("Connected users:\n")
				for i, name := range slices.Sorted(maps.Keys(m.users)) {
					want.WriteString(strings.Repeat("\n", min(i, 1)) + "User: " + name)
				}
				check("list", id, string(users.Text), want.String())
				check("list", id, err, nil)
			case 5:
				ms := &modelStream{name: name, after: len(m.events)}
				lastEventID := ""
				if random.IntN(3) > 0 {
					after := max(0, len(m.events)-config.History-3) + random.IntN(config.History+6)
					lastEventID = ID{b.epoch, uint64(after)}.String()
					ms.gap = after > len(m.events) || after < len(m.events)-config.History
					if !ms.gap {
						ms.after = after
					}
				}
				id, stream, err := b.Subscribe(b.ctx, b.name(name), lastEventID)
				if m.streams == config.MaxStreams {
					check("subscribe", id, err, ErrTooManyStreams)
					continue
				}
				if ms.user, _ = m.enter(name); ms.user == nil {
					check("subscribe", id, err, ErrTooManyUsers)
					continue
				}
				check("subscribe", id, err, nil)
				m.streams++
				ms.user.streams++
				ms.reader = b.read(stream)
				open = append(open, ms)
			case 6:
				if len(open) == 0 {
					continue
				}
				i := random.IntN(len(open))
				ms := open[i]
				open = slices.Delete(open, i, i+1)
				ms.close()
				closed = append(closed, ms)
				m.streams--
				ms.user.streams--
				if ms.user == m.users[ms.name] && ms.user.streams == 0 && !ms.user.joined {
					ms.user.leavesAt, ms.user.order = time.Now().Add(config.Grace), step
				}
			case 7:
				time.Sleep(time.Duration(random.IntN(4)) * config.Grace / 3)
			}
		}
		synctest.Wait()
		m.pass()
		b.stop()
		for _, ms := range open {
			if err := <-ms.ended; err != io.EOF {
				t.Errorf("a stream ended with %v, want io.EOF", err)
			}
		}
		for i, ms := range append(open, closed...) {
			ms.sync()
			want := slices.Clone(m.events[ms.after:])
			if ms.gap {
				want = slices.Insert(want, 0, "(gap)")
			}
			got := ms.events
			if i >= len(open) { // it has what came before it was closed
				want = want[:min(len(want), len(got))]
			}
			for j, e := range got {
				seq := ms.after + j + 1
				if ms.gap {
					seq--
				}
				if id := (ID{b.epoch, uint64(seq)}).String(); e.id != id {
					t.Fatalf("event %d has the id %s, want %s", j, e.id, id)
				}
			}
			if lines := ms.take(); !slices.Equal(lines, want) {
				t.Fatalf("a stream from %d on got %q, want %q", ms.after, lines, want)
			}
		}
	})
}

// Names, texts and ids, and what of them reaches a stream.

func TestParseName(t *testing.T) {
	for _, good := range []string{"a", "alice", "é", "名前", "\U0001F600", "...", "-", "a:b", "<b>", "127.0.0.1:53124", "[::1]:80", strings.Repeat("é", 64)} {
		if name, err := ParseName(good); err != nil || name.String() != good {
			t.Errorf("ParseName(%q) = %q, %v", good, name, err)
		}
	}
	for _, bad := range []string{"", ".", "..", " ", "a b", "a\n", "\r", "\t", "\x00", "\x7f", "\u0085", "\u00a0", "\u00ad", "\u2028", "\u202e", "\ufeff", "\xff", "a\xc3", strings.Repeat("a", 65)} {
		if _, err := ParseName(bad); err != ErrName {
			t.Errorf("ParseName(%q): got the error %v, want ErrName", bad, err)
		}
	}
}

func TestParseText(t *testing.T) {
	full := strings.Repeat("x", maxText)
	for in, want := range map[string]string{
		"hello": "hello", "hello\n": "hello", "hello\r\n": "hello", "hello\r": "hello", "hello\n\n": "hello\n", "\n\n": "\n",
		"a\r\nb\rc\nd": "a\nb\nc\nd", "a\r\r\nb": "a\n\nb", "\ttab ": "\ttab ", "\u202e": "\u202e",
		full: full, full + "\n": full, full + "\r\n": full,
		strings.Repeat("\n", 32): strings.Repeat("\n", 31),
	} {
		if text, err := ParseText(in); err != nil || text.String() != want {
			t.Errorf("ParseText(%q) = %q, %v, want %q", in, text, err, want)
		}
	}
	for in, want := range map[string]error{
		"": ErrTextEmpty, "\n": ErrTextEmpty, "\r\n": ErrTextEmpty,
		"\xff": ErrTextUTF8, "a\xc3": ErrTextUTF8,
		"\x00": ErrTextControl, "a\x1b[m": ErrTextControl, "\u0085": ErrTextControl, "\x7f": ErrTextControl,
		strings.Repeat("\n", 33): ErrTextLines, strings.Repeat("a\r", 32) + "a": ErrTextLines,
		full + "x": ErrTextTooLong, full + "x\n": ErrTextTooLong,
	} {
		if _, err := ParseText(in); err != want {
			t.Errorf("ParseText(%q): got the error %v, want %v", in, err, want)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"alice", ".", "a b", "a\nb", "\u202e", "\xff", strings.Repeat("é", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		good := utf8.ValidString(s) && s != "." && s != ".."
		n := 0
		for _, c := range s {
			n++
			good = good && unicode.IsPrint(c) && !unicode.IsSpace(c)
		}
		good = good && 1 <= n && n <= 64
		if name, err := ParseName(s); (err == nil) != good || good && name.String() != s {
			t.Errorf("ParseName(%q) = %q, %v", s, name, err)
		}
	})
}

// FuzzSay says what it is given, and reads it back from the stream.
func FuzzSay(f *testing.F) {
	for _, s := range []string{"hello", "a\r\nb\rc\n", "\n\nevent: gap\n\n", "x\ndata: y\nid: 9", ": comment", "\ttab", " ", "\x00", "\xff", "\n\n"} {
		f.Add("alice", s)
	}
	f.Fuzz(func(t *testing.T, from, s string) {
		name, err := ParseName(from)
		if err != nil {
			t.Skip()
		}
		text, err := ParseText(s)
		if err != nil {
			t.Skip()
		}
		inBubble(t, DefaultConfig, func(b *bubble) {
			b.join(from)
			time.Sleep(time.Second)
			r := b.open(from, "")
			if _, err := b.Say(b.ctx, name, text); err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
			r.expect(from + ": " + strings.TrimSuffix(want, "\n"))
		})
	})
}

// FuzzLastEventID asks for streams that begin after what may be no id at all.
func FuzzLastEventID(f *testing.F) {
	for _, s := range []string{"", "-", "3", "EPOCH-", "EPOCH-0", "EPOCH-2", "EPOCH-3", "EPOCH-4", "EPOCH-03", "EPOCH--1", "EPOCH-+1", "EPOCH-18446744073709551616", "epoch-1", "EPOCH-1\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		inBubble(t, DefaultConfig, func(b *bubble) {
			b.join("alice")
			b.say("alice", "one")
			b.say("alice", "two")
			time.Sleep(time.Second)
			events := []string{fmt.Sprintf(arrived, "alice"), "alice: one", "alice: two"}
			want := []string{"(gap)"}
			for n := range 4 {
				if id == fmt.Sprintf("EPOCH-%d", n) {
					want = events[n:]
				}
			}
			if id == "" {
				want = nil
			}
			r := b.open("alice", strings.Replace(id, "EPOCH", b.epoch, 1))
			r.expect(want...)
			if want := b.epoch + "-3"; r.lastID != want {
				t.Errorf("after %q the last id is %q, want %q", id, r.lastID, want)
			}
		})
	})
}

// The program.

// serve runs the whole server with args until the test ends, and returns its URL.
func serve(t testing.TB, args ...string) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), in)
		in.Close() // or a run that fails at once would be waited for
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		http.DefaultClient.CloseIdleConnections()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "Starting server at ")
	if !ok {
		t.Fatalf("the start-up line is %q", line)
	}
	return url
}

// call makes a request. headers are lines "Name: value"; Host is set too.
func call(t testing.TB, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if req.Header.Add(name, value); name == "Host" {
			req.Host = value
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		resp.Body.Close()
		return resp, "(stream)"
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// TestRequests is one story, told request by request.
func TestRequests(t *testing.T) {
	url := serve(t, "-max-users", "3", "-max-streams", "1", "-host", "chat.example")
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	const (
		sentence = "(sentence)" // any, of one line
		page     = "(page)"
		cross    = "Sec-Fetch-Site: cross-site"
	)
	epoch := ""
	for i, c := range []struct {
		method, path, body string
		headers            string // lines
		status             int
		want               string
		id                 int // that Last-Event-ID ends in, -1 where there is none
		wantHeaders        string
	}{
		// Every row of the table.
		{"GET", "/users", "", "", 200, "Connected users:\n", 0, "Vary: Accept"},
		{"GET", "/users", "", "Accept: application/json", 200, `{"users":[]}`, 0, "Vary: Accept\nContent-Type: application/json"},
		{"POST", "/users/alice", "", "", 201, "User alice connected.", 1, ""},
		{"POST", "/users/alice", "", "", 200, "User alice connected.", 1, ""},
		{"POST", "/users/%C3%A9", "body that is of no use", "", 201, "User é connected.", 2, ""},
		{"GET", "/users", "", "", 200, "Connected users:\nUser: alice\nUser: é", 2, "Vary: Accept"},
		{"GET", "/users", "", "Accept: application/json", 200, `{"users":["alice","é"]}`, 2, "Vary: Accept\nContent-Type: application/json"},
		{"GET", "/users", "", "Accept: text/html, Application/JSON;q=0.9", 200, `{"users":["alice","é"]}`, 2, "Content-Type: application/json"},
		{"GET", "/users", "", "Accept: application/json;q=0", 200, "Connected users:\nUser: alice\nUser: é", 2, ""},
		{"GET", "/users", "", "Accept: text/plain, application/json;q=0.5", 200, "Connected users:\nUser: alice\nUser: é", 2, ""},
		{"HEAD", "/users", "", "", 200, "", 2, "Content-Length: 37"},
		{"POST", "/chat/alice", "hello\r\nworld\n", "", 200, "alice: hello\nworld", 3, ""},
		{"POST", "/chat/bob", "hello", "", 404, "User bob is not connected.", 3, ""},
		{"DELETE", "/users/alice", "", "", 200, "User alice disconnected.", 4, ""},
		{"DELETE", "/users/alice", "", "", 404, "User alice is not connected.", 4, ""},
		{"GET", "/chat/%C3%A9", "", "", 200, "(stream)", 4, "Cache-Control: no-cache\nX-Accel-Buffering: no\nContent-Type: text/event-stream"},
		{"GET", "/", "", "", 200, page, -1, "Content-Type: text/html; charset=utf-8"},
		{"HEAD", "/", "", "", 200, "", -1, ""},
		{"GET", "/lobby.js", "", "", 200, page, -1, "Content-Type: text/javascript; charset=utf-8"},

		// Methods and paths.
		{"OPTIONS", "/users", "", "", 200, "", -1, "Allow: GET, HEAD, OPTIONS"},
		{"OPTIONS", "/chat/bob", "", "", 200, "", -1, "Allow: GET, OPTIONS, POST"},
		{"PUT", "/users/bob", "", "", 405, sentence, -1, "Allow: DELETE, OPTIONS, POST"},
		{"HEAD", "/chat", "", "", 405, "", -1, "Allow: GET, OPTIONS"},
		{"POST", "/", "", "", 405, sentence, -1, "Allow: GET, HEAD, OPTIONS"},
		{"GET", "/users/", "", "", 404, sentence, -1, ""},
		{"GET", "//users", "", "", 404, sentence, -1, ""},
		{"GET", "/Users", "", "", 404, sentence, -1, ""},
		{"GET", "/index.html", "", "", 404, sentence, -1, ""},
		{"POST", "/users/a%2Fb", "", "", 404, sentence, -1, ""},

		// Names and texts.
		{"POST", "/users/a%0Ab", "", "", 400, sentence, -1, ""},
		{"POST", "/users/%2E%2E", "", "", 400, sentence, -1, ""},
		{"GET", "/chat/%E2%80%AE", "", "", 400, sentence, -1, ""},
		{"DELETE", "/users/%FF", "", "", 400, sentence, -1, ""},
		{"POST", "/chat/%C3%A9", "", "", 400, sentence, -1, ""},
		{"POST", "/chat/%C3%A9", "\x00", "", 400, sentence, -1, ""},
		{"POST", "/chat/%C3%A9", strings.Repeat("x", maxText+1), "", 413, sentence, -1, ""},
		{"POST", "/chat/%C3%A9", strings.Repeat("x", 1<<20), "", 413, sentence, -1, ""},
		{"GET", "/chat/bob", "body", "", 400, sentence, -1, "Connection: close"},

		// Who may call.
		{"GET", "/users", "", cross, 403, sentence, -1, ""},
		{"GET", "/chat", "", "Sec-Fetch-Site: same-site", 403, sentence, -1, ""},
		{"GET", "/users", "", "Sec-Fetch-Site: same-origin", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Sec-Fetch-Site: none", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Sec-Fetch-Site: same-origin\nOrigin: http://other.example", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Origin: http://127.0.0.1:" + port, 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Origin: http://127.0.0.1:1", 403, sentence, -1, ""},
		{"GET", "/users", "", "Origin: null", 403, sentence, -1, ""},
		{"GET", "/users", "", "Host: Chat.Example\nOrigin: https://chat.example", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Host: chat.example:443\nOrigin: https://chat.example", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Host: chat.example:80\nOrigin: https://chat.example", 403, sentence, -1, ""},
		{"GET", "/", "", cross, 200, page, -1, ""},
		{"POST", "/", "", cross, 403, sentence, -1, ""},
		{"GET", "/users", "", "Host: evil.example", 421, sentence, -1, ""},
		{"GET", "/users", "", "X: " + strings.Repeat("x", 17<<10), 431, sentence, -1, ""},
		{"GET", "/users", "", "Host: localhost", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Host: a.LOCALHOST:1", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Host: [::1]:1", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Host: 127.255.0.1", 200, "Connected users:\nUser: é", 4, ""},
		{"GET", "/users", "", "Host: 128.0.0.1", 421, sentence, -1, ""},
		{"GET", "/users", "", "Host: localhost.evil.example", 421, sentence, -1, ""},

		// What is wrong in several ways.
		{"PUT", "/nothing", "", "Host: evil.example\n" + cross, 421, sentence, -1, ""},
		{"PUT", "/nothing", "", cross, 403, sentence, -1, ""},
		{"PUT", "/users/%0A", "", "", 405, sentence, -1, ""},
		{"POST", "/chat/%0A", strings.Repeat("x", 1<<20), "", 400, sentence, -1, "Connection: close"},
		{"POST", "/chat/bob", "", "", 400, sentence, -1, ""},

		// Limits.
		{"POST", "/users/bob", "", "", 201, "User bob connected.", 5, ""},
		{"POST", "/users/carol", "", "", 201, "User carol connected.", 6, ""},
		{"POST", "/users/dave", "", "", 503, sentence, 6, "Retry-After: 5"},
		{"GET", "/chat/dave", "", "", 503, sentence, 6, "Retry-After: 5"},
	} {
		t.Run(fmt.Sprintf("%d %s %s", i, c.method, c.path), func(t *testing.T) {
			var headers []string
			if c.headers != "" {
				headers = strings.Split(c.headers, "\n")
			}
			resp, body := call(t, c.method, url+c.path, c.body, headers...)
			if resp.StatusCode != c.status {
				t.Errorf("got the status %d, want %d: %s", resp.StatusCode, c.status, body)
			}
			switch c.want {
			case sentence:
				if !strings.HasSuffix(body, ".\n") || strings.Count(body, "\n") != 1 {
					t.Errorf("got the body %q, want one sentence", body)
				}
			case page:
				if len(body) == 0 {
					t.Error("got an empty page")
				}
			default:
				if body != c.want {
					t.Errorf("got the body %q, want %q", body, c.want)
				}
			}
			id := resp.Header.Get("Last-Event-ID")
			if epoch == "" {
				epoch, _, _ = strings.Cut(id, "-")
			}
			if want := fmt.Sprintf("%s-%d", epoch, c.id); c.id >= 0 && id != want || c.id < 0 && id != "" {
				t.Errorf("got the Last-Event-ID %q, want number %d", id, c.id)
			}
			wantHeaders := c.wantHeaders
			if c.method != "OPTIONS" {
				wantHeaders += "\nX-Content-Type-Options: nosniff"
			}
			if c.wantHeaders == "" && c.want != page && c.want != "" {
				wantHeaders += "\nContent-Type: text/plain; charset=utf-8"
			}
			for line := range strings.Lines(wantHeaders) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				got := resp.Header.Get(name)
				if name == "Connection" && resp.Close {
					got = "close" // which net/http's client takes out
				}
				if got != value {
					t.Errorf("got %s: %s, want %s", name, got, value)
				}
			}
		})
	}
}

// subscribe opens a stream over HTTP.
func subscribe(t testing.TB, url string, headers ...string) *http.Response {
	t.Helper()
	resp, err := trySubscribe(t.Context(), url, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func trySubscribe(ctx context.Context, url string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return resp, nil
}

// TestStreamsCutAnywhereLoseNothing cuts each stream again and again, after
// any number of bytes, while events are made.
func TestStreamsCutAnywhereLoseNothing(t *testing.T) {
	const streams, messages = 20, 500
	url := serve(t)
	call(t, "POST", url+"/users/alice", "")
	opened := make(chan struct{}, streams)
	failures := make(chan error, streams)
	for n := range streams {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		go func() {
			var events []string
			lastID := ""
			last := fmt.Sprint("alice: ", messages-1)
			for first := true; !slices.Contains(events, last); first = false {
				query := ""
				if n%2 == 0 {
					query = "?lastEventId=" + lastID
				}
				resp, err := trySubscribe(t.Context(), fmt.Sprintf("%s/chat/s%d%s", url, n, query), "Last-Event-ID: "+lastID)
				if err != nil {
					failures <- err
					return
				}
				if first {
					opened <- struct{}{}
				}
				client := sseReader{id: lastID, lastID: lastID}
				bytes := 1 + random.IntN(4000)
				if first {
					bytes += 40 // the opening block, or it would have nothing to resume from
				}
				for ; bytes > 0 && !slices.Contains(events, last); bytes-- {
					io.CopyN(&client, resp.Body, 1)
					for _, line := range client.take() {
						if !strings.HasPrefix(line, "User ") {
							events = append(events, line)
						}
					}
				}
				resp.Body.Close()
				lastID = client.lastID
			}
			for i, line := range events {
				if line != fmt.Sprint("alice: ", i) || len(events) != messages {
					failures <- fmt.Errorf("stream %d (seed %d) got %d events, the one at %d is %q", n, seed, len(events), i, line)
					return
				}
			}
			failures <- nil
		}()
	}
	for range streams {
		select {
		case <-opened:
		case err := <-failures:
			t.Fatal(err)
		}
	}
	for i := range messages {
		call(t, "POST", url+"/chat/alice", fmt.Sprint(i))
	}
	for range streams {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
}

func TestStreamLimit(t *testing.T) {
	url := serve(t, "-max-streams", "1")
	first := subscribe(t, url+"/chat/alice")
	resp, body := call(t, "GET", url+"/chat/bob", "")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.HasSuffix(resp.Header.Get("Last-Event-ID"), "-1") {
		t.Errorf("a stream over the limit: %s %v %s", resp.Status, resp.Header, body)
	}
	if _, users := call(t, "GET", url+"/users", ""); users != "Connected users:\nUser: alice" {
		t.Errorf("it has changed the users: %q", users)
	}
	first.Body.Close()
	for asked := time.Now(); ; { // until the server has noticed
		if resp, _ := call(t, "GET", url+"/chat/bob", ""); resp.StatusCode == http.StatusOK {
			break
		}
		if time.Since(asked) > writeTimeout {
			t.Fatal("a stream that has ended counts still")
		}
	}
}

// A client that closes its side once it has asked is still one that waits for
// the answer; to net/http its context is done then.
func TestAHalfClosedRequestIsServed(t *testing.T) {
	inBubble(t, DefaultConfig, func(b *bubble) {
		handler := newServer(b.Hub, isLoopback)
		closed, cancel := context.WithCancel(b.ctx)
		cancel()
		for i := range 100 {
			r := httptest.NewRequestWithContext(closed, "POST", fmt.Sprintf("http://localhost/users/u%d", i), nil)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != http.StatusCreated {
				t.Fatalf("got %d %q, want 201", w.Code, w.Body)
			}
			r = httptest.NewRequestWithContext(closed, "GET", "http://localhost/chat/alice", nil)
			client, conn := net.Pipe()
			w = httptest.NewRecorder()
			handler.ServeHTTP(hijackable{w, conn}, r)
			client.Close()
			if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "retry: ") {
				t.Fatalf("a stream: got %d %q, want 200 and the opening block", w.Code, w.Body)
			}
		}
	})
}

// hijackable is a recorder that has a connection to give.
type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, nil, nil }

// unflushable is a connection that takes a write in part.
type unflushable struct{ hijackable }

func (unflushable) FlushError() error { return os.ErrDeadlineExceeded }

func TestAStreamWhoseHeadDidNotGoIsClosed(t *testing.T) {
	config := DefaultConfig
	config.MaxStreams = 1
	inBubble(t, config, func(b *bubble) {
		client, conn := net.Pipe()
		defer client.Close()
		r := httptest.NewRequest("GET", "http://localhost/chat/alice", nil)
		newServer(b.Hub, isLoopback).ServeHTTP(unflushable{hijackable{httptest.NewRecorder(), conn}}, r)
		_, stream, err := b.Subscribe(b.ctx, b.name("bob"), "")
		if err != nil {
			t.Fatal("the stream is still open")
		}
		stream.Close()
	})
}

func TestWhatAStreamsClientSends(t *testing.T) {
	for sent, want := range map[int]bool{0: true, maxDropped - 1: true, maxDropped: false} {
		client, conn := net.Pipe()
		go func() {
			client.Write(make([]byte, sent))
			client.Close()
		}()
		if got := isGone(conn); got != want {
			t.Errorf("a client that sends %d bytes is taken for gone: %v, want %v", sent, got, want)
		}
	}
}

func TestNothingCanBeInjectedIntoAStream(t *testing.T) {
	url := serve(t)
	stream := subscribe(t, url+"/chat/eve")
	defer stream.Body.Close()
	for _, path := range []string{"/users/", "/chat/"} {
		for _, name := range []string{"a%0Adata:%20b", "a%0D%0A%0D%0Aevent:%20gap", "a%00", "%C2%85", "a%20b"} {
			if resp, _ := call(t, "POST", url+path+name, "hello"); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("POST %s%s: %s", path, name, resp.Status)
			}
		}
	}
	hostile := "a\n\nid: 7\nevent: gap\ndata: b\n\r: c\r\nretry: 1"
	call(t, "POST", url+"/chat/eve", hostile)
	call(t, "DELETE", url+"/users/eve", "")
	var r sseReader
	for len(r.events) < 3 {
		if _, err := io.CopyN(&r, stream.Body, 1); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{fmt.Sprintf(arrived, "eve"), "eve: a\n\nid: 7\nevent: gap\ndata: b\n\n: c\nretry: 1", fmt.Sprintf(left, "eve")}
	if got := r.take(); !slices.Equal(got, want) {
		t.Errorf("the stream got %q, want %q", got, want)
	}
	if !strings.HasSuffix(r.lastID, "-3") || r.retry == "1" {
		t.Errorf("the stream's id is %q and its retry %q", r.lastID, r.retry)
	}
}

func TestCommandLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		args  string
		usage bool // whether it is the command line that makes no sense
	}{
		{"-nothing", true}, {"-history 0", true}, {"-history x", true}, {"-max-users 0", true}, {"-max-streams -1", true},
		{"-grace -1s", true}, {"-keepalive 0", true}, {"-keepalive", true}, {"-host", true}, {"-host=", true}, {"-host=http://x/", true}, {"more", true}, {"-history 5 more", true},
		{"-addr nothing", false}, {"-addr 127.0.0.1", false}, {"-addr 127.0.0.1:", false}, {"-addr 127.0.0.1:99999", false},
		{"-addr 192.0.2.1:80", false}, {"-addr " + taken.Addr().String(), false},
	} {
		t.Run(c.args, func(t *testing.T) {
			err := run(t.Context(), strings.Fields(c.args), io.Discard)
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got the error %v, want one line", err)
			}
			if got := errors.As(err, new(usageError)); got != c.usage {
				t.Errorf("%v: a usage error: %v, want %v", err, got, c.usage)
			}
		})
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-h"}, &out); err != nil {
		t.Errorf("-h: %v", err)
	}
	for _, name := range []string{"addr", "history", "max-users", "max-streams", "grace", "keepalive", "host"} {
		if !strings.Contains(out.String(), "-"+name) {
			t.Errorf("-h does not tell of -%s", name)
		}
	}
}

// The source.

// TestHeaderProgram builds and runs the program in hub.go's header comment
// beside hub.go, and nothing else.
func TestHeaderProgram(t *testing.T) {
	source, err := os.ReadFile("hub.go")
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(string(source), "\npackage main")
	var program strings.Builder
	program.WriteString("package main\n\nimport (\n\t\"context\"\n\t\"log\"\n\t\"os\"\n\t\"time\"\n)\n\n")
	for line := range strings.Lines(header) {
		if code, ok := strings.CutPrefix(line, "//\t"); ok {
			program.WriteString(code)
		}
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module sample\n\ngo 1.26\n", "hub.go": string(source), "main.go": program.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", ".")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, out, program.String())
	}
	var r sseReader
	r.Write(out)
	if got, want := r.take(), []string{fmt.Sprintf(arrived, "alice"), "alice: hello"}; !slices.Equal(got, want) {
		t.Errorf("it printed the events %q, want %q", got, want)
	}
}

func TestOnlyTestsLock(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if i.Path.Value == `"sync"` || i.Path.Value == `"sync/atomic"` {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}

// Benchmarks.

// startHub runs a hub with users until the benchmark ends.
func startHub(b *testing.B, users int) *Hub {
	config := DefaultConfig
	config.MaxUsers = users + 1
	hub, err := NewHub(config)
	if err != nil {
		b.Fatal(err)
	}
	go hub.Run(b.Context())
	for i := range users {
		hub.Join(b.Context(), Name{fmt.Sprint("user", i)})
	}
	return hub
}

func BenchmarkJoinAndLeave(b *testing.B) {
	for _, users := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			hub := startHub(b, users)
			for b.Loop() {
				hub.Join(b.Context(), Name{"alice"})
				hub.Leave(b.Context(), Name{"alice"})
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, users := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("users=%d/unchanged", users), func(b *testing.B) {
			hub := startHub(b, users)
			for b.Loop() {
				hub.List(b.Context())
			}
		})
		b.Run(fmt.Sprintf("users=%d/changed", users), func(b *testing.B) {
			hub := startHub(b, users)
			for b.Loop() {
				hub.Join(b.Context(), Name{"alice"})
				hub.List(b.Context())
				hub.Leave(b.Context(), Name{"alice"})
			}
		})
		b.Run(fmt.Sprintf("users=%d/held", users), func(b *testing.B) {
			var r room
			for i := range users {
				r.names = append(r.names, fmt.Sprint("user", i))
			}
			for b.Loop() {
				r.listed = nil
				r.list()
			}
		})
	}
}

// BenchmarkPublish is how long it takes from an event until the last of so many
// waiting streams runs, and how long that holds the hub.
func BenchmarkPublish(b *testing.B) {
	for _, waiting := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			var passed sync.WaitGroup
			r := room{config: DefaultConfig, filling: newBatch(ID{})}
			var held time.Duration
			for b.Loop() {
				b.StopTimer()
				sealed := r.filling
				for range waiting {
					passed.Go(func() { <-sealed.ready })
				}
				runtime.Gosched()
				r.gather = nil
				b.StartTimer()
				begin := time.Now()
				r.publish("alice", ": ", "hello")
				held += time.Since(begin)
				passed.Wait()
			}
			b.ReportMetric(float64(held.Nanoseconds())/float64(b.N), "held-ns/op")
		})
	}
}

// TestMain runs the tests, or the server that a benchmark wants as a process
// of its own, so that the load's memory and time are not taken for its.
func TestMain(m *testing.M) {
	switch os.Getenv("LOBBY_BENCHMARK") {
	case "":
		m.Run()
	case "lobby":
		main()
	case "bare": // the least that a handler can do
		constant := func(body string) httprouter.Handle {
			return func(w http.ResponseWriter, _ *http.Request, _ httprouter.Params) {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				w.Header().Set("X-Content-Type-Options", "nosniff")
				w.Header().Set("Last-Event-ID", "m3k9x2a7-1000")
				w.Header().Set("Vary", "Accept")
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
				io.WriteString(w, body)
			}
		}
		router := httprouter.New()
		router.GET("/users", constant("Connected users:"+strings.Repeat("\nUser: user123", 1000)))
		router.POST("/users/:name", constant("User alice connected."))
		var broadcasting sync.Mutex
		var streams []http.ResponseWriter
		router.GET("/chat/:name", func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
			io.WriteString(w, "~")
			w.(http.Flusher).Flush()
			broadcasting.Lock()
			streams = append(streams, w)
			broadcasting.Unlock()
			<-r.Context().Done()
		})
		router.POST("/chat/:name", func(_ http.ResponseWriter, r *http.Request, _ httprouter.Params) {
			event, _ := io.ReadAll(r.Body)
			broadcasting.Lock()
			defer broadcasting.Unlock()
			for _, stream := range streams {
				stream.Write(event)
				stream.(http.Flusher).Flush()
			}
		})
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Printf("Starting server at http://%s\n", listener.Addr())
		http.Serve(listener, router)
	}
}

// process is a server that runs as a process.
type process struct {
	cmd *exec.Cmd
	url string
}

func startProcess(b *testing.B, kind string) *process {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-addr", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "LOBBY_BENCHMARK="+kind)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	p := &process{cmd: cmd}
	b.Cleanup(func() { p.stop() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	p.url = strings.TrimPrefix(strings.TrimSpace(line), "Starting server at ")
	return p
}

// stop ends the process and returns the processor time that it took.
func (p *process) stop() time.Duration {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// memory returns the bytes of memory that the process has, or 0 where there is
// no /proc to tell.
func (p *process) memory() int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, line, _ := strings.Cut(string(status), "VmRSS:")
	kib, _, _ := strings.Cut(line, " kB")
	n, _ := strconv.Atoi(strings.TrimSpace(kib))
	return n << 10
}

// request sends n requests over 4 connections, and fails the benchmark unless
// all are answered with 2xx.
func (p *process) request(b *testing.B, n int, method, path, body string) {
	b.Helper()
	const conns = 4
	var workers sync.WaitGroup
	for range conns {
		workers.Go(func() {
			for range n / conns {
				req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode >= 300 {
					b.Errorf("%s %s: %s", method, path, resp.Status)
				}
			}
		})
	}
	workers.Wait()
}

// audience are streams whose events with a ~ are counted.
type audience struct {
	conns     []net.Conn
	delivered atomic.Int64
}

// open opens n streams, one after another.
func (a *audience) open(b *testing.B, p *process, n int) {
	b.Helper()
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			a.close()
			b.Skip("more streams than this machine's limits allow: ", err)
		}
		a.conns = append(a.conns, conn)
		fmt.Fprintf(conn, "GET /chat/~%d HTTP/1.1\r\nHost: localhost\r\n\r\n", len(a.conns))
		go func() {
			buffer := make([]byte, 4<<10)
			for {
				n, err := conn.Read(buffer)
				if err != nil {
					return
				}
				a.delivered.Add(int64(bytes.Count(buffer[:n], []byte("~"))))
			}
		}()
	}
}

// await waits until n events in all were delivered.
func (a *audience) await(b *testing.B, n int64) {
	b.Helper()
	for begin := time.Now(); a.delivered.Load() < n; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			b.Fatalf("%d events were delivered, want %d", a.delivered.Load(), n)
		}
	}
}

func (a *audience) close() {
	for _, conn := range a.conns {
		conn.Close()
	}
}

// arrivals is how many events n streams get of their own arrivals.
func arrivals(n int) int64 { return int64(n) * int64(n+1) / 2 }

// BenchmarkRequests sends requests over 4 connections, to a server with 1,000
// users, 100 of them by their streams, and to bare handlers that know their answers.
func BenchmarkRequests(b *testing.B) {
	const requests, users, streams = 1000, 1000, 100
	for _, c := range []struct{ name, kind, method, path, body string }{
		{"list/bare", "bare", "GET", "/users", ""},
		{"list/lobby", "lobby", "GET", "/users", ""},
		{"join/bare", "bare", "POST", "/users/alice", ""},
		{"join/lobby", "lobby", "POST", "/users/alice", ""},
		{"say", "lobby", "POST", "/chat/alice", "hello"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := startProcess(b, c.kind)
			if c.kind == "lobby" {
				p.request(b, 4, "POST", "/users/alice", "")
				for i := range users - 1 - streams {
					call(b, "POST", fmt.Sprintf("%s/users/user%d", p.url, i), "")
				}
				var a audience
				defer a.close()
				a.open(b, p, streams)
				a.await(b, arrivals(streams))
			}
			n := 0
			for b.Loop() {
				p.request(b, requests, c.method, c.path, c.body)
				n += requests
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

// BenchmarkFanOut publishes as fast as 4 connections go, to the server and to a
// bare handler that makes one write for each event and stream. The processor time
// and the memory of an idle stream are the server's, opening the streams included.
func BenchmarkFanOut(b *testing.B) {
	const messages = 1000
	for _, c := range []struct {
		streams int
		kind    string
		opening int64 // events that opening the streams makes
	}{
		{100, "bare", 100},
		{100, "lobby", arrivals(100)},
		{1_000, "bare", 1_000},
		{1_000, "lobby", arrivals(1_000)},
		{9_000, "lobby", arrivals(9_000)},
	} {
		b.Run(fmt.Sprintf("streams=%d/%s", c.streams, c.kind), func(b *testing.B) {
			p := startProcess(b, c.kind)
			p.request(b, 4, "POST", "/users/alice", "")
			empty := p.memory()
			var a audience
			a.open(b, p, c.streams)
			defer a.close()
			want := c.opening
			a.await(b, want)
			idle := p.memory()
			for b.Loop() {
				p.request(b, messages, "POST", "/chat/alice", "~ and what makes it a message of sixty-four bytes, all in all...")
				want += messages * int64(c.streams)
				a.await(b, want)
			}
			b.ReportMetric(float64(want-c.opening)/b.Elapsed().Seconds(), "deliveries/s")
			b.ReportMetric(float64(p.stop().Microseconds())/float64(want), "cpu-µs/delivery")
			if empty > 0 {
				b.ReportMetric(float64(idle-empty)/float64(c.streams), "B/idle-stream")
			}
		})
	}
}

// BenchmarkStorm opens streams one after another, each announced to all before
// it and to itself.
func BenchmarkStorm(b *testing.B) {
	for _, streams := range []int{1_000, 5_000} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			n := int64(0)
			for b.Loop() {
				b.StopTimer()
				p := startProcess(b, "lobby")
				var a audience
				b.StartTimer()
				a.open(b, p, streams)
				a.await(b, arrivals(streams))
				n += arrivals(streams)
				b.StopTimer()
				a.close()
				p.stop()
				b.StartTimer()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}

// BenchmarkIdleStream is the memory that a stream takes in which nothing
// happens, and that of a bare handler that flushes once and waits. The opening
// of the streams is in it.
func BenchmarkIdleStream(b *testing.B) {
	const streams = 9000
	for _, c := range []struct {
		kind   string
		events int64
	}{
		{"bare", streams},
		{"lobby", arrivals(streams)},
	} {
		b.Run(c.kind, func(b *testing.B) {
			held := 0
			for b.Loop() {
				p := startProcess(b, c.kind)
				empty := p.memory()
				if empty == 0 {
					b.Skip("there is no /proc that tells how much memory a process has")
				}
				var a audience
				a.open(b, p, streams)
				a.await(b, c.events)
				held += p.memory() - empty
				p.stop()
				a.close()
			}
			b.ReportMetric(float64(held)/float64(b.N*streams), "B/idle-stream")
		})
	}
}
