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
	"context"
	"errors"
	"maps"
	"time"

	"lobby/chain"
	"lobby/chat"
	"lobby/roster"
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
	ErrUnknown        = errors.New("it is not known yet whether this happened; a stream will tell")
)

// Hub is a handle on the state that Run owns. Its methods may be called from any goroutine.
//
// A request that Run has taken is always answered. If ctx is done before, or if the hub stops, it
// changes nothing: its ID is zero, and its error is that of ctx or ErrStopped.
type Hub struct {
	config Config

	// From callers to Run. Each request brings a channel for its answer.
	joins      chan request[chat.Name, joined]
	leaves     chan request[chat.Name, chain.ID]
	messages   chan request[chat.Command, chain.ID]
	lists      chan request[roster.Form, listed]
	releases   chan *roster.List // a caller no longer needs this list
	subscribes chan request[subscription, opened]

	// From open streams to Run.
	lags   chan request[string, chain.Start] // a stream fell behind: where does it go on after this id?
	closes chan visit                        // a stream has closed, which held this visit

	stopping chan struct{} // closed when Run takes no more requests

	// To and from the other hubs of a lobby on several machines; nil if this hub is alone.
	commands chan<- chat.Command
	turns    <-chan chat.Turn
	node     string // this hub's name among them
}

// request is a question to Run, and the way back for its answer.
type request[Query, Answer any] struct {
	query  Query
	answer chan result[Answer] // has room for one, so that Run never waits for a caller
}

// result is an answer of Run, with the error that goes with it.
type result[Answer any] struct {
	answer Answer
	err    error
}

// subscription is what whoever opens a stream asks for.
type subscription struct {
	name        chat.Name // whom the stream holds; zero for nobody
	lastEventID string
}

// What Run answers, if it is more than an id. An id is that of the last event that the answer takes
// into account; ErrNotConnected and ErrTooManyUsers come with one, too.
type (
	joined struct {
		id    chain.ID
		isNew bool // whether the user was not there before
	}
	listed struct {
		id    chain.ID
		users *roster.List
	}
	opened struct {
		id    chain.ID
		start chain.Start
		visit visit
	}
)

// visit is the time from one arrival of a user to the next departure. A stream remembers the visit
// that it holds: a user who has left and come again is on another. The zero visit holds nobody.
type visit struct {
	name    chat.Name
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
		leaves:     make(chan request[chat.Name, chain.ID]),
		messages:   make(chan request[chat.Command, chain.ID]),
		lists:      make(chan request[roster.Form, listed]),
		releases:   make(chan *roster.List),
		subscribes: make(chan request[subscription, opened]),
		lags:       make(chan request[string, chain.Start]),
		closes:     make(chan visit),
		stopping:   make(chan struct{}),
	}, nil
}

