// Lobby is a chat and presence server: users join, speak, leave and are listed over HTTP, and
// everyone who listens hears of it at once, over Server-Sent Events.
//
// Read this file first. A Hub knows who is in a chat, what has happened there, and who is
// listening. One goroutine, Run, owns all of that. Whoever wants something sends Run a request over
// a channel and gets one answer back, so nothing takes a lock. Everything that happens has one
// order: the order in which Run took the requests.
//
//   - A user is someone who is there: after Join until Leave, or because of a stream.
//   - A stream is an open connection that hears everything. A stream that was opened in a user's
//     name holds the user there. It goes on holding for the grace, a few seconds, after it has
//     closed, so that a reload of a page is no news to anyone.
//   - An event is something that happened: a user arrived, spoke or left. Events are numbered, and
//     package chain hands them to all streams.
//
// This file, chain/ and chat/ need the standard library alone and know nothing of HTTP. To use the
// hub in a program of your own, copy the three, and change "lobby/" in the imports to the name of
// your module. This is a whole program then, which prints what alice's stream tells her for a
// second:
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"os"
//		"time"
//
//		"lobby/chat"
//	)
//
//	func main() {
//		hub, err := NewHub(DefaultConfig)
//		if err != nil {
//			log.Fatal(err)
//		}
//		ctx, stop := context.WithTimeout(context.Background(), time.Second)
//		defer stop()
//		go hub.Run(ctx)
//		alice, _ := chat.ParseName("alice")
//		hello, _ := chat.ParseText("hello")
//		_, stream, err := hub.Subscribe(ctx, alice, "")
//		if err != nil {
//			log.Fatal(err)
//		}
//		defer stream.Close()
//		hub.Say(ctx, alice, hello)
//		for data, err := stream.Next(ctx); err == nil; data, err = stream.Next(ctx) {
//			os.Stdout.Write(data)
//		}
//	}
package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"lobby/chain"
	"lobby/chat"
)

// Config holds a hub's settings.
type Config struct {
	History    int           // how many events a stream can resume from; at least 1
	MaxUsers   int           // how many users there may be before Join refuses new ones; at least 1
	MaxStreams int           // how many streams may be open; at least 1
	Grace      time.Duration // how long a stream holds its user after it has closed; at least 0
	KeepAlive  time.Duration // how long streams are silent before they get a comment; at least 1 ms
}

// DefaultConfig suits a chat on one machine.
var DefaultConfig = Config{
	History:    4096,
	MaxUsers:   100_000,
	MaxStreams: 10_000,
	Grace:      5 * time.Second,
	KeepAlive:  15 * time.Second,
}

// Errors of the hub's methods.
var (
	ErrNotConnected   = errors.New("the user is not connected")
	ErrTooManyUsers   = errors.New("the server has as many users as it takes; try again later")
	ErrTooManyStreams = errors.New("the server has as many streams as it takes; try again later")
	ErrStopped        = errors.New("the server is stopping; try again later")
)

// Hub is a handle on the state that Run owns. Its methods may be called from any goroutine.
//
// A request that Run has taken is always answered. One that Run has not taken, because ctx was done
// or the hub stopped, changes nothing: its ID is zero, and its error is that of ctx or ErrStopped.
type Hub struct {
	config Config

	// From callers to Run. Each request brings a channel for its answer.
	joins      chan request[chat.Name, joined]
	leaves     chan request[chat.Name, outcome]
	messages   chan request[message, outcome]
	lists      chan request[struct{}, listed]
	releases   chan *chat.List // a caller no longer needs this list
	subscribes chan request[subscription, opened]

	// From open streams to Run.
	lags   chan request[string, chain.Start] // a stream fell behind: where does it go on after this id?
	closes chan visit                        // a stream has closed, which held this visit

	stopping chan struct{} // closed by Run, which from then on serves open streams alone
}

// request is a question to Run, and the way back for its answer.
type request[Query, Answer any] struct {
	query  Query
	answer chan Answer // has room for one, so that Run never waits for a caller
}

