// The hub of a chat: one goroutine that owns who is there and what was said,
// and tells every stream at once. Nothing here takes a lock; whoever wants
// something asks for it over a channel.
//
// This file stands on its own: it needs the standard library alone. Beside it,
// this is a whole program, which prints the stream that alice would read:
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
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"weak"
)

// What a name and a message may be.
const (
	maxName  = 64      // characters
	maxText  = 4 << 10 // bytes
	maxLines = 32
)

// How events travel to the streams.
const (
	minRetry = 1000 * time.Millisecond // a client that lost its stream waits so long
	maxRetry = 3000 * time.Millisecond // to so long before it asks for it again

	maxBatch = 64 << 10 // bytes in a batch, and so the most that Next returns
	maxEvent = 5 << 10  // bytes of the longest event, with maxText in maxLines from maxName

	// gatherInterval is how long events that follow an earlier one closely are
	// gathered before the streams are woken, once for all of them.
	gatherInterval = 20 * time.Millisecond

	// recentBatches are kept besides the history, so that a reader that is a
	// little late walks on undisturbed however short the history is.
	recentBatches = 256
)

// Errors of the hub's operations. Those that tell the state of the hub come
// with the id of the last event that they take into account.
var (
	ErrName           = errors.New("a name is 1 to 64 printable characters, none of them a space, and is not . or ..")
	ErrTextTooLong    = errors.New("a message is at most 4096 bytes long")
	ErrNotConnected   = errors.New("the user is not connected")
	ErrTooManyUsers   = errors.New("as many users are connected as the server takes; try again later")
	ErrTooManyStreams = errors.New("as many streams are open as the server takes; try again later")
	ErrStopped        = errors.New("the server is stopping; try again later")
)

// Name is a user's name that ParseName found fit to stand in a stream.
type Name struct{ name string }

// ParseName returns s as a Name, or ErrName.
func ParseName(s string) (Name, error) {
	fit := s != "" && s != "." && s != ".." && utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxName &&
		!strings.ContainsFunc(s, func(c rune) bool { return c == ' ' || !unicode.IsPrint(c) })
	if !fit {
		return Name{}, ErrName
	}
	return Name{s}, nil
}

func (n Name) String() string { return n.name }

// Text is what a user says, found fit by ParseText to stand in a stream.
type Text struct{ text string }

// ParseText returns s as a Text: without one line end at its end, and with
// every other CR LF or CR as LF. Errors say what is wrong with s; one is
// ErrTextTooLong.
func ParseText(s string) (Text, error) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	if len(s) > maxText {
		return Text{}, ErrTextTooLong
	}
	s = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
	switch {
	case s == "":
		return Text{}, errors.New("the message is empty; say something in the request's body")
	case !utf8.ValidString(s):
		return Text{}, errors.New("the message is not valid UTF-8")
	case strings.Count(s, "\n") >= maxLines:
		return Text{}, fmt.Errorf("the message has more than %d lines", maxLines)
	case strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) && c != '\t' && c != '\n' }):
		return Text{}, errors.New("the message has a control character that is no tab and no line end")
	}
	return Text{s}, nil
}

func (t Text) String() string { return t.text }

// Config holds what may differ between hubs.
type Config struct {
	History    int           // how many of the last events a stream can resume from, at least 1
	MaxUsers   int           // at most this many users, at least 1
	MaxStreams int           // at most this many open streams, at least 1
	Grace      time.Duration // how long a user stays after its last stream ended, at least 0
	KeepAlive  time.Duration // a comment is sent after so long without an event, at least 1 ms
}

// DefaultConfig is the Config of a server that was told nothing else.
var DefaultConfig = Config{
	History:    4096,
	MaxUsers:   100_000,
	MaxStreams: 10_000,
	Grace:      5 * time.Second,
	KeepAlive:  15 * time.Second,
}

// Hub is the way to the one goroutine, Run, that owns all state. Its methods
// may be called from any goroutine. Each offers a request to Run until ctx is
// done or the hub stops (then the error is ctx's or ErrStopped, the ID is zero
// and nothing was changed); a request that Run took is always answered.
type Hub struct {
	config Config
	epoch  string

	// From callers to Run.
	joins      chan request[Name]
	leaves     chan request[Name]
	messages   chan request[message]
	lists      chan request[struct{}]
	subscribes chan request[subscription]

	// From open streams to Run, which goes on until all are closed.
	resumes chan request[ID]
	closes  chan *user

	stopping chan struct{} // closed by Run when it takes no more from callers
}

type request[Query any] struct {
	query  Query
	answer chan answer // has room for the one answer, so that Run never waits for a caller
}

type message struct {
	from Name
	text Text
}

