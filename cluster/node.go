package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"lobby/chain"
	"lobby/etcd"
	"lobby/room"
)

const (
	beat       = time.Second
	deadAfter  = 12 // beats of its own after which a node takes a silent one for dead
	quietAfter = 7  // ticks of a beat without an entry of its own after which a node takes the log for lost

	maxEntry  = 128 << 10 // bytes of an entry, unless one command takes more
	saveAfter = 4 << 20   // bytes of entries from one saved state to the next
	entryCost = 1 << 10   // bytes that an entry counts besides its text

	warnPause = time.Second // from one line about entries that are skipped to the next
)

// Log is what a node needs of an etcd.Session; see there.
type Log interface {
	Entries(ctx context.Context) iter.Seq2[etcd.Entry, error]
	Append(ctx context.Context, node string, number int, text []byte) (revision int64, err error)
	SaveSnapshot(ctx context.Context, at int64, state []byte, gone []string) error
}

// The reasons for the end of a life, besides those of package etcd.
var (
	ErrBuried  = errors.New("the other nodes have given this one up")
	ErrQuiet   = errors.New("the log cannot be reached")
	ErrRenewed = errors.New("the history has begun anew")
	ErrForged  = errors.New("somebody else has written an entry in this node's name")
	ErrVersion = fmt.Errorf("%w: another node is of a later version; use the same version on all machines", ErrSettings)
)

// Node is a hub's way to the log of its lobby and back, for one life.
type Node struct {
	name     string
	log      Log
	warn     func(string)
	commands chan room.Command
	turns    chan room.Step
	ready    chan struct{}

	// Where the life begins.
	key     lobbyKey
	created int64 // the revision of the lobby's first key
	begin   saved
	lost    string // epochs of which the log lacks something, separated by spaces; empty if there are none

	// What Run knows of the lobby. Until Run has returned, nobody else may look.
	nodes   map[string]*member // the living, by name, and this one
	epoch   string             // of the history
	size    int                // bytes of entries since the last that made a saved state due
	gone    []string           // nodes that were buried since this one last saved a state
	seen    etcd.Entry         // the newest that is known to be in the log, without its text
	isOld   bool               // whether what was read last belongs to an earlier first key
	isKnown bool               // whether this node's hello has been read

	// What is on its way to the log.
	queue     []room.Command // that are in no entry yet
	number    int            // of the last entry that was sent
	sent      []sentEntry    // that have not been read, in order
	inFlight  bool           // whether the last of them is being appended
	isVoid    bool           // whether the log takes nothing more from this node
	beatDue   bool           // whether the next entry is a beat
	burialDue bool           // whether a member has become silent for long
	quiet     int            // ticks since an entry of this node was read, or any before it is known

	// What is on its way to the hub.
	outgoing []room.Step
	results  chan room.StepResult
	isPaging bool // whether the hub has taken the first of outgoing, and has not said what came of it

	isLoaded bool  // whether the hub has the state from which it begins
	isReady  bool  // whether ready is closed
	saving   *save // the state that is being saved; nil if none is
	warnedAt time.Time
}

// member is a node of the lobby.
type member struct {
	last       int  // the number of its last entry
	silent     int  // beats of this node since then
	burialSent bool // whether this node has sent a burial since then
}

// sentEntry is an entry that this node has sent.
type sentEntry struct {
	text     []byte
	commands int // how many there are in it
	isBeat   bool
}

// NewNode returns a node that begins where session says, with log.
func NewNode(session *etcd.Session, log Log, settings Settings, warn func(string)) (*Node, error) {
	key, err := check(session.Settings, settings)
	if err != nil {
		return nil, err
	}
	begin, err := first(key, session.Snapshot)
	if err != nil {
		return nil, err
	}
	n := &Node{
		name:     strings.ToLower(rand.Text()[:13]), // 65 random bits
		log:      log,
		warn:     warn,
		commands: make(chan room.Command),
		turns:    make(chan room.Step),
		ready:    make(chan struct{}),
		results:  make(chan room.StepResult, 1),
		key:      key,
		created:  session.Created,
		begin:    begin,
		nodes:    make(map[string]*member),
	}
	n.isOld = begin.Lobby != key.Epoch
	n.epoch, _, _ = strings.Cut(begin.State.LastID, "-")
	for name, last := range begin.Nodes {
		n.nodes[name] = &member{last: last}
	}
	return n, nil
}

// Name returns the node's name, which no other node ever has.
func (n *Node) Name() string { return n.name }

// Commands takes the commands of the hub. Run does not let the hub wait.
func (n *Node) Commands() chan<- room.Command { return n.commands }

// Steps delivers the turns for the hub. The last of them is a room.End, unless Run's ctx is done.
func (n *Node) Steps() <-chan room.Step { return n.turns }

// Results takes what came of the steps.
func (n *Node) Results() chan<- room.StepResult { return n.results }

// Ready is closed when the hub has all that was in the log, and the other nodes know of this one.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// read is what came from the log: an entry, or why there is none. An entry that was appended comes
// without its text.
type read struct {
	entry etcd.Entry
	err   error
}

