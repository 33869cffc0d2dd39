// Lobby is a chat and presence server: users join, speak, leave and are listed over HTTP, and
// everyone who is listening gets each event immediately, over Server-Sent Events.
//
// A [Hub] is the whole of it without HTTP. One goroutine, [Hub.Run], owns all state. Callers send
// it a request over a channel and receive one result, so no locks are needed. The order in which
// Run receives the requests is the order of all events. (On several machines, it is that of a log.)
//
//   - A user is present from Join until Leave, and also while a stream in the user's name is open,
//     unless a Leave comes after the stream has opened.
//   - A stream is an open connection that receives every event. It keeps its user present for a
//     grace period of a few seconds after it closes, so that reloading a page causes no events.
//   - An event is an arrival, a message or a departure. Events are numbered.
//
// Package room has the state itself: who is present, and what each request changes. Package chain
// hands the events to all streams. This file has what happens around them: channels, streams, time.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lobby/chain"
	"lobby/chat"
	"lobby/room"
	"lobby/roster"
)

// Config holds a hub's settings.
type Config struct {
	History    int           // number of past events kept for resuming; 1 to maxHistory
	MaxUsers   int           // number of users at which Join rejects new ones; at least 1
	MaxStreams int           // number of open streams at which new ones are rejected; at least 1
	Grace      time.Duration // how long users stay after their last stream closes; at least 0
	KeepAlive  time.Duration // how long streams are silent before a comment; at least 1 ms
	Counts     bool          // whether to count what happens, for Figures
}

// maxHistory is the longest history: at its start a hub allocates 16 bytes for each event.
const maxHistory = 100_000_000

// DefaultConfig holds the defaults of the command-line flags.
var DefaultConfig = Config{
	History:    4096,
	MaxUsers:   100_000,
	MaxStreams: 10_000,
	Grace:      5 * time.Second,
	KeepAlive:  15 * time.Second,
}

// check returns an error that says what in the config makes no sense, or nil.
func (c Config) check() error {
	switch {
	case c.History < 1 || c.History > maxHistory:
		return fmt.Errorf("the history must be 1 to %d events", maxHistory)
	case c.MaxUsers < 1 || c.MaxStreams < 1:
		return errors.New("the limits of users and streams must be at least 1")
	case c.Grace < 0:
		return errors.New("the grace period must not be negative")
	case c.KeepAlive < time.Millisecond:
		return errors.New("the keep-alive must be at least 1ms")
	}
	return nil
}

// Errors of the hub's methods, besides those of package room.
var (
	ErrTooManyStreams = errors.New("there are too many open streams; try again later")
	ErrStopped        = errors.New("the server is stopping; try again later")
	ErrUnknown        = errors.New("it is not yet known whether this request took effect; a stream will tell")
)

// Hub is the way to the state that Run owns. Its methods may be called from any goroutine.
//
// If ctx is done or the hub stops before Run accepts a request, the request has no effect, and the
// method returns a zero ID with ctx's error or ErrStopped. Once accepted, a request always gets a
// result. On several machines, that of a change may be ErrUnknown: it may still take effect.
type Hub struct {
	config Config

	// From callers to Run. Each request carries a channel for its result.
	joins      chan request[chat.Name]
	leaves     chan request[chat.Name]
	messages   chan request[message]
	lists      chan request[roster.Form]
	subscribes chan request[subscription]

	figures chan chan Figures // from Figures

	// From open streams to Run.
	lags   chan lag        // a stream has fallen behind and asks where to continue
	closes chan room.Visit // a stream has closed; its visit, or zero if it kept nobody present

	stopping chan struct{} // closed when Run accepts no more requests

	// On several machines, see Connect; otherwise nil.
	node     string // its name
	commands chan<- room.Command
	steps    <-chan room.Step
	results  chan<- room.StepResult
}

// request is what a caller sends to Run.
type request[Query any] struct {
	query  Query
	result chan room.Result // has room for one, so that Run never waits for a caller
}

// message is the request to say something.
type message struct {
	from chat.Name
	text chat.Text
}

// subscription is the request to open a stream.
type subscription struct {
	name        chat.Name // the user whom the stream keeps present; zero for nobody
	lastEventID string
}

// lag is the question of a stream that has fallen behind.
type lag struct {
	lastEventID string // the last event that the stream has
	start       chan chain.Start
}