// ask offers query to Run until ctx is done or the hub stops. If Run took it, the answer is Run's.
func ask[Query, Answer any](
	ctx context.Context, stopping <-chan struct{}, to chan<- request[Query, Answer], query Query,
) (answer Answer, err error) {
	r := request[Query, Answer]{query, make(chan result[Answer], 1)}
	select {
	case to <- r:
		result := <-r.answer
		return result.answer, result.err
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
	return a.id, a.isNew, err
}

// Leave removes a user, however the user came. The user's streams stay open but no longer count as
// anyone's presence. The error can be ErrNotConnected.
func (h *Hub) Leave(ctx context.Context, name chat.Name) (id chain.ID, err error) {
	return ask(ctx, h.stopping, h.leaves, name)
}

// Say tells every stream what a user says. The error can be ErrNotConnected.
func (h *Hub) Say(ctx context.Context, from chat.Name, text chat.Text) (id chain.ID, err error) {
	return ask(ctx, h.stopping, h.messages, chat.Command{Do: chat.Say, Name: from, Text: text})
}

// List returns who is there. The caller must call Release when it no longer needs the list.
func (h *Hub) List(ctx context.Context, form roster.Form) (id chain.ID, users *roster.List, err error) {
	a, err := ask(ctx, h.stopping, h.lists, form)
	return a.id, a.users, err
}

// Release lets go of a list. Run counts who still needs the long ones, to bound what they keep.
func (h *Hub) Release(users *roster.List) {
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
// arrival is the last event that the ID takes into account, and the first that the stream gets
// after those that were missed.
func (h *Hub) Subscribe(ctx context.Context, name chat.Name, lastEventID string) (chain.ID, *Stream, error) {
	a, err := ask(ctx, h.stopping, h.subscribes, subscription{name, lastEventID})
	if err != nil {
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
	chain  *chain.Chain     // what happened, and how many streams read it
	users  map[string]*user // who is there, by name
	roster roster.Roster    // their names, as a list
	graces []grace          // of streams that have closed, the first to end in front
	over   <-chan time.Time // delivers when the first of graces ends; nil if there are none

	// In a lobby on several machines; see the end of this file.
	node     string
	commands chan<- chat.Command
	waiting  []waiting // requests whose commands have not had their turn, in order
	opening  int       // how many of them open a stream
}

// user is someone who is there.
type user struct {
	visit      // the present one
	stays bool // whether the user stays until Leave, because of Join

	// streams says how many streams hold the user, those in their grace included. They are counted
	// for each hub, by its name, which is "" if it is alone. Those that have none are left out.
	streams map[string]int
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

// Run serves the hub until ctx is done, or it has lost the others. Then every stream ends, after
// all events up to then, and Run returns when the last stream is closed. It can run only once.
func (h *Hub) Run(ctx context.Context) {
	r := room{
		config:   h.config,
		chain:    chain.New(h.config.History, h.config.KeepAlive),
		users:    make(map[string]*user),
		node:     h.node,
		commands: h.commands,
	}
	for stopped := false; !stopped; {
		select {
		case q := <-h.joins:
			order(&r, chat.Command{Do: chat.Join, Name: q.query}, q, (*room).join)
		case q := <-h.leaves:
			order(&r, chat.Command{Do: chat.Leave, Name: q.query}, q, (*room).leave)
		case q := <-h.messages:
			order(&r, q.query, q, (*room).say)
		case q := <-h.lists:
			order(&r, chat.Command{Do: chat.Look}, q, (*room).list)
		case q := <-h.subscribes:
			r.subscribe(q)
		case list := <-h.releases:
			r.roster.Return(list)
		case q := <-h.lags:
			q.answer <- result[chain.Start]{answer: r.chain.After(q.query)}
		case v := <-h.closes:
			r.closeStream(v)
		case <-r.chain.Due():
			r.chain.Tick()
		case <-r.over:
			r.checkGraces()
		case turn := <-h.turns:
			stopped = r.take(turn)
		case <-ctx.Done():
			stopped = true
		}
	}
	close(h.stopping)
	for late := time.After(maxStopping); len(r.waiting) > 0; {
		select {
		case turn := <-h.turns:
			r.take(turn)
		case <-late: // the log is slow or lost, and the streams should end
			r.giveUp(len(r.waiting))
		}
	}
	r.chain.End()
	r.drain(h.lags, h.closes)
}

// drain serves the streams until the last of them is closed.
func (r *room) drain(lags <-chan request[string, chain.Start], closes <-chan visit) {
	for r.chain.Readers > 0 {
		select {
		case q := <-lags:
			q.answer <- result[chain.Start]{answer: r.chain.After(q.query)}
		case <-closes:
			r.chain.Readers--
		}
	}
}

// order carries out a request and answers it: at once if this hub is alone, and otherwise when its
// command has come back from the log, as it does on all machines.
func order[Query, Answer any](
	r *room, command chat.Command, q request[Query, Answer], do func(*room, Query) (Answer, error),
) {
	if r.commands == nil {
		answer, err := do(r, q.query)
		q.answer <- result[Answer]{answer, err}
		return
	}
	r.waiting = append(r.waiting, waiting{command.Do, func(err error) {
		var answer Answer
		if err == nil {
			answer, err = do(r, q.query)
		}
		q.answer <- result[Answer]{answer, err}
	}})
	r.commands <- command
}

func (r *room) join(name chat.Name) (joined, error) {
	u := r.users[name.String()]
	isNew := u == nil
	if isNew {
		if len(r.users) >= r.config.MaxUsers {
			return joined{id: r.chain.LastID()}, ErrTooManyUsers
		}
		u = r.add(name)
	}
	u.stays = true
	return joined{r.chain.LastID(), isNew}, nil
}

func (r *room) leave(name chat.Name) (chain.ID, error) {
	u := r.users[name.String()]
	if u == nil {
		return r.chain.LastID(), ErrNotConnected
	}
	r.remove(u)
	return r.chain.LastID(), nil
}

func (r *room) say(c chat.Command) (chain.ID, error) {
	if r.users[c.Name.String()] == nil {
		return r.chain.LastID(), ErrNotConnected
	}
	r.chain.Append(c.Name.String(), ": ", c.Text.String())
	return r.chain.LastID(), nil
}

func (r *room) list(form roster.Form) (listed, error) {
	return listed{r.chain.LastID(), r.roster.Take(form)}, nil
}

func (r *room) subscribe(q request[subscription, opened]) {
	if r.chain.Readers+r.opening == r.config.MaxStreams {
		order(r, chat.Command{Do: chat.Look}, q, func(r *room, _ subscription) (opened, error) {
			return opened{id: r.chain.LastID()}, ErrTooManyStreams
		})
		return
	}
	r.opening++
	if q.query.name == (chat.Name{}) {
		order(r, chat.Command{Do: chat.Look}, q, (*room).open)
	} else {
		order(r, chat.Command{Do: chat.Open, Name: q.query.name}, q, (*room).open)
	}
}

func (r *room) open(s subscription) (opened, error) {
	r.opening--
	r.chain.Readers++
	a := opened{start: r.chain.After(s.lastEventID)} // before the user arrives, so that the stream begins with that
	if s.name != (chat.Name{}) {
		a.visit = r.hold(r.node, s.name)
	}
	a.id = r.chain.LastID()
	return a, nil
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

// endFirstGrace ends the first of the graces: its stream no longer holds its user.
func (r *room) endFirstGrace() {
	v := r.graces[0].visit
	r.graces = r.graces[1:]
	if r.visitor(v) != nil {
		shut := request[visit, chain.ID]{v, make(chan result[chain.ID], 1)} // nobody waits for the answer
		order(r, chat.Command{Do: chat.Shut, Name: v.name, Visit: v.arrival.String()}, shut, (*room).shut)
	}
}

func (r *room) shut(v visit) (chain.ID, error) {
	r.letGo(r.node, v, 1)
	return r.chain.LastID(), nil
}

// visitor returns the user who is on that visit, or nil if it has ended.
func (r *room) visitor(v visit) *user {
	if u := r.users[v.name.String()]; u != nil && u.visit == v {
		return u
	}
	return nil
}

// hold has one more stream of a hub hold a user, who arrives if necessary.
func (r *room) hold(node string, name chat.Name) visit {
	u := r.users[name.String()]
	if u == nil {
		u = r.add(name)
	}
	if u.streams == nil {
		u.streams = make(map[string]int)
	}
	u.streams[node]++
	return u.visit
}

// letGo has count streams of a hub no longer hold a user, who leaves if nothing else does. It does
// nothing if the visit has ended, or if fewer streams of the hub hold the user.
func (r *room) letGo(node string, v visit, count int) {
	u := r.visitor(v)
	if u == nil || count == 0 || u.streams[node] < count {
		return
	}
	if u.streams[node] -= count; u.streams[node] == 0 {
		delete(u.streams, node)
	}
	if len(u.streams) == 0 && !u.stays {
		r.remove(u)
	}
}

func (r *room) add(name chat.Name) *user {
	r.chain.Append("User ", name.String(), " connected to the chat.")
	u := &user{visit: visit{name, r.chain.LastID()}}
	r.users[name.String()] = u
	r.roster.Add(name.String())
	return u
}

func (r *room) remove(u *user) {
	name := u.name.String()
	delete(r.users, name)
	r.roster.Remove(name)
	r.chain.Append("User ", name, " disconnected from the chat.")
}

// From here on: lobbies on several machines. Their hubs have one order of commands, that of a log
// (package cluster). A hub sends each command to the log. It carries out all that come back, its
// own and those of the others, in the same order as they do, so that all have the same users,
// events and ids. A request is answered when its own command has come back.

// Connect makes a hub one of several, before Run. Its name among them is node. What commands gets
// must come back in turns as entries of node, in the same order, until End comes. Whoever reads
// commands must not wait until the hub reads turns.
func (h *Hub) Connect(node string, commands chan<- chat.Command, turns <-chan chat.Turn) {
	h.node, h.commands, h.turns = node, commands, turns
}

const maxPage = 100             // users whom a hub goes through in one part of a turn
const maxStopping = time.Second // how long requests may wait for their turn once the hub is to stop

// waiting is a request whose command has not had its turn.
type waiting struct {
	verb   chat.Verb
	answer func(error) // carries the request out, or answers with the error if there is one
}

// take carries out a turn, and reports whether it was the last.
func (r *room) take(turn chat.Turn) (isLast bool) {
	switch t := turn.(type) {
	case chat.Entry:
		for _, c := range t.Commands {
			if t.Node == r.node {
				r.waiting[0].answer(nil)
				r.waiting = r.waiting[1:]
			} else {
				r.carryOut(t.Node, c)
			}
		}
	case chat.Burial:
		users, next := r.page(t.After)
		for _, u := range users {
			r.letGo(t.Node, u.visit, u.streams[t.Node])
		}
		t.Done <- chat.Result{Next: next}
	case chat.Load:
		t.Done <- r.load(t.State)
	case chat.Renewal:
		r.chain = chain.NewEpoch(t.Epoch, r.config.History, r.config.KeepAlive)
	case chat.Save:
		t.Done <- r.save(t.After)
	case chat.End:
		r.giveUp(t.Unknown)
		return true
	}
	return false
}

// carryOut carries out another hub's command.
func (r *room) carryOut(node string, c chat.Command) {
	switch c.Do {
	case chat.Join:
		r.join(c.Name)
	case chat.Leave:
		r.leave(c.Name)
	case chat.Say:
		r.say(c)
	case chat.Open:
		r.hold(node, c.Name)
	case chat.Shut:
		// Only the number counts, because an old log may be read again in another epoch.
		arrival, err := chain.ParseID(c.Visit)
		if u := r.users[c.Name.String()]; u != nil && err == nil && u.arrival.Seq() == arrival.Seq() {
			r.letGo(node, u.visit, 1)
		}
	}
}

// page returns some of the users, in the order of their names, beginning after a name. The next
// page begins after the name next, which is empty if there is none.
func (r *room) page(after string) (users []*user, next string) {
	for name := range r.roster.NamesAfter(after) {
		if len(users) == maxPage {
			return users, users[maxPage-1].name.String()
		}
		users = append(users, r.users[name])
	}
	return users, ""
}

// giveUp answers all waiting requests with an error. The first unknown may be carried out yet.
func (r *room) giveUp(unknown int) {
	for i, w := range r.waiting {
		if i < unknown && w.verb != chat.Look {
			w.answer(ErrUnknown)
		} else {
			w.answer(ErrStopped)
		}
	}
	r.waiting = nil
}

// save returns a part of what another hub needs to know to go on from here.
func (r *room) save(after string) chat.Result {
	users, next := r.page(after)
	result := chat.Result{Next: next}
	if after == "" {
		result.State = chat.State{LastID: r.chain.LastID().String(), Events: r.chain.History()}
	}
	for _, u := range users {
		result.State.Users = append(result.State.Users, chat.Here{
			Name: u.name, Arrival: u.arrival.String(), Stays: u.stays, Streams: maps.Clone(u.streams),
		})
	}
	return result
}

// load begins from what save returned, maybe that of another hub.
func (r *room) load(s chat.State) error {
	last, err := chain.ParseID(s.LastID)
	if err != nil {
		return err
	}
	restored, err := chain.Restore(last, s.Events, r.config.History, r.config.KeepAlive)
	if err != nil {
		return err
	}
	r.chain = restored
	for _, here := range s.Users {
		arrival, err := chain.ParseID(here.Arrival)
		if err != nil {
			return err
		}
		name := here.Name.String()
		r.users[name] = &user{visit{here.Name, arrival}, here.Stays, here.Streams}
		r.roster.Add(name)
	}
	return nil
}