// Run connects the hub with the log until ctx is done or this life is over, and returns why. The
// hub must have stopped before ctx is done.
func (n *Node) Run(ctx context.Context) (reason error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reads := make(chan read)
	go func() {
		for entry, err := range n.log.Entries(ctx) {
			select {
			case reads <- read{entry, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	appended := make(chan read, 1)
	saves := make(chan error, 1)

	n.outgoing = append(n.outgoing, room.Restore{Snapshot: n.begin.State})
	n.begin = saved{} // which may be large
	hello := news{version: version, lost: n.lost, epoch: chain.RandomEpoch()}
	n.send(ctx, sentEntry{text: hello.appendTo(nil)}, appended)
	for reason == nil || len(n.outgoing) > 0 {
		// What was read is given to the hub before more is read. When the life is over, that is all
		// there is to do.
		reading, turns, turn := reads, n.turns, room.Step(nil)
		switch {
		case len(n.outgoing) > 0:
			reading, turn = nil, n.outgoing[0]
			if n.isPaging {
				turns = nil
			}
		default:
			turns = nil
			n.becomeReady()
		}
		if reason == nil {
			n.sendNext(ctx, appended)
		}
		var err error
		select {
		case c := <-n.commands:
			n.queue = append(n.queue, c)

		case r := <-appended:
			err = n.noteAppended(r)

		case r := <-reading:
			if err = r.err; err == nil {
				err = n.take(r.entry)
			}

		case turns <- turn:
			n.noteTaken()

		case result := <-n.results:
			var saving *save
			if saving, err = n.noteResult(result); saving != nil {
				go func() { saves <- n.write(ctx, *saving) }()
			}

		case err := <-saves:
			n.noteSaved(err)

		case <-ticker.C:
			n.beatDue = true
			if n.quiet++; n.quiet == quietAfter {
				err = ErrQuiet
			}

		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil && reason == nil {
			reason = err
			n.outgoing = append(n.outgoing, n.lastTurn(reason))
		}
	}
	return reason
}

// lastTurn tells the hub what has become of its commands.
func (n *Node) lastTurn(reason error) room.End {
	unknown := 0
	if !errors.Is(reason, ErrBuried) { // after which nothing counts that was not read before
		for _, entry := range n.sent {
			unknown += entry.commands
		}
	}
	return room.End{Unknown: unknown}
}

// noteTaken notes that the hub has taken the first of outgoing.
func (n *Node) noteTaken() {
	switch n.outgoing[0].(type) {
	case room.Entry, room.End:
		n.outgoing = n.outgoing[1:]
	default:
		n.isPaging = true
	}
}

// noteResult takes the result of a step and asks for the next page, if there is one. It returns the
// saved state once it is complete, otherwise nil.
func (n *Node) noteResult(result room.StepResult) (whole *save, err error) {
	n.isPaging = false
	step := n.outgoing[0]
	n.outgoing = n.outgoing[1:]
	switch step := step.(type) {
	case room.Restore:
		n.isLoaded = true
		if result.Err != nil {
			return nil, fmt.Errorf("the saved state cannot be used: %w", result.Err)
		}
	case room.RemoveNode:
		if result.Next != "" {
			n.outgoing = slices.Insert(n.outgoing, 0, room.Step(room.RemoveNode{Node: step.Node, After: result.Next}))
		}
	case room.TakeSnapshot:
		state := &n.saving.State
		if step.After == "" {
			*state = result.Snapshot
		} else {
			state.Users = append(state.Users, result.Snapshot.Users...)
		}
		if result.Next == "" {
			return n.saving, nil
		}
		n.outgoing = slices.Insert(n.outgoing, 0, room.Step(room.TakeSnapshot{After: result.Next}))
	}
	return nil, nil
}

func (n *Node) noteAppended(r read) error {
	n.inFlight = false
	n.see(r.entry)
	if n.isVoid = errors.Is(r.err, etcd.ErrVoid); n.isVoid {
		return nil // the log will say why
	}
	return r.err
}

func (n *Node) noteSaved(err error) {
	if err == nil {
		n.gone = n.gone[len(n.saving.gone):]
	} else {
		n.warn(fmt.Sprintf("cannot save the lobby's state: %v; another node will, later", err))
	}
	n.saving = nil
}

// becomeReady closes ready as soon as this node is known and the hub has everything up to then.
func (n *Node) becomeReady() {
	if n.isKnown && n.isLoaded && !n.isReady {
		n.isReady = true
		close(n.ready)
	}
}

// sendNext sends the next entry, if the last one is in the log and there is something to send:
// commands, or a beat or a burial that is due.
func (n *Node) sendNext(ctx context.Context, appended chan<- read) {
	if n.inFlight || n.isVoid || len(n.queue) == 0 && !n.beatDue && !n.burialDue {
		return
	}
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(n.nodes)) {
		if m := n.nodes[name]; m.silent >= deadAfter && !m.burialSent {
			text = news{burial: name, last: m.last}.appendTo(text)
			m.burialSent = true
		}
	}
	commands := 0
	for commands < len(n.queue) && len(text) < maxEntry {
		text = n.queue[commands].AppendTo(text)
		commands++
	}
	n.queue = n.queue[commands:]
	n.send(ctx, sentEntry{text, commands, n.beatDue}, appended)
	n.beatDue, n.burialDue = false, false
}

func (n *Node) send(ctx context.Context, entry sentEntry, appended chan<- read) {
	n.number++
	n.sent = append(n.sent, entry)
	n.inFlight = true
	go func(number int) {
		revision, err := n.log.Append(ctx, n.name, number, entry.text)
		appended <- read{etcd.Entry{Revision: revision, Node: n.name, Number: number}, err}
	}(n.number)
}

// take applies one entry. Every node does the same with it, whoever wrote it. An error ends this
// life.
func (n *Node) take(e etcd.Entry) error {
	n.see(etcd.Entry{Revision: e.Revision, Node: e.Node, Number: e.Number})
	if !n.isKnown { // a node that begins may have much to read before it comes to its hello
		n.quiet = 0
	}
	// The operator may have removed the lobby's first key to have a new epoch. What is older than the
	// key that a node has made since is read in the old epoch.
	if isOld := e.Revision < n.created; isOld {
		n.isOld = true
	} else if n.isOld {
		n.isOld = false
		n.renew(n.key.Epoch)
	}
	news, commands, err := parse(string(e.Text))
	m, isOwn := n.nodes[e.Node], e.Node == n.name
	isHello := m == nil && e.Number == 1 && len(news) > 0 && news[0].burial == ""
	switch {
	case isHello && news[0].version > version: // even if the rest cannot be understood
		return ErrVersion
	case err != nil:
		n.skip(e, err.Error())
		return nil
	case isHello:
		m = &member{}
		n.nodes[e.Node] = m
	case m == nil:
		n.skip(e, "its node was given up or has never begun")
		return nil
	case e.Number != m.last+1:
		n.skip(e, fmt.Sprintf("the next entry of its node is %d", m.last+1))
		return nil
	}
	// Others may have carried out what somebody has written in this node's name, but the hub's
	// requests must not be answered for it.
	if isOwn && (len(n.sent) == 0 || !bytes.Equal(e.Text, n.sent[0].text)) {
		return ErrForged
	}
	m.last, m.silent, m.burialSent = e.Number, 0, false
	for _, x := range news {
		if slices.Contains(strings.Fields(x.lost), n.epoch) {
			if n.isKnown {
				return ErrRenewed
			}
			n.renew(x.epoch)
		}
		if dead := n.nodes[x.burial]; dead != nil && dead.last == x.last {
			if x.burial == n.name {
				return ErrBuried
			}
			delete(n.nodes, x.burial)
			n.gone = append(n.gone, x.burial)
			n.outgoing = append(n.outgoing, room.RemoveNode{Node: x.burial})
		}
	}
	if len(commands) > 0 {
		n.outgoing = append(n.outgoing, room.Entry{Node: e.Node, Commands: commands})
	}
	if isOwn {
		n.noteOwn()
	}
	if n.size += len(e.Text) + entryCost; n.size >= saveAfter {
		n.size = 0
		if isOwn && n.saving == nil {
			n.save(e.Revision)
		}
	}
	return nil
}

// see notes that an entry is in the log.
func (n *Node) see(e etcd.Entry) {
	if e.Revision > n.seen.Revision {
		n.seen = e
	}
}

// noteOwn notes that an entry of this node has come out of the log.
func (n *Node) noteOwn() {
	entry := n.sent[0]
	n.sent = n.sent[1:]
	n.quiet, n.isKnown = 0, true
	if !entry.isBeat {
		return
	}
	for name, m := range n.nodes {
		if name != n.name {
			m.silent++
			n.burialDue = n.burialDue || m.silent == deadAfter
		}
	}
}

// renew begins the history anew.
func (n *Node) renew(epoch string) {
	n.epoch = epoch
	n.outgoing = append(n.outgoing, room.NewEpoch{Epoch: epoch})
}

// skip warns that an entry does not count, at most once per warnPause.
func (n *Node) skip(e etcd.Entry, why string) {
	if now := time.Now(); now.Sub(n.warnedAt) >= warnPause {
		n.warnedAt = now
		n.warn(fmt.Sprintf("skipped entry %d of %q in the lobby's log: %s", e.Number, e.Node, why))
	}
}

// save is a state that is being saved.
type save struct {
	saved
	at   int64    // the revision up to which the state takes entries into account
	gone []string // nodes that the log need not remember
}

// save asks the hub for its state after the entry at a revision.
func (n *Node) save(at int64) {
	n.saving = &save{saved{Lobby: n.key.Epoch, Nodes: make(map[string]int)}, at, slices.Clone(n.gone)}
	for name, m := range n.nodes {
		n.saving.Nodes[name] = m.last
	}
	n.outgoing = append(n.outgoing, room.TakeSnapshot{})
}

// write saves a state in the log.
func (n *Node) write(ctx context.Context, s save) error {
	state, err := json.Marshal(s.saved)
	if err != nil {
		return err
	}
	return n.log.SaveSnapshot(ctx, s.at, state, s.gone)
}
