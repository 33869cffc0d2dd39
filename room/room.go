// Package room is the state of a chat as a pure state machine: commands in, results and events out.
//
// A [Room] knows which users are present and why. Its rules are in one method, [Room.Apply], which
// carries out a [Command] and appends the event that it causes, if any, to a chain of events
// (package chain). This package starts no goroutine, uses no channel and reads no clock; only the
// chain and the roster do. Nothing is locked: the owner of a Room calls its methods, one at a time.
//
//	chat := room.New(room.Config{History: 100, MaxUsers: 10, KeepAlive: time.Minute})
//	result := chat.Apply("", room.Command{Verb: room.Join, Name: alice})
//	fmt.Println(result.IsNew, chat.Chain.LastID().Seq()) // true 1
//
// This file is all that a single machine needs. On several machines each has a Room, and all of
// them apply the same commands in the same order, so their users, events and ids are the same
// (package cluster). For that, log.go has the text of commands, snapshot.go the state as data, and
// step.go what comes out of the log besides commands.
package room

import (
	"errors"
	"time"

	"lobby/chain"
	"lobby/chat"
	"lobby/roster"
)

// Config holds a Room's settings, which the owner has checked.
type Config struct {
	History   int           // number of past events kept for resuming; at least 1
	MaxUsers  int           // number of users at which Join rejects new ones; at least 1
	KeepAlive time.Duration // time without an event after which readers get a comment
}

// Errors of commands.
var (
	// ErrNotPresent is the error of Leave and Say.
	ErrNotPresent = errors.New("the user is not present")
	// ErrTooManyUsers is the error of Join.
	ErrTooManyUsers = errors.New("there are too many users; try again later")
	// ErrTooManyLists is the error of List.
	ErrTooManyLists = errors.New("too many user lists are being sent; try again later")
)

// Room is the state of a chat.
type Room struct {
	Chain  *chain.Chain  // the events; Restore and NewEpoch replace it
	Roster roster.Roster // the names of the users, sorted
	Counts *Counts       // what has happened since New; nil if nobody asks

	config Config
	users  map[string]*user // the present users, by name
}

// Counts counts what happens in a Room, for those who operate it.
type Counts struct {
	Arrivals, Departures, Messages int // events
	Lags                           int // times that a stream had fallen behind
	Gaps                           int // times that a stream started or continued with a gap
}

// user is a user who is present.
type user struct {
	Visit
	stays bool // whether the user stays until Leave, because of Join

	// streams is the number of streams that keep the user present, by the name of the node that they
	// are on. A stream counts until Release. A node without such streams is not in the map.
	streams map[string]int
}

// Visit is a user's time in the chat, from an arrival to the next departure. A user who leaves and
// returns starts a new visit. The zero Visit is nobody's.
type Visit struct {
	Name    chat.Name
	Arrival uint64 // number of the event with which the user arrived
}

// Command asks for one thing. The zero Command is invalid.
type Command struct {
	Verb    Verb
	Name    chat.Name // the user concerned; zero for Watch, List and Sync
	Text    chat.Text // for Say: the message
	Arrival uint64    // for Release: the visit's

	// Only the machine where a command comes from needs these, so they are not in the log.
	LastEventID string      // for Open and Watch: the id after which the stream starts, or ""
	Form        roster.Form // for List
}

// Verb says what a Command does.
type Verb string

// The verbs.
const (
	Join    Verb = "join"    // the user is present until Leave
	Leave   Verb = "leave"   // the user leaves, whatever kept them present
	Say     Verb = "say"     // the user sends a message
	Open    Verb = "open"    // a stream has opened; it keeps the user present
	Release Verb = "release" // a stream of this visit no longer keeps the user present
	Watch   Verb = "watch"   // a stream has opened; it keeps nobody present
	List    Verb = "list"    // a client asks for the list of users
	Sync    Verb = "sync"    // a Watch or List in the log: it changes nothing, but has its place
)