type subscription struct {
	name        Name
	lastEventID string
}

// answer is what Run says to a request; which fields are set, beside id and
// err, is up to the kind of request.
type answer struct {
	id     ID // of the last event that the answer takes into account
	err    error
	joined bool     // join
	users  *Users   // list
	render bool     // list: whether the caller is the one to render users
	user   *user    // subscribe
	at     position // subscribe, resume
}

// ID names an event, and with it the state of the hub right after that event.
type ID struct {
	epoch string // of [0-9a-z], new with every hub
	seq   uint64 // counts the hub's events from 1; 0 is before the first
}

// String returns id as it stands in a stream, EPOCH-SEQ, and "" for the zero ID.
func (id ID) String() string {
	if id == (ID{}) {
		return ""
	}
	return id.epoch + "-" + strconv.FormatUint(id.seq, 10)
}

// NewHub returns a hub whose methods are served while Run runs. The error says
// which part of config makes no sense.
func NewHub(config Config) (*Hub, error) {
	switch {
	case config.History < 1:
		return nil, errors.New("the history must be at least 1 event")
	case config.MaxUsers < 1:
		return nil, errors.New("the limit of users must be at least 1")
	case config.MaxStreams < 1:
		return nil, errors.New("the limit of streams must be at least 1")
	case config.Grace < 0:
		return nil, errors.New("the grace must not be negative")
	case config.KeepAlive < time.Millisecond:
		return nil, errors.New("the keep-alive must be at least 1ms")
	}
	return &Hub{
		config:     config,
		epoch:      strings.ToLower(rand.Text()[:10]), // 50 random bits
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

// ask offers a query to Run and returns its answer.
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

// Join puts the user there until Leave. joined tells whether it was not there
// already. The ID, here as in the other methods, is of the last event that the
// answer takes into account: the one that the operation made, where it made
// one. The error can be ErrTooManyUsers.
func (h *Hub) Join(ctx context.Context, name Name) (id ID, joined bool, err error) {
	a := ask(ctx, h.stopping, h.joins, name)
	return a.id, a.joined, a.err
}

// Leave removes the user, also where streams are open in its name: they read on
// as nobody's. The error can be ErrNotConnected.
func (h *Hub) Leave(ctx context.Context, name Name) (ID, error) {
	a := ask(ctx, h.stopping, h.leaves, name)
	return a.id, a.err
}

// Say tells every stream what the user says. The error can be ErrNotConnected.
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

// Users is who is there, sorted by bytes and rendered, not to be changed. All
// who ask for a list between two changes of it share one Users.
type Users struct {
	Text  []byte // "Connected users:\n", then a line "User: NAME" for each, without a newline at the end
	JSON  []byte // {"users":["NAME",...]}
	names []string
	ready chan struct{} // closed when Text and JSON are set
}

// render does for all who share u what would hold up Run: sorting 100,000
// names takes tens of milliseconds.
func (u *Users) render() {
	defer close(u.ready)
	slices.Sort(u.names)
	u.Text = []byte("Connected users:\n")
	for i, name := range u.names {
		if i > 0 {
			u.Text = append(u.Text, '\n')
		}
		u.Text = append(append(u.Text, "User: "...), name...)
	}
	u.JSON, _ = json.Marshal(map[string][]string{"users": u.names}) // strings always marshal
}

// Stream is one reader's way along the events.
type Stream struct {
	hub     *Hub
	user    *user  // for Run alone
	opening []byte // what Next returns first
	read    *batch // the batch before at
	at      place  // where Next reads on; without a batch where that is no longer kept
}

// Subscribe opens a stream in the user's name, who is there while it is open.
// The stream begins with the events after lastEventID, or says that they can't
// be had; with an empty lastEventID it begins with what happens from now on.
// The error can be ErrTooManyStreams or ErrTooManyUsers. A stream must be closed.
func (h *Hub) Subscribe(ctx context.Context, name Name, lastEventID string) (ID, *Stream, error) {
	a := ask(ctx, h.stopping, h.subscribes, subscription{name, lastEventID})
	if a.err != nil {
		return a.id, nil, a.err
	}
	retry := minRetry + mathrand.N(maxRetry-minRetry)
	opening := fmt.Appendf(nil, "retry: %d\n%s", retry.Milliseconds(), a.at.block())
	return a.id, &Stream{hub: h, user: a.user, opening: opening, at: a.at.place}, nil
}

// Next waits for the stream's next bytes: whole blocks in the event stream
// format, at most 64 KiB, which are shared and not to be changed. The error is
// io.EOF when the hub has stopped and all is read, else ctx's.
func (s *Stream) Next(ctx context.Context) ([]byte, error) {
	if opening := s.opening; opening != nil {
		s.opening = nil
		return opening, nil
	}
	for {
		if s.at.batch == nil {
			if s.read.last {
				return nil, io.EOF
			}
			a := ask(ctx, nil, s.hub.resumes, s.read.end)
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
		s.read, s.at = s.at.batch, place{batch: s.at.batch.next.Value()}
		if len(data) > 0 {
			return data, nil
		}
	}
}

// Close ends the stream. It must be called once, after the last Next.
func (s *Stream) Close() { s.hub.closes <- s.user }

// What was broadcast is a chain of batches that every stream walks at its own
// pace. Run fills the last batch; when its time has come, Run links an empty
// one behind it and closes ready: one operation, however many streams wait, and
// all send the same bytes. The links are weak. What keeps a batch is Run, while
// it is recent or in the history, so a reader that has stalled holds on to the
// one batch where it stands, and not to all that came after.
type batch struct {
	ready chan struct{}       // closed when the fields below are set for good
	data  []byte              // whole blocks, at most maxBatch bytes
	end   ID                  // of the last event up to the end of data
	next  weak.Pointer[batch] // nothing when the next batch is no longer kept
	last  bool                // no batch follows
}

// place is where a stream reads on.
type place struct {
	batch  *batch
	offset int
}

// position is a place with what a reader who is put there must know.
type position struct {
	place
	after ID   // of the last event before the place
	gap   bool // whether events were passed over to get there
}

// block returns the block that puts a client at the position. Without a gap it
// has no data, so that no client dispatches it.
func (p position) block() []byte {
	if p.gap {
		return fmt.Appendf(nil, "id: %s\nevent: gap\ndata: Some events were missed and can't be had any more; ask for the list of users again.\n\n", p.after)
	}
	return fmt.Appendf(nil, "id: %s\n\n", p.after)
}

// user is someone who is there.
type user struct {
	name     string
	joined   bool          // by Join: stays until Leave
	streams  int           // open in the user's name
	leaving  *list.Element // in room.leaving, while nothing but the grace keeps the user there
	leavesAt time.Time     // when the grace is over
}

// room is the state. There is one, a variable of Run; nothing else can reach it.
type room struct {
	config Config
	id     ID // of the last event

	users   map[string]*user
	listed  *Users    // who is there, if someone asked since the last change
	streams int       // open, nobody's included
	leaving list.List // of *user, by leavesAt

	filling *batch                // the last of the chain
	recent  [recentBatches]*batch // ring of the batches before it
	sealed  int                   // how many batches there were before it
	history []place               // ring of the last events' beginnings: event n at (n-1) % config.History

	gathering bool        // whether the gather timer runs
	gather    *time.Timer // time to wake the streams
	keepAlive *time.Timer // time to send a comment
	grace     *time.Timer // time to see who in leaving has left
}

// Run serves the hub's methods until ctx is done. Then it ends every stream,
// after all events up to then, and returns when the last one was closed. It
// must be called once.
func (h *Hub) Run(ctx context.Context) {
	r := room{
		config:    h.config,
		id:        ID{h.epoch, 0},
		users:     make(map[string]*user),
		filling:   newBatch(),
		gather:    time.NewTimer(gatherInterval),
		keepAlive: time.NewTimer(h.config.KeepAlive),
		grace:     time.NewTimer(h.config.Grace),
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
			r.close(u)

		case <-r.gather.C:
			r.wake()

		case <-r.keepAlive.C:
			r.comment()

		case <-r.grace.C:
			r.expire()

		case <-ctx.Done():
			close(h.stopping)
			r.stop(h.resumes, h.closes)
			return
		}
	}
}

func (r *room) join(name Name) answer {
	u, arrived, err := r.enter(name)
	if err == nil {
		u.joined = true
	}
	return answer{id: r.id, joined: arrived, err: err}
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
	first := r.listed == nil
	if first {
		names := slices.AppendSeq(make([]string, 0, len(r.users)), maps.Keys(r.users))
		r.listed = &Users{names: names, ready: make(chan struct{})}
	}
	return answer{id: r.id, users: r.listed, render: first}
}

func (r *room) subscribe(s subscription) answer {
	if r.streams == r.config.MaxStreams {
		return answer{id: r.id, err: ErrTooManyStreams}
	}
	at := r.open(s.lastEventID) // before the arrival, which the stream gets too
	u, _, err := r.enter(s.name)
	if err != nil {
		return answer{id: r.id, err: err}
	}
	u.streams++
	r.streams++
	return answer{id: r.id, user: u, at: at}
}

// close counts one of the user's streams less. With the last one, the grace of
// a user that did not join begins.
func (r *room) close(u *user) {
	u.streams--
	r.streams--
	if u.streams > 0 || u.joined || r.users[u.name] != u {
		return
	}
	u.leavesAt = time.Now().Add(r.config.Grace)
	u.leaving = r.leaving.PushBack(u)
	if r.leaving.Len() == 1 {
		r.grace.Reset(r.config.Grace)
	}
}

// expire removes the user whose grace ended first. Where more have ended, the
// timer fires again at once: no request waits for all of them.
func (r *room) expire() {
	if first := r.leaving.Front(); first != nil {
		if u := first.Value.(*user); !time.Now().Before(u.leavesAt) {
			r.remove(u)
		}
	}
	if next := r.leaving.Front(); next != nil {
		r.grace.Reset(time.Until(next.Value.(*user).leavesAt))
	}
}

// enter returns the user of that name, who is there to stay until close or
// leave, and announces an arrival.
func (r *room) enter(name Name) (u *user, arrived bool, err error) {
	if u := r.users[name.name]; u != nil {
		r.stay(u)
		return u, false, nil
	}
	if len(r.users) == r.config.MaxUsers {
		return nil, false, ErrTooManyUsers
	}
	u = &user{name: name.name}
	r.users[u.name] = u
	r.listed = nil
	r.publish("User ", u.name, " connected to the chat.")
	return u, true, nil
}

// remove lets the user go and announces it.
func (r *room) remove(u *user) {
	r.stay(u)
	delete(r.users, u.name)
	r.listed = nil
	r.publish("User ", u.name, " disconnected from the chat.")
}

// stay ends the user's grace, if it runs.
func (r *room) stay(u *user) {
	if u.leaving != nil {
		r.leaving.Remove(u.leaving)
		u.leaving = nil
	}
}

// open returns where a stream begins that asks for what came after lastEventID.
func (r *room) open(lastEventID string) position {
	if lastEventID == "" {
		return r.after(r.id)
	}
	epoch, number, _ := strings.Cut(lastEventID, "-")
	seq, _ := strconv.ParseUint(number, 10, 64)
	if id := (ID{epoch, seq}); epoch == r.id.epoch && id.String() == lastEventID {
		return r.after(id)
	}
	return position{place: r.after(r.id).place, after: r.id, gap: true}
}

// after returns the position behind the event id, or with a gap behind the
// last one where what came after id is not all in the history.
func (r *room) after(id ID) position {
	switch missed := r.id.seq - id.seq; { // a seq from the future makes it huge
	case missed == 0:
		return position{place: place{r.filling, len(r.filling.data)}, after: id}
	case missed <= uint64(len(r.history)):
		return position{place: r.history[id.seq%uint64(r.config.History)], after: id}
	}
	return position{place: place{r.filling, len(r.filling.data)}, after: r.id, gap: true}
}

// publish makes an event of the line that parts add up to. After a quiet spell
// it leaves at once, else with the others that are being gathered.
func (r *room) publish(parts ...string) {
	begin := place{r.filling, len(r.filling.data)}
	if len(r.history) < r.config.History {
		r.history = append(r.history, begin)
	} else {
		r.history[r.id.seq%uint64(r.config.History)] = begin
	}
	r.id.seq++
	b := r.filling
	b.data = append(append(b.data, "id: "...), r.id.String()...)
	b.data = append(b.data, "\nevent: message\ndata: "...)
	for _, part := range parts {
		b.data = append(b.data, strings.ReplaceAll(part, "\n", "\ndata: ")...)
	}
	b.data = append(b.data, "\n\n"...)
	if !r.gathering || len(b.data) > maxBatch-maxEvent {
		r.seal()
	}
}

// wake sends what was gathered; where that is nothing, it is quiet again.
func (r *room) wake() {
	r.gathering = false
	if len(r.filling.data) > 0 {
		r.seal()
	}
}

// comment keeps idle connections from being taken for dead, and finds those
// that are.
func (r *room) comment() {
	r.filling.data = append(r.filling.data, ": keep-alive\n\n"...)
	r.seal()
}

// seal ends the batch being filled and hands it to the streams, which find an
// empty one behind it.
func (r *room) seal() {
	b := r.filling
	r.recent[r.sealed%recentBatches] = b
	r.sealed++
	r.filling = newBatch()
	b.end = r.id
	b.next = weak.Make(r.filling)
	close(b.ready)
	r.gathering = true
	r.gather.Reset(gatherInterval)
	r.keepAlive.Reset(r.config.KeepAlive)
}

// stop ends the chain, and lets the streams read to its end.
func (r *room) stop(resumes <-chan request[ID], closes <-chan *user) {
	r.filling.end = r.id
	r.filling.last = true
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

func newBatch() *batch { return &batch{ready: make(chan struct{})} }
