// A hub is who is in a chat, what happened there, and everyone who listens. One
// goroutine, Run, owns all of it: whoever wants something asks over a channel,
// and nothing takes a lock.
//
// This file stands on its own, with the standard library alone. This and the
// imports of context, log, os and time make it a whole program, which prints
// what alice's stream tells her for a second:
//
//	func main() {
//		hub, err := NewHub(DefaultConfig)
//		if err != nil {
//			log.Fatal(err)
//		}
//		ctx, stop := context.WithTimeout(context.Background(), time.Second)
//		defer stop()
//		go hub.Run(ctx)
//		alice, _ := ParseName("alice")
//		hello, _ := ParseText("hello")
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
	"container/list"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"weak"
)

// Config holds a hub's settings.
type Config struct {
	History    int           // events that a stream can resume from; at least 1
	MaxUsers   int           // at least 1
	MaxStreams int           // at least 1
	Grace      time.Duration // that a user stays after its last stream; at least 0
	KeepAlive  time.Duration // without an event, until streams get a comment; at least 1 ms
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
	ErrTooManyUsers   = errors.New("the server has all the users that it takes; try again later")
	ErrTooManyStreams = errors.New("the server has all the streams that it takes; try again later")
	ErrStopped        = errors.New("the server is stopping; try again later")
)

// Hub is the way to ask Run, from any goroutine. A request that Run took is
// always answered. One that it did not take, because ctx was done or the hub
// stopped, changes nothing: the ID is zero, and the error is ctx's or ErrStopped.
type Hub struct {
	config Config
	epoch  string

	// from callers to Run
	joins      chan request[Name]
	leaves     chan request[Name]
	messages   chan request[message]
	lists      chan request[struct{}]
	subscribes chan request[subscription]

	// from open streams to Run
	resumes chan request[ID]
	closes  chan *user

	stopping chan struct{} // closed by Run when it takes no more requests but those of open streams
}

type request[Query any] struct {
	query  Query
	answer chan answer // has room for the one answer, so that Run waits for nobody
}

type message struct {
	from Name
	text Text
}

type subscription struct {
	name        Name
	lastEventID string
}

// answer is Run's to every kind of request.
type answer struct {
	id      ID // of the last event that the answer takes into account
	err     error
	arrived bool     // join: whether the user was not there
	users   *Users   // list
	render  bool     // list: whether this caller must render users, for which the others wait
	user    *user    // subscribe
	at      position // subscribe, resume
}

// ID names an event, and the state of the hub up to it.
type ID struct {
	epoch string // of [0-9a-z]; no two hubs share one
	seq   uint64 // counts the hub's events from 1; 0 is before the first
}

// String returns EPOCH-SEQ, or "" for the zero ID.
func (id ID) String() string {
	if id == (ID{}) {
		return ""
	}
	return id.epoch + "-" + strconv.FormatUint(id.seq, 10)
}

// NewHub returns a hub that waits for Run. The error says what in config makes
// no sense.
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
		epoch:      strings.ToLower(rand.Text()[:8]), // 40 random bits
		joins:      make(chan request[Name]),
		leaves:     make(chan request[Name]),
		messages:   make(chan request[message]),
		lists:      make(chan request[struct{}]),
		subscribes: make(chan request[subscription]),
		resumes:    make(chan request[ID]),
		closes:     make(chan *user),
		stopping:   make(chan struct{}),
	}, nil
}