// Result is what came of a Command.
type Result struct {
	ID      chain.ID     // the last event that the result reflects: its own, if it caused one
	Err     error        // one of the errors above, or one of the hub's
	IsNew   bool         // of Join: whether the user was not present before
	List    *roster.List // of List: the users; its Return must be called once it has been sent
	Start   *chain.Start // of Open and Watch: where the stream starts
	Arrival uint64       // of Open: number of the event with which the user arrived
}

// New returns an empty Room of a new epoch.
func New(config Config) *Room {
	return &Room{
		Chain:  chain.New(config.History, config.KeepAlive),
		config: config,
		users:  make(map[string]*user),
	}
}

// Apply carries out a command that comes from the named node, which is "" on a single machine. An
// error means that nothing has changed.
func (r *Room) Apply(node string, c Command) (result Result) {
	u := r.users[c.Name.String()] // nil if the user is not present
	switch c.Verb {
	case Join:
		switch {
		case u == nil && len(r.users) >= r.config.MaxUsers:
			result.Err = ErrTooManyUsers
		case u == nil:
			r.add(c.Name).stays = true
			result.IsNew = true
		default:
			u.stays = true
		}
	case Leave:
		if u == nil {
			result.Err = ErrNotPresent
		} else {
			r.remove(u)
		}
	case Say:
		if u == nil {
			result.Err = ErrNotPresent
		} else {
			r.Chain.Append(c.Name.String(), ": ", c.Text.String())
			if r.Counts != nil {
				r.Counts.Messages++
			}
		}
	case Open:
		// The start comes first, so that the stream begins with its own user's arrival.
		result.Start = new(r.after(c.LastEventID))
		if u == nil {
			u = r.add(c.Name)
		}
		if u.streams == nil {
			u.streams = make(map[string]int)
		}
		u.streams[node]++
		result.Arrival = u.Arrival
	case Release:
		if r.IsCurrent(Visit{c.Name, c.Arrival}) {
			r.removeStreams(u, node, 1)
		}
	case Watch:
		result.Start = new(r.after(c.LastEventID))
	case List:
		if result.List = r.Roster.Take(c.Form); result.List == nil {
			result.Err = ErrTooManyLists
		}
	}
	result.ID = r.Chain.LastID()
	return result
}

// after returns where a stream starts.
func (r *Room) after(lastEventID string) chain.Start {
	start := r.Chain.After(lastEventID)
	if r.Counts != nil && start.IsGap() {
		r.Counts.Gaps++
	}
	return start
}

// CatchUp returns where a stream that has fallen behind continues.
func (r *Room) CatchUp(lastEventID string) chain.Start {
	if r.Counts != nil {
		r.Counts.Lags++
	}
	return r.after(lastEventID)
}

// Users returns the number of present users.
func (r *Room) Users() int { return len(r.users) }

// IsCurrent reports whether a visit still lasts.
func (r *Room) IsCurrent(v Visit) bool {
	u := r.users[v.Name.String()]
	return u != nil && u.Visit == v
}

// removeStreams removes count of a node's streams from a user, who leaves if nothing else keeps
// them present. It does nothing if the node has fewer streams.
func (r *Room) removeStreams(u *user, node string, count int) {
	if count == 0 || u.streams[node] < count {
		return
	}
	if u.streams[node] -= count; u.streams[node] == 0 {
		delete(u.streams, node)
	}
	if len(u.streams) == 0 && !u.stays {
		r.remove(u)
	}
}

func (r *Room) add(name chat.Name) *user {
	r.Chain.Append("User ", name.String(), " connected to the chat.")
	if r.Counts != nil {
		r.Counts.Arrivals++
	}
	u := &user{Visit: Visit{name, r.Chain.LastID().Seq()}}
	r.users[name.String()] = u
	r.Roster.Add(name.String())
	return u
}

func (r *Room) remove(u *user) {
	name := u.Name.String()
	delete(r.users, name)
	r.Roster.Remove(name)
	r.Chain.Append("User ", name, " disconnected from the chat.")
	if r.Counts != nil {
		r.Counts.Departures++
	}
}