// What callers ask for.
type (
	message struct {
		from chat.Name
		text chat.Text
	}
	subscription struct {
		name        chat.Name // whom the stream holds; zero for nobody
		lastEventID string
	}
)

// What Run answers. An id is that of the last event that the answer takes into account.
type (
	outcome struct {
		id  chain.ID
		err error
	}
	joined struct {
		outcome
		isNew bool // whether the user was not there before
	}
	listed struct {
		id    chain.ID
		users *chat.List
	}
	opened struct {
		outcome
		start chain.Start
		visit visit
	}
)

// visit is one stay of a user. A stream remembers the visit that it holds: a user who has left and
// come again is on another one. The zero visit is that of a stream that holds nobody.
type visit struct {
	name    string
	arrival chain.ID
}

// NewHub returns a hub that waits for Run. The error says what in config makes no sense.
func NewHub(config Config) (*Hub, error) {
	switch {
	case config.History < 1:
		return nil, errors.New("the history must be at least 1 event")
	case config.MaxUsers < 1 || config.MaxStreams < 1:
		return nil, errors.New("the limits of users and streams must be at least 1")
	case config.Grace < 0:
		return nil, errors.New("the grace must not be negative")
	case config.KeepAlive < time.Millisecond:
		return nil, errors.New("the keep-alive must be at least 1ms")
	}
	return &Hub{
		config:     config,
		joins:      make(chan request[chat.Name, joined]),
		leaves:     make(chan request[chat.Name, outcome]),
		messages:   make(chan request[message, outcome]),
		lists:      make(chan request[struct{}, listed]),
		releases:   make(chan *chat.List),
		subscribes: make(chan request[subscription, opened]),
		lags:       make(chan request[string, chain.Start]),
		closes:     make(chan visit),
		stopping:   make(chan struct{}),
	}, nil
}

// ask offers query to Run until ctx is done or the hub stops. The error is nil if Run took it.
func ask[Query, Answer any](
	ctx context.Context, stopping <-chan struct{}, to chan<- request[Query, Answer], query Query,
) (answer Answer, err error) {
	r := request[Query, Answer]{query, make(chan Answer, 1)}
	select {
	case to <- r:
		return <-r.answer, nil
	case <-stopping:
		return answer, ErrStopped
	case <-ctx.Done():
		return answer, ctx.Err()
	}
}

// Join adds a user, who stays until Leave, and reports whether the user is new. A user who is there
// only by a stream stays from now on. The ID, as with every method, is that of the last event that
// the answer takes into account: the arrival, if there was one. The error can be ErrTooManyUsers.
func (h *Hub) Join(ctx context.Context, name chat.Name) (id chain.ID, isNew bool, err error) {
	a, err := ask(ctx, h.stopping, h.joins, name)
	if err != nil {
		return id, false, err
	}
	return a.id, a.isNew, a.err
}

// Leave removes a user, however the user came. The user's streams stay open but no longer count as
// anyone's presence. The error can be ErrNotConnected.
func (h *Hub) Leave(ctx context.Context, name chat.Name) (id chain.ID, err error) {
	a, err := ask(ctx, h.stopping, h.leaves, name)
	if err != nil {
		return id, err
	}
	return a.id, a.err
}

// Say tells every stream what a user says. The error can be ErrNotConnected.
func (h *Hub) Say(ctx context.Context, from chat.Name, text chat.Text) (id chain.ID, err error) {
	a, err := ask(ctx, h.stopping, h.messages, message{from, text})
	if err != nil {
		return id, err
	}
	return a.id, a.err
}

// List returns who is there. The caller must call Release when it no longer needs the list.
func (h *Hub) List(ctx context.Context) (id chain.ID, users *chat.List, err error) {
	a, err := ask(ctx, h.stopping, h.lists, struct{}{})
	return a.id, a.users, err
}

// Release lets go of a list. Run counts who still needs the long ones, to bound what they keep.
func (h *Hub) Release(users *chat.List) {
	if users.Long() {
		select {
		case h.releases <- users:
		case <-h.stopping: // where nobody counts any more
		}
	}
}