// ask offers query to Run until ctx is done or the hub stops.
func ask[Query any](ctx context.Context, stopping <-chan struct{}, to chan<- request[Query], query Query) answer {
	r := request[Query]{query, make(chan answer, 1)}
	select {
	case to <- r:
		return <-r.answer
	case <-stopping:
		return answer{err: ErrStopped}
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
}

// Join puts a user there until Leave, and tells whether it was not there yet.
// As with every method, the ID is that of the last event that the answer takes
// into account: the operation's own, where it made one. The error can be
// ErrTooManyUsers.
func (h *Hub) Join(ctx context.Context, name Name) (id ID, joined bool, err error) {
	a := ask(ctx, h.stopping, h.joins, name)
	return a.id, a.arrived, a.err
}

// Leave removes a user, whose open streams read on as nobody's. The error can
// be ErrNotConnected.
func (h *Hub) Leave(ctx context.Context, name Name) (ID, error) {
	a := ask(ctx, h.stopping, h.leaves, name)
	return a.id, a.err
}

// Say tells every stream what a user says. The error can be ErrNotConnected.
func (h *Hub) Say(ctx context.Context, from Name, text Text) (ID, error) {
	a := ask(ctx, h.stopping, h.messages, message{from, text})
	return a.id, a.err
}

// List returns who is there.
func (h *Hub) List(ctx context.Context) (ID, *Users, error) {
	a := ask(ctx, h.stopping, h.lists, struct{}{})
	if a.err != nil {
		return a.id, nil, a.err
	}
	if a.render {
		a.users.render()
	}
	<-a.users.ready
	return a.id, a.users, nil
}

// Subscribe opens a stream in the name of a user, who is there while it is
// open. It begins with the events after lastEventID, or says that they can't be
// had; where lastEventID is empty, it begins with the next event. The error can
// be ErrTooManyStreams or ErrTooManyUsers; without one, Close must follow.
func (h *Hub) Subscribe(ctx context.Context, name Name, lastEventID string) (ID, *Stream, error) {
	a := ask(ctx, h.stopping, h.subscribes, subscription{name, lastEventID})
	if a.err != nil {
		return a.id, nil, a.err
	}
	retry := minRetry + mathrand.N(maxRetry-minRetry)
	opening := fmt.Appendf(nil, "retry: %d\n%s", retry.Milliseconds(), a.at.block())
	return a.id, &Stream{hub: h, user: a.user, opening: opening, at: a.at.place}, nil
}

// room is the state of a hub. There is one, a local variable of Run.
type room struct {
	config Config
	id     ID // of the last event

	users   map[string]*user
	names   []string  // of users, in no order, so that a list costs a copy and not a walk through the map
	listed  *Users    // who is there, if someone has asked since that changed
	streams int       // open, nobody's too
	leaving list.List // of *user: those in their grace, the first to leave in front

	filling *batch                // the end of the chain
	recent  [recentBatches]*batch // a ring of those before it; the newest is at (sealed-1) % recentBatches
	sealed  int
	history []place // a ring of where the last events begin; event n is at (n-1) % config.History

	gather    <-chan time.Time // when to hand over what was gathered; nil where events leave at once
	keepAlive <-chan time.Time // when to send a comment
	grace     <-chan time.Time // when to look at leaving; nil while that is empty
}

// user is someone who is there.
type user struct {
	name     string
	index    int  // in room.names
	joined   bool // by Join, to stay until Leave
	streams  int  // open in the user's name
	leaving  *list.Element
	leavesAt time.Time // when the grace ends, while leaving is set
}

// Run serves the hub until ctx is done. Then every stream ends, after all
// events up to then, and Run returns when the last has been closed. It can run
// only once.
func (h *Hub) Run(ctx context.Context) {
	begin := ID{h.epoch, 0}
	r := room{
		config:    h.config,
		id:        begin,
		users:     make(map[string]*user),
		names:     []string{}, // which JSON tells from nil
		filling:   newBatch(begin),
		keepAlive: time.After(h.config.KeepAlive),
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
			q.answer <- r.list()

		case q := <-h.subscribes:
			q.answer <- r.subscribe(q.query)

		case q := <-h.resumes:
			q.answer <- answer{at: r.after(q.query)}

		case u := <-h.closes:
			r.closeStream(u)

		case <-r.gather:
			r.handOver()

		case <-r.keepAlive:
			r.comment()

		case <-r.grace:
			r.expire()

		case <-ctx.Done():
			close(h.stopping)
			r.drain(h.resumes, h.closes)
			return
		}
	}
}

func (r *room) join(name Name) answer {
	u, arrived, err := r.enter(name)
	if err == nil {
		u.joined = true
	}
	return answer{id: r.id, arrived: arrived, err: err}
}

func (r *room) leave(name Name) answer {
	u := r.users[name.name]
	if u == nil {
		return answer{id: r.id, err: ErrNotConnected}
	}
	r.remove(u)
	return answer{id: r.id}
}

func (r *room) say(m message) answer {
	if r.users[m.from.name] == nil {
		return answer{id: r.id, err: ErrNotConnected}
	}
	r.publish(m.from.name, ": ", m.text.text)
	return answer{id: r.id}
}

func (r *room) list() answer {
	render := r.listed == nil
	if render {
		r.listed = &Users{names: slices.Clone(r.names), ready: make(chan struct{})}
	}
	return answer{id: r.id, users: r.listed, render: render}
}