// NewHub returns a hub; call Run to start it. It returns an error if config makes no sense.
func NewHub(config Config) (*Hub, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	return &Hub{
		config:     config,
		joins:      make(chan request[chat.Name]),
		leaves:     make(chan request[chat.Name]),
		messages:   make(chan request[message]),
		lists:      make(chan request[roster.Form]),
		subscribes: make(chan request[subscription]),
		figures:    make(chan chan Figures),
		lags:       make(chan lag),
		closes:     make(chan room.Visit),
		stopping:   make(chan struct{}),
	}, nil
}

// Join adds a user, who stays until Leave, and reports whether the user is new. A user who is
// present only because of a stream now stays. The ID, as with every method, is that of the last
// event that the result reflects: the arrival, if there was one. The error can be
// room.ErrTooManyUsers.
func (h *Hub) Join(ctx context.Context, name chat.Name) (id chain.ID, isNew bool, err error) {
	r := ask(ctx, h, h.joins, name)
	return r.ID, r.IsNew, r.Err
}

// Leave removes a user, whatever kept them present. The user's streams stay open but no longer keep
// anyone present. The error can be room.ErrNotPresent.
func (h *Hub) Leave(ctx context.Context, name chat.Name) (chain.ID, error) {
	r := ask(ctx, h, h.leaves, name)
	return r.ID, r.Err
}

// Say sends a message from a user to every stream. The error can be room.ErrNotPresent.
func (h *Hub) Say(ctx context.Context, from chat.Name, text chat.Text) (chain.ID, error) {
	r := ask(ctx, h, h.messages, message{from, text})
	return r.ID, r.Err
}

// List returns the present users. The caller must call the list's Return when it has sent it. The
// error can be room.ErrTooManyLists.
func (h *Hub) List(ctx context.Context, form roster.Form) (chain.ID, *roster.List, error) {
	r := ask(ctx, h, h.lists, form)
	return r.ID, r.List, r.Err
}

// Watch opens a stream without making anyone present. The stream starts with the events after
// lastEventID, or with a gap if some of them are missing; if lastEventID is empty, it starts with
// the next event. The ID is that of the last event so far. The error can be ErrTooManyStreams;
// without an error, the caller must Close the stream.
func (h *Hub) Watch(ctx context.Context, lastEventID string) (chain.ID, *Stream, error) {
	return h.Subscribe(ctx, chat.Name{}, lastEventID)
}

// Subscribe opens a stream like Watch and keeps the named user present while it is open. If the
// user is new, the ID is that of the arrival, which the stream receives right after any missed
// events.
func (h *Hub) Subscribe(ctx context.Context, name chat.Name, lastEventID string) (chain.ID, *Stream, error) {
	r := ask(ctx, h, h.subscribes, subscription{name, lastEventID})
	if r.Err != nil {
		return r.ID, nil, r.Err
	}
	visit := room.Visit{Name: name, Arrival: r.Arrival}
	return r.ID, &Stream{hub: h, Reader: chain.NewReader(*r.Start, h.after), visit: visit}, nil
}

// Figures says how busy a hub is.
type Figures struct {
	Users, Streams int         // present and open now
	Counts         room.Counts // since Run was called; zero without Config.Counts
}

// Figures returns how busy the hub is. The error is ErrStopped.
func (h *Hub) Figures() (Figures, error) {
	result := make(chan Figures, 1)
	select {
	case h.figures <- result:
		return <-result, nil
	case <-h.stopping:
		return Figures{}, ErrStopped
	}
}

// ask sends query to Run and waits for the result, unless ctx is done or the hub stops before Run
// accepts the query.
func ask[Query any](ctx context.Context, h *Hub, requests chan<- request[Query], query Query) room.Result {
	r := request[Query]{query, make(chan room.Result, 1)}
	select {
	case requests <- r:
		return <-r.result
	case <-h.stopping:
		return room.Result{Err: ErrStopped}
	case <-ctx.Done():
		return room.Result{Err: ctx.Err()}
	}
}

// Stream is one reader of the hub's events. Call Next, of chain.Reader, to read them.
type Stream struct {
	*chain.Reader
	hub    *Hub
	visit  room.Visit // the stream keeps its user present during this visit; zero for nobody
	closed bool
}

// after asks Run where a stream that has fallen behind continues. Run answers this question until
// the last stream has closed, even while Run is stopping.
func (h *Hub) after(ctx context.Context, lastEventID string) (chain.Start, error) {
	l := lag{lastEventID, make(chan chain.Start, 1)}
	select {
	case h.lags <- l:
		return <-l.start, nil
	case <-ctx.Done():
		return chain.Start{}, ctx.Err()
	}
}