// Watch opens a stream that holds nobody. The stream begins with the events after lastEventID, or
// says that some of them are missing; if lastEventID is empty, it begins with the next event. The
// ID is that of the last event so far. The error can be ErrTooManyStreams; without an error, the
// caller must Close the stream.
func (h *Hub) Watch(ctx context.Context, lastEventID string) (chain.ID, *Stream, error) {
	return h.Subscribe(ctx, chat.Name{}, lastEventID)
}

// Subscribe opens a stream as Watch does, and holds a user there with it. If the user is new, the
// arrival is the last event that the ID takes into account, and the first that the stream gets after
// those that were missed.
func (h *Hub) Subscribe(ctx context.Context, name chat.Name, lastEventID string) (chain.ID, *Stream, error) {
	a, err := ask(ctx, h.stopping, h.subscribes, subscription{name, lastEventID})
	if err = cmp.Or(err, a.err); err != nil {
		return a.id, nil, err
	}
	return a.id, &Stream{hub: h, Reader: chain.NewReader(a.start, h.after), visit: a.visit}, nil
}

// Stream is one reader of the hub's events. Next, of chain.Reader, returns what comes.
type Stream struct {
	*chain.Reader
	hub    *Hub
	visit  visit
	closed bool
}

// after asks Run where a stream that fell behind goes on. The hub may be stopping: Run serves open
// streams until the last of them is closed, so this needs no other way out than ctx, and a nil
// channel, which never delivers, takes the place of stopping.
func (h *Hub) after(ctx context.Context, lastEventID string) (chain.Start, error) {
	return ask(ctx, nil, h.lags, lastEventID)
}

// Close closes the stream; Next must not be called after it. A second Close does nothing.
func (s *Stream) Close() {
	if !s.closed {
		s.closed = true
		s.hub.closes <- s.visit
	}
}

// room is the state of a hub. There is one, a local variable of Run.
type room struct {
	config Config
	chain  *chain.Chain // what happened, and how many streams read it

	users  map[string]*user // who is there, by name
	roster chat.Roster      // their names, as a list

	graces []grace          // of streams that have closed, the first to end in front
	over   <-chan time.Time // delivers when the first of graces ends; nil if there are none
}

// user is someone who is there.
type user struct {
	visit        // the present one
	stays   bool // whether the user stays until Leave, because of Join
	streams int  // how many streams hold the user, those in their grace included
}

// grace is the time for which a stream that has closed still holds its user.
type grace struct {
	visit
	end time.Time
}

const (
	// maxGraces is how many graces there may be. Beyond that the first one ends early, so that memory
	// does not grow however fast somebody opens and closes streams.
	maxGraces = 1 << 17

	// maxLate is how late Run may notice the end of a grace before it takes the process for paused.
	maxLate = 10 * time.Millisecond
)

// Run serves the hub until ctx is done. Then every stream ends, after all events up to then, and
// Run returns when the last stream is closed. It can run only once.
func (h *Hub) Run(ctx context.Context) {
	r := room{
		config: h.config,
		chain:  chain.New(h.config.History, h.config.KeepAlive),
		users:  make(map[string]*user),
	}
	for {
		select {
		case q := <-h.joins:
			q.answer <- r.join(q.query)

		case q := <-h.leaves:
			q.answer <- r.leave(q.query)

		case q := <-h.messages:
			q.answer <- r.say(q.query)

		case q := <-h.lists:
			q.answer <- listed{r.chain.LastID(), r.roster.Take()}

		case list := <-h.releases:
			r.roster.Release(list)

		case q := <-h.subscribes:
			q.answer <- r.subscribe(q.query)

		case q := <-h.lags:
			q.answer <- r.chain.After(q.query)

		case v := <-h.closes:
			r.closeStream(v)

		case <-r.chain.Due():
			r.chain.Tick()

		case <-r.over:
			r.checkGraces()

		case <-ctx.Done():
			close(h.stopping)
			r.chain.End()
			r.drain(h.lags, h.closes)
			return
		}
	}
}