func (r *room) subscribe(s subscription) answer {
	if r.streams == r.config.MaxStreams {
		return answer{id: r.id, err: ErrTooManyStreams}
	}
	at := r.find(s.lastEventID) // before the stream's own user arrives
	u, _, err := r.enter(s.name)
	if err != nil {
		return answer{id: r.id, err: err}
	}
	u.streams++
	r.streams++
	return answer{id: r.id, user: u, at: at}
}

// closeStream counts a stream out. A user who was there only by its streams,
// and still is, has the grace to open another.
func (r *room) closeStream(u *user) {
	r.streams--
	u.streams--
	if u.streams > 0 || u.joined || r.users[u.name] != u {
		return
	}
	u.leavesAt = time.Now().Add(r.config.Grace)
	u.leaving = r.leaving.PushBack(u)
	if r.leaving.Len() == 1 {
		r.grace = time.After(r.config.Grace)
	}
}

// expire removes the first in leaving, if its time has come. The next one has a
// turn of its own, so that no request waits for a crowd to leave.
func (r *room) expire() {
	if first := r.leaving.Front(); first != nil {
		if u := first.Value.(*user); !time.Now().Before(u.leavesAt) {
			r.remove(u)
		}
	}
	r.grace = nil
	if next := r.leaving.Front(); next != nil {
		r.grace = time.After(time.Until(next.Value.(*user).leavesAt))
	}
}

// enter returns the user of that name, who is no longer leaving, and whether it
// was not there before.
func (r *room) enter(name Name) (u *user, arrived bool, err error) {
	if u := r.users[name.name]; u != nil {
		r.stay(u)
		return u, false, nil
	}
	if len(r.users) == r.config.MaxUsers {
		return nil, false, ErrTooManyUsers
	}
	// The clone does not hold what the name was cut from, such as a long request.
	u = &user{name: strings.Clone(name.name), index: len(r.names)}
	r.users[u.name] = u
	r.names = append(r.names, u.name)
	r.listed = nil
	r.publish("User ", u.name, " connected to the chat.")
	return u, true, nil
}

func (r *room) remove(u *user) {
	r.stay(u)
	last := len(r.names) - 1
	r.names[u.index] = r.names[last]
	r.users[r.names[last]].index = u.index
	r.names = r.names[:last]
	delete(r.users, u.name)
	r.listed = nil
	r.publish("User ", u.name, " disconnected from the chat.")
}

func (r *room) stay(u *user) {
	if u.leaving != nil {
		r.leaving.Remove(u.leaving)
		u.leaving = nil
	}
}

// What is broadcast is a chain of batches that every stream walks at its own
// pace: the room fills the last batch; when that has gathered enough, the room
// links an empty one behind it, and a goroutine of its own closes ready, which wakes
// the streams that wait. All of them send the same bytes. Which of two batches is
// ready first does not matter, since a stream reads them in the chain's order.
//
// The links are weak. Only the room keeps batches, the recent ones and those in
// the history, so a reader that has stalled holds the batches where it stands
// but not all that came after.
type batch struct {
	ready chan struct{} // closed when nothing here will change any more
	data  []byte        // whole blocks of the event stream format, at most maxBatch bytes
	end   ID            // of the last event up to the end of data; before that is known, up to its beginning
	next  weak.Pointer[batch]
	last  bool // whether the chain ends here
}

const (
	maxBatch = 64 << 10 // bytes
	maxEvent = 5 << 10  // bytes; more than maxText, in maxLines lines, makes after a name of maxName

	// After a batch of n events the next is sealed n rounds later, at most
	// gatherRounds: a few events wait little, and a flood leaves in few large
	// writes. Measured on two cores, with rounds of half this length, of this, and
	// of twice this: 1 and 50 messages/s reached up to 1,000 streams as fast with
	// each, half of them in 1 to 7 ms; 1,000/s took 9, 17 and 33 ms to 100
	// streams, about the same to one; a flood made 2, 6 and 11 million
	// deliveries/s to 1,000 streams, 99 % of them in 47, 33 and 52 ms. With 10,000
	// streams, 50/s took 204, 198 and 347 ms, and a flood made 2, 18 and 23 million.
	gatherRounds   = 4
	roundPerStream = 4 * time.Microsecond
	minRound       = 4 * time.Millisecond

	// recentBatches are kept even where the history is shorter, so that a
	// reader that is a moment late loses nothing.
	recentBatches = 64

	// A client that has lost its stream waits for so long before it comes back,
	// each another time, so that a restarted server does not see all at once.
	minRetry, maxRetry = time.Second, 3 * time.Second
)