// Close closes the stream. It waits until Run notices, so Run must have been called. Next must not
// be called after Close. A second Close does nothing.
func (s *Stream) Close() {
	if !s.closed {
		s.closed = true
		s.hub.closes <- s.visit
	}
}

// state is what Run owns. There is one, a local variable of Run.
type state struct {
	hub  *Hub       // its settings, and its channels to and from the node
	room *room.Room // users and events; Chain.Readers counts the streams, those being opened included

	expiries   []expiry         // of grace periods, the earliest first
	graceTimer <-chan time.Time // delivers at the first of expiries or earlier; nil if there are none

	// On several machines: commands that have not come back from the log, in order.
	pending []pending
}

// expiry is the end of a grace period, for which a closed stream still keeps its user present.
type expiry struct {
	visit room.Visit
	at    time.Time
}

const (
	// maxExpiries bounds state.expiries, at 6 MB: beyond it the oldest grace period ends early.
	maxExpiries = 1 << 17
	// If Run is more than maxLate late in ending a grace period, the process may have been suspended.
	// So Run postpones that end, and those that would follow soon.
	maxLate = 10 * time.Millisecond
	// maxStopping is how long requests that are pending may delay the end of the streams.
	maxStopping = time.Second
)

// Run serves the hub until ctx is done or, on several machines, the node is no longer part of the
// lobby. Then every stream ends, after all events up to then, and Run returns when the last stream
// is closed. It may be called only once.
func (h *Hub) Run(ctx context.Context) {
	c := h.config
	s := state{
		hub:  h,
		room: room.New(room.Config{History: c.History, MaxUsers: c.MaxUsers, KeepAlive: c.KeepAlive}),
	}
	if c.Counts {
		s.room.Counts = new(room.Counts)
	}
	for stopped := false; !stopped; {
		select {
		case q := <-h.joins:
			s.submit(room.Command{Verb: room.Join, Name: q.query}, q.result)
		case q := <-h.leaves:
			s.submit(room.Command{Verb: room.Leave, Name: q.query}, q.result)
		case q := <-h.messages:
			s.submit(room.Command{Verb: room.Say, Name: q.query.from, Text: q.query.text}, q.result)
		case q := <-h.lists:
			s.submit(room.Command{Verb: room.List, Form: q.query}, q.result)
		case q := <-h.subscribes:
			s.subscribe(q.query, q.result)
		case lag := <-h.lags:
			lag.start <- s.room.CatchUp(lag.lastEventID)
		case visit := <-h.closes:
			s.startGracePeriod(visit)
		case result := <-h.figures:
			result <- s.figures()
		case <-s.room.Chain.Due():
			s.room.Chain.Tick()
		case <-s.graceTimer:
			s.checkGracePeriods()
		case step := <-h.steps:
			stopped = s.applyStep(step)
		case <-ctx.Done():
			stopped = true
		}
	}
	close(h.stopping)
	s.finishPending()
	s.room.Chain.End()
	for s.room.Chain.Readers > 0 {
		select {
		case lag := <-h.lags:
			// Not CatchUp: that also counts the lag for Figures, which nobody asks for any more.
			lag.start <- s.room.Chain.After(lag.lastEventID)
		case <-h.closes:
			s.room.Chain.Readers--
		}
	}
}

// submit applies a command and sends its result at once on a single machine. On several, it sends
// the command to the log, and applyStep does the rest when the command comes back.
func (s *state) submit(c room.Command, result chan<- room.Result) {
	if s.hub.commands == nil {
		result <- s.room.Apply(s.hub.node, c)
		return
	}
	s.pending = append(s.pending, pending{c, result})
	s.hub.commands <- c
}

// subscribe opens a stream, unless this hub has too many.
func (s *state) subscribe(sub subscription, result chan<- room.Result) {
	if s.room.Chain.Readers == s.hub.config.MaxStreams {
		result <- room.Result{Err: ErrTooManyStreams}
		return
	}
	s.room.Chain.Readers++
	verb := room.Open
	if sub.name == (chat.Name{}) {
		verb = room.Watch
	}
	s.submit(room.Command{Verb: verb, Name: sub.name, LastEventID: sub.lastEventID}, result)
}

func (s *state) figures() Figures {
	f := Figures{Users: s.room.Users(), Streams: s.room.Chain.Readers}
	if s.room.Counts != nil {
		f.Counts = *s.room.Counts
	}
	return f
}