// drain serves the streams until the last of them is closed.
func (r *room) drain(lags <-chan request[string, chain.Start], closes <-chan visit) {
	for r.chain.Readers > 0 {
		select {
		case q := <-lags:
			q.answer <- r.chain.After(q.query)

		case <-closes:
			r.chain.Readers--
		}
	}
}

func (r *room) join(name chat.Name) joined {
	u := r.users[name.String()]
	isNew := u == nil
	if isNew {
		if len(r.users) >= r.config.MaxUsers {
			return joined{outcome: outcome{r.chain.LastID(), ErrTooManyUsers}}
		}
		u = r.add(name)
	}
	u.stays = true
	return joined{outcome{id: r.chain.LastID()}, isNew}
}

func (r *room) leave(name chat.Name) outcome {
	u := r.users[name.String()]
	if u == nil {
		return outcome{r.chain.LastID(), ErrNotConnected}
	}
	r.remove(u)
	return outcome{id: r.chain.LastID()}
}

func (r *room) say(m message) outcome {
	if r.users[m.from.String()] == nil {
		return outcome{r.chain.LastID(), ErrNotConnected}
	}
	r.chain.Append(m.from.String(), ": ", m.text.String())
	return outcome{id: r.chain.LastID()}
}

func (r *room) subscribe(s subscription) opened {
	if r.chain.Readers == r.config.MaxStreams {
		return opened{outcome: outcome{r.chain.LastID(), ErrTooManyStreams}}
	}
	r.chain.Readers++
	a := opened{start: r.chain.After(s.lastEventID)} // before the user arrives, so that the stream begins with that
	if s.name != (chat.Name{}) {
		u := r.users[s.name.String()]
		if u == nil {
			u = r.add(s.name)
		}
		u.streams++
		a.visit = u.visit
	}
	a.id = r.chain.LastID()
	return a
}

// closeStream begins the grace of a stream that has closed, unless its user is gone already.
func (r *room) closeStream(v visit) {
	r.chain.Readers--
	if r.visitor(v) == nil {
		return
	}
	if len(r.graces) == maxGraces {
		r.endFirstGrace()
	}
	r.graces = append(r.graces, grace{v, time.Now().Add(r.config.Grace)})
	if len(r.graces) == 1 {
		r.over = time.After(r.config.Grace)
	}
}

// checkGraces ends the first of the graces. The next one has a turn of its own, even if it is due,
// so that no request waits while a crowd leaves.
func (r *room) checkGraces() {
	now := time.Now()
	late := now.Sub(r.graces[0].end) // negative if maxGraces ended the grace that the timer was set for
	if late > maxLate {
		// We take it that the process was paused, and Run has not yet heard who came back meanwhile.
		// So no grace ends before the time by which this one is late has passed again, but at most
		// one grace. Later ends stay as they are, so the first to end stays in front.
		until := now.Add(min(late, r.config.Grace))
		for i := range r.graces {
			if g := &r.graces[i]; g.end.Before(until) {
				g.end = until
			}
		}
	} else if late >= 0 {
		r.endFirstGrace()
	}
	r.over = nil
	if len(r.graces) > 0 {
		r.over = time.After(time.Until(r.graces[0].end))
	}
}

// endFirstGrace takes the first of the graces off its user, who leaves if nothing else holds it.
func (r *room) endFirstGrace() {
	if u := r.visitor(r.graces[0].visit); u != nil {
		u.streams--
		if u.streams == 0 && !u.stays {
			r.remove(u)
		}
	}
	r.graces = r.graces[1:]
}

// visitor returns the user who is on that visit, or nil if it has ended.
func (r *room) visitor(v visit) *user {
	if u := r.users[v.name]; u != nil && u.visit == v {
		return u
	}
	return nil
}

func (r *room) add(name chat.Name) *user {
	r.chain.Append("User ", name.String(), " connected to the chat.")
	u := &user{visit: visit{name.String(), r.chain.LastID()}}
	r.users[u.name] = u
	r.roster.Add(u.name)
	return u
}

func (r *room) remove(u *user) {
	delete(r.users, u.name)
	r.roster.Remove(u.name)
	r.chain.Append("User ", u.name, " disconnected from the chat.")
}