// newBatch returns an empty batch that follows the event id.
func newBatch(id ID) *batch { return &batch{ready: make(chan struct{}), end: id} }

// place is where in the chain a stream reads on.
type place struct {
	batch  *batch
	offset int
}

// position is a place, and what a client that is put there has to know.
type position struct {
	place
	id  ID   // of the last event before the place
	gap bool // whether events that the client should get are left out
}

// block returns what puts a client at p. Without a gap it has no data, so that
// a client takes the id from it and dispatches nothing.
func (p position) block() []byte {
	if p.gap {
		return fmt.Appendf(nil, "id: %s\nevent: gap\ndata: Events are missing here that can't be had any more; list the users anew.\n\n", p.id)
	}
	return fmt.Appendf(nil, "id: %s\n\n", p.id)
}

// find returns the position after lastEventID, as a client sent it.
func (r *room) find(lastEventID string) position {
	if lastEventID == "" {
		return r.end(false)
	}
	epoch, number, _ := strings.Cut(lastEventID, "-")
	seq, _ := strconv.ParseUint(number, 10, 64)
	if id := (ID{epoch, seq}); epoch == r.id.epoch && id.String() == lastEventID {
		return r.after(id)
	}
	return r.end(true)
}

// end returns the position after the last event.
func (r *room) end(gap bool) position {
	return position{place{r.filling, len(r.filling.data)}, r.id, gap}
}

// after returns the position after id, which is of this hub but may be in the
// future. Where the history lacks an event after id, it is the end, with a gap.
func (r *room) after(id ID) position {
	missed := r.id.seq - id.seq // a huge number where id is of the future
	if 0 < missed && missed <= uint64(len(r.history)) {
		return position{r.history[id.seq%uint64(r.config.History)], id, false}
	}
	return r.end(missed != 0)
}

// publish makes the next event, a message of the line that parts add up to.
func (r *room) publish(parts ...string) {
	b := r.filling
	begin := place{b, len(b.data)}
	if len(r.history) < r.config.History {
		r.history = append(r.history, begin)
	} else {
		r.history[r.id.seq%uint64(r.config.History)] = begin
	}
	r.id.seq++
	b.data = append(b.data, "id: "...)
	b.data = append(b.data, r.id.epoch...)
	b.data = append(b.data, '-')
	b.data = strconv.AppendUint(b.data, r.id.seq, 10)
	b.data = append(b.data, "\nevent: message\ndata: "...)
	for _, part := range parts {
		b.data = append(b.data, strings.ReplaceAll(part, "\n", "\ndata: ")...)
	}
	b.data = append(b.data, "\n\n"...)
	if r.gather == nil || len(b.data) > maxBatch-maxEvent {
		r.seal()
	}
}

// handOver ends a time of gathering. Where nothing came in it, the next event
// leaves at once.
func (r *room) handOver() {
	r.gather = nil
	if len(r.filling.data) > 0 {
		r.seal()
	}
}

// comment keeps idle connections from being cut, and shows which were closed.
func (r *room) comment() {
	r.filling.data = append(r.filling.data, ": keep-alive\n\n"...)
	r.seal()
}

// seal hands the batch being filled to the streams, and starts another.
func (r *room) seal() {
	b := r.filling
	r.filling = newBatch(r.id)
	r.recent[r.sealed%recentBatches] = b
	r.sealed++
	events := r.id.seq - b.end.seq
	b.end, b.next = r.id, weak.Make(r.filling)
	go close(b.ready) // which takes milliseconds where 10,000 streams wait
	round := max(minRound, time.Duration(r.streams)*roundPerStream)
	r.gather = time.After(time.Duration(min(events, gatherRounds)) * round)
	r.keepAlive = time.After(r.config.KeepAlive)
}

// drain ends the chain and serves the streams until the last is closed.
func (r *room) drain(resumes <-chan request[ID], closes <-chan *user) {
	r.filling.end, r.filling.last = r.id, true
	close(r.filling.ready)
	for r.streams > 0 {
		select {
		case q := <-resumes:
			q.answer <- answer{at: r.after(q.query)}

		case <-closes:
			r.streams--
		}
	}
}

// Stream is one reader's walk along the chain.
type Stream struct {
	hub     *Hub
	user    *user  // for Run alone
	opening []byte // what Next returns first
	passed  *batch // the batch before at
	at      place  // its batch is nil where that is not kept any more
}