// startGracePeriod starts the grace period of a stream that has closed, unless it keeps nobody
// present any more.
func (s *state) startGracePeriod(visit room.Visit) {
	s.room.Chain.Readers--
	if !s.room.IsCurrent(visit) {
		return
	}
	if len(s.expiries) == maxExpiries {
		s.endFirstGracePeriod()
	}
	s.expiries = append(s.expiries, expiry{visit, time.Now().Add(s.hub.config.Grace)})
	if len(s.expiries) == 1 {
		s.graceTimer = time.After(s.hub.config.Grace)
	}
}

// checkGracePeriods ends at most one grace period, even if more are due, so that requests do not
// wait while a crowd leaves.
func (s *state) checkGracePeriods() {
	now := time.Now()
	late := now.Sub(s.expiries[0].at) // negative if the timer was for a period that has ended early
	if late > maxLate {
		// The process was probably suspended, or a large crowd is leaving. In the first case,
		// clients may have reconnected without Run having noticed yet. So every grace period that
		// would end before `until` ends at `until` instead. That gives clients as much time as was
		// lost, but at most one grace period. The queue remains in order.
		until := now.Add(min(late, s.hub.config.Grace))
		for i := range s.expiries {
			if e := &s.expiries[i]; e.at.Before(until) {
				e.at = until
			}
		}
	} else if late >= 0 {
		s.endFirstGracePeriod()
	}
	s.graceTimer = nil
	if len(s.expiries) > 0 {
		s.graceTimer = time.After(time.Until(s.expiries[0].at))
	}
}

// endFirstGracePeriod ends the oldest grace period: its stream no longer keeps the user present.
func (s *state) endFirstGracePeriod() {
	visit := s.expiries[0].visit
	s.expiries = s.expiries[1:]
	if s.room.IsCurrent(visit) {
		unread := make(chan room.Result, 1)
		s.submit(room.Command{Verb: room.Release, Name: visit.Name, Arrival: visit.Arrival}, unread)
	}
}

// The rest of this file is for several machines. Their hubs have one order of commands, that of a
// log (package cluster). A hub sends each command to the log through its node, which gives it all
// commands that come back, its own and the others', as steps. All hubs apply the same commands in
// the same order, so they have the same users, events and ids. A request gets its result when its
// own command has come back.

// Connect makes the hub one of several; call it before Run. Node is the name of its node. Every
// command sent to commands must come back in an Entry of that node, in the same order, until an
// End. The hub sends one result for each step except Entry and End; results needs a buffer of at
// least one. Commands must be received even while the hub receives no step.
func (h *Hub) Connect(
	node string, commands chan<- room.Command, steps <-chan room.Step, results chan<- room.StepResult,
) {
	h.node, h.commands, h.steps, h.results = node, commands, steps, results
}

// pending is a command that has not come back from the log.
type pending struct {
	command room.Command
	result  chan<- room.Result
}

// applyStep carries out a step, and reports whether it was the last.
func (s *state) applyStep(step room.Step) (isLast bool) {
	switch step := step.(type) {
	case room.Entry:
		for _, c := range step.Commands {
			if step.Node == s.hub.node {
				// c is the first pending command as the log has it: without its LastEventID, and a
				// Watch or List as a Sync. So Apply gets the pending command itself.
				s.pending[0].result <- s.room.Apply(s.hub.node, s.pending[0].command)
				s.pending = s.pending[1:]
			} else {
				s.room.Apply(step.Node, c)
			}
		}
	case room.End:
		s.failPending(step.Unknown)
		return true
	default:
		s.hub.results <- s.room.ApplyStep(step)
	}
	return false
}

// finishPending waits for the commands of all pending requests, up to maxStopping.
func (s *state) finishPending() {
	for late := time.After(maxStopping); len(s.pending) > 0; {
		select {
		case step := <-s.hub.steps:
			s.applyStep(step)
		case <-late:
			s.failPending(len(s.pending))
		}
	}
}

// failPending ends all pending requests with an error. The first `unknown` commands are perhaps in
// the log, so if they are changes, they may still take effect.
func (s *state) failPending(unknown int) {
	for i, p := range s.pending {
		err, verb := ErrStopped, p.command.Verb
		if i < unknown && verb != room.List && verb != room.Watch { // They change nothing.
			err = ErrUnknown
		}
		if verb == room.Open || verb == room.Watch {
			s.room.Chain.Readers--
		}
		p.result <- room.Result{Err: err}
	}
	s.pending = nil
}
