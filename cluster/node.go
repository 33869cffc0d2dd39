package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"lobby/chain"
	"lobby/etcd"
	"lobby/room"
)

const (
	heartbeat  = time.Second // one tick
	deadAfter  = 12          // heartbeats of a node after which it declares a silent node dead
	quietAfter = 7           // ticks after which a node ends if it has read none of its entries
	voidAfter  = 2           // the same if the log accepts no more of its entries
	startAfter = 20          // ticks without any entry after which a node that is not known yet ends

	maxEntry      = 128 << 10 // bytes of an entry, not counting its last command; see outbox.retract
	snapshotAfter = 4 << 20   // minimum bytes of entries between two snapshots
	entryCost     = 1 << 10   // bytes added to the size of each entry's text

	warnPause = time.Second // from one warning about a skipped entry to the next
)

// Log is the part of an etcd.Session that a node needs; see there.
type Log interface {
	Entries(ctx context.Context, last map[string]int) iter.Seq2[etcd.Entry, error]
	Append(ctx context.Context, node string, number int, text []byte) (revision int64, err error)
	SaveSnapshot(ctx context.Context, at int64, data []byte, gone []string) error
	Discard(ctx context.Context, e etcd.Entry)
}

// The reasons why a node ends, in addition to those of package etcd.
var (
	ErrRemoved  = errors.New("the other nodes declared this one dead")
	ErrQuiet    = errors.New("the log cannot be reached")
	ErrNewEpoch = errors.New("the history has started over")
	ErrForged   = errors.New("someone else wrote an entry in this node's name")
)

// Node connects a hub with the log of its lobby.
//
// First its hub applies the snapshot from which it starts. A node is known when it has read its own
// registration, and ready when its hub has received all steps up to there.
type Node struct {
	name     string
	log      Log
	warn     func(string)
	commands chan room.Command
	steps    chan room.Step
	results  chan room.StepResult
	ready    chan struct{}
	appended chan logResult // what came of the entry in flight
	saved    chan saveResult
	reports  chan report   // from Report
	ended    chan struct{} // closed when Run returns

	key       lobbyKey
	created   int64             // revision of the settings key
	startedAt int64             // revision up to which the first snapshot includes all entries
	lost      string            // for the registration
	explain   func(error) error // adds what the servers of the log have said; see etcd.Log

	// The rest belongs to Run until it returns.
	outbox   outbox      // to the log
	inbox    []room.Step // to the hub: the steps that it has not finished, in order
	isBusy   bool        // whether the hub has received the first of them and not sent its result yet
	isKnown  bool        // whether this node's registration was read
	isReady  bool        // whether ready is closed
	quiet    int         // ticks since it read an own entry or, before it is known, any entry
	warnedAt time.Time   // when an entry was last skipped with a warning
	figures  *figures    // nil without Count

	// What the entries read so far lead to; see receive.
	nodes    map[string]member // the nodes that are not removed, by name, including this one
	epoch    string            // of the history
	isOld    bool              // whether the last entry is older than the settings key; see receive
	schedule schedule          // of snapshots
	removed  []string          // nodes that were removed since this one last saved a snapshot
	snapshot *pendingSnapshot  // nil if this node neither takes nor saves one
	seen     etcd.Entry        // the newest entry known to be in the log, without its text
}

// member is a node of the lobby.
type member struct {
	last   int // number of its last entry
	silent int // heartbeats of this node that were read since then
}

// pendingSnapshot is a snapshot that is being taken or saved.
type pendingSnapshot struct {
	snapshot
	at   int64    // the revision up to which it includes all entries
	gone []string // nodes whose keys the log no longer needs
}

// NewNode returns a node that starts where session says and uses log.
func NewNode(session *etcd.Session, log Log, settings Settings, warn func(string)) (*Node, error) {
	key, err := check(session.Settings, settings)
	if err != nil {
		return nil, err
	}
	start, err := initial(key, session.Snapshot)
	if err != nil {
		return nil, err
	}
	n := &Node{
		name:      strings.ToLower(rand.Text()[:13]), // 65 random bits
		log:       log,
		warn:      warn,
		commands:  make(chan room.Command),
		steps:     make(chan room.Step),
		results:   make(chan room.StepResult, 1), // so that the hub never waits for Run
		ready:     make(chan struct{}),
		appended:  make(chan logResult, 1),
		saved:     make(chan saveResult, 1),
		reports:   make(chan report),
		ended:     make(chan struct{}),
		key:       key,
		created:   session.Created,
		startedAt: session.At,
		outbox:    outbox{limit: maxEntry},
		explain:   func(err error) error { return err },
		inbox:     []room.Step{room.Restore{Snapshot: start.Room}},
		nodes:     make(map[string]member),
		isOld:     start.Lobby != key.Epoch,
	}
	n.schedule = schedule{due: max(start.Due, snapshotAfter), saver: start.Saver, last: start.Nodes,
		at: session.At, removed: make(map[string]int)}
	n.epoch, _, _ = strings.Cut(start.Room.LastID, "-")
	for name, last := range start.Nodes {
		n.nodes[name] = member{last: last}
	}
	return n, nil
}

// Name returns the node's name, which is unique.
func (n *Node) Name() string { return n.name }

// Commands accepts the hub's commands. Run never lets the hub wait.
func (n *Node) Commands() chan<- room.Command { return n.commands }

// Steps delivers the steps for the hub. The last one is a room.End, unless Run's ctx is done.
func (n *Node) Steps() <-chan room.Step { return n.steps }

// Results accepts the results of the steps.
func (n *Node) Results() chan<- room.StepResult { return n.results }