// Next waits for the next bytes of the stream: whole blocks of the event stream
// format (HTML standard, section 9.2.6), at most 64 KiB, which others share and
// nobody may change. The error is io.EOF when the hub has stopped and all is
// read, else ctx's. One goroutine at a time may call it.
func (s *Stream) Next(ctx context.Context) ([]byte, error) {
	if opening := s.opening; opening != nil {
		s.opening = nil
		return opening, nil
	}
	for {
		if s.at.batch == nil && s.passed.last {
			return nil, io.EOF
		}
		if s.at.batch == nil { // this reader is far behind
			a := ask(ctx, nil, s.hub.resumes, s.passed.end)
			if a.err != nil {
				return nil, a.err
			}
			s.at = a.at.place
			if a.at.gap {
				return a.at.block(), nil
			}
		}
		select {
		case <-s.at.batch.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		data := s.at.batch.data[s.at.offset:]
		s.passed, s.at = s.at.batch, place{batch: s.at.batch.next.Value()}
		if len(data) > 0 {
			return data, nil
		}
	}
}

// Close ends the stream; Next must not be called after it. A second Close does
// nothing.
func (s *Stream) Close() {
	if s.user != nil {
		s.hub.closes <- s.user
		s.user = nil
	}
}

// Users is who is there. All who ask between two changes get the same one, and
// nobody may change it.
type Users struct {
	Text  []byte // "Connected users:\n", then "User: NAME" for each, sorted by bytes, joined by newlines
	JSON  []byte // {"users":["NAME",...]}, sorted too
	names []string
	ready chan struct{} // closed when Text and JSON are set
}

// render does what would keep Run for too long: to sort 100,000 names takes
// tens of milliseconds.
func (u *Users) render() {
	slices.Sort(u.names)
	u.Text = []byte("Connected users:\n")
	for i, name := range u.names {
		if i > 0 {
			u.Text = append(u.Text, '\n')
		}
		u.Text = append(append(u.Text, "User: "...), name...)
	}
	u.JSON, _ = json.Marshal(map[string][]string{"users": u.names}) // names always marshal
	close(u.ready)
}

// What a name and a text may be.
const (
	maxName  = 64      // characters
	maxText  = 4 << 10 // bytes
	maxLines = 32
)

// What ParseName and ParseText refuse.
var (
	ErrName        = errors.New("a name is 1 to 64 printable characters without a space, and . and .. are no names")
	ErrTextTooLong = fmt.Errorf("a message is at most %d bytes long", maxText)
	ErrTextEmpty   = errors.New("the message is empty; put what the user says in the body")
	ErrTextUTF8    = errors.New("the message is not valid UTF-8")
	ErrTextLines   = fmt.Errorf("a message has at most %d lines", maxLines)
	ErrTextControl = errors.New("the message has a control character; only tabs and line ends are possible")
)

// Name is a user's name, safe to stand in a stream. The zero Name is nobody's,
// and not to be used.
type Name struct{ name string }

// ParseName returns s as a Name, or ErrName.
func ParseName(s string) (Name, error) {
	unfit := func(c rune) bool { return c == ' ' || !unicode.IsPrint(c) }
	if s == "" || s == "." || s == ".." || !utf8.ValidString(s) || utf8.RuneCountInString(s) > maxName || strings.ContainsFunc(s, unfit) {
		return Name{}, ErrName
	}
	return Name{s}, nil
}

func (n Name) String() string { return n.name }

// Text is what a user says, safe to stand in a stream, in lines separated by
// newlines. The zero Text says nothing, and is not to be used.
type Text struct{ text string }

var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// ParseText returns s, whose lines may end in CR LF, CR or LF, as a Text, or
// one of the errors above. A line end at the end of s is left out.
func ParseText(s string) (Text, error) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	text := newlines.Replace(s)
	unfit := func(c rune) bool { return unicode.IsControl(c) && c != '\t' && c != '\n' }
	switch {
	case s == "":
		return Text{}, ErrTextEmpty
	case len(s) > maxText:
		return Text{}, ErrTextTooLong
	case !utf8.ValidString(text):
		return Text{}, ErrTextUTF8
	case strings.Count(text, "\n") >= maxLines:
		return Text{}, ErrTextLines
	case strings.ContainsFunc(text, unfit):
		return Text{}, ErrTextControl
	}
	return Text{text}, nil
}

func (t Text) String() string { return t.text }