// Ready is closed when the node is ready.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// logResult is what came of reading or appending an entry. An appended entry is without its text.
type logResult struct {
	entry etcd.Entry
	err   error
}

// Run connects the hub with the log until ctx is done or the node ends, and returns the reason. The
// hub must have stopped before ctx is done.
func (n *Node) Run(ctx context.Context) (reason error) {
	defer close(n.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	entries, last := make(chan logResult), n.schedule.last
	go func() {
		for entry, err := range n.log.Entries(ctx, last) {
			select {
			case entries <- logResult{entry, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()

	first := content{registration: registration{n.lost, chain.RandomEpoch()}}
	n.send(ctx, sentEntry{text: first.appendTo(nil)})
	for reason == nil || len(n.inbox) > 0 { // when the node ends, the hub still gets its steps
		if reason == nil && n.outbox.hasNext() {
			n.send(ctx, n.outbox.next())
		}
		// A nil channel disables its case below: no entry is read until the hub has received all
		// steps. If a step has a result, the next one waits for it.
		var reads chan logResult
		var steps chan room.Step
		var step room.Step
		switch {
		case len(n.inbox) == 0:
			reads = entries
			n.figures.noteApplied()
			if n.isKnown && !n.isReady {
				n.isReady = true
				close(n.ready)
			}
		case !n.isBusy:
			steps, step = n.steps, n.inbox[0]
		}
		var err error
		select {
		case c := <-n.commands:
			n.outbox.commands = append(n.outbox.commands, c)
		case r := <-n.appended:
			err = n.noteAppended(r)
		case r := <-reads:
			if err = r.err; err == nil {
				err = n.receive(ctx, r.entry)
			}
		case steps <- step:
			n.noteDelivered()
		case result := <-n.results:
			err = n.noteResult(ctx, result)
		case r := <-n.saved:
			n.noteSaved(r)
		case r := <-n.reports:
			n.report(r)
		case <-ticker.C:
			n.outbox.heartbeatDue = true
			if n.quiet++; n.quiet == quietAfter && n.isKnown || n.quiet == startAfter {
				err = n.explain(ErrQuiet)
			}
			if n.outbox.isVoid && n.quiet >= voidAfter {
				err = etcd.ErrVoid
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil && reason == nil {
			reason = err
			n.inbox = append(n.inbox, room.End{Unknown: n.outbox.unknown()})
		}
	}
	return reason
}

// send starts to append an entry.
func (n *Node) send(ctx context.Context, entry sentEntry) {
	entry.at = time.Now()
	n.outbox.number++
	n.outbox.sent = append(n.outbox.sent, entry)
	n.outbox.inFlight = true
	go func(number int) {
		revision, err := n.log.Append(ctx, n.name, number, entry.text)
		n.appended <- logResult{etcd.Entry{Revision: revision, Node: n.name, Number: number}, err}
	}(n.outbox.number)
}

// noteAppended handles the end of an append.
func (n *Node) noteAppended(r logResult) error {
	n.outbox.inFlight = false
	n.see(r.entry)
	switch {
	case errors.Is(r.err, etcd.ErrVoid):
		n.outbox.isVoid = true
		return nil // the reason will be read from the log
	case errors.Is(r.err, etcd.ErrTooLarge) && n.outbox.retract():
		return nil
	}
	return r.err
}

// noteDelivered notes that the hub has received the first step of the inbox.
func (n *Node) noteDelivered() {
	switch n.inbox[0].(type) {
	case room.Entry, room.End: // they have no result
		n.inbox = n.inbox[1:]
	default:
		n.isBusy = true
	}
}

// noteResult handles the result of the first step of the inbox. If the step has another page, it
// stays there, with After set to that page. After the last page of a snapshot, noteResult starts to
// save it.
func (n *Node) noteResult(ctx context.Context, result room.StepResult) (err error) {
	n.isBusy = false
	switch step := n.inbox[0].(type) {
	case room.Restore:
		if result.Err != nil {
			err = fmt.Errorf("the snapshot cannot be used: %w", result.Err)
		}
	case room.RemoveNode:
		n.inbox[0] = room.RemoveNode{Node: step.Node, After: result.Next}
	case room.TakeSnapshot:
		n.inbox[0] = room.TakeSnapshot{After: result.Next}
		if step.After == "" {
			n.snapshot.Room = result.Snapshot
		} else {
			n.snapshot.Room.Users = append(n.snapshot.Room.Users, result.Snapshot.Users...)
		}
		if result.Next == "" {
			go n.save(ctx, *n.snapshot)
		}
	}
	if result.Next == "" {
		n.inbox = n.inbox[1:]
	}
	return err
}

// saveResult is what came of the snapshot that is being saved.
type saveResult struct {
	size int // in bytes
	err  error
}

// save saves a snapshot in the log.
func (n *Node) save(ctx context.Context, s pendingSnapshot) {
	data, err := json.Marshal(s.snapshot)
	if err == nil {
		err = n.log.SaveSnapshot(ctx, s.at, data, s.gone)
	}
	n.saved <- saveResult{len(data), err}
}

// noteSaved handles the end of save.
func (n *Node) noteSaved(r saveResult) {
	if r.err == nil {
		n.removed = n.removed[len(n.snapshot.gone):]
		n.outbox.saved = r.size
	} else {
		n.outbox.saved = notSaved
		n.warn(fmt.Sprintf("cannot save a snapshot of the lobby: %v; "+
			"the next one is due when the log has grown by as much again", r.err))
	}
	n.snapshot = nil
}
