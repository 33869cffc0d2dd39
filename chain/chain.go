package chain

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"
	"weak"
)

const (
	// maxBatch is how many bytes a batch holds at most, unless one event alone takes more. Readers
	// that stall keep a batch each, at the worst all of them different ones.
	maxBatch = 20 << 10

	// recentBatches is how many batches are kept even if the history is shorter, so that a reader
	// that is a moment late loses nothing.
	recentBatches = 64

	// After a batch of n events the next one is sealed n rounds later, at most maxRounds: a few
	// events wait little, and a flood leaves in few large writes. Shorter rounds make a flood slow,
	// and longer ones make everyone wait. Rounds that follow how fast readers take a batch made a
	// flood two or three times as slow, for messages that came at most a third earlier.
	maxRounds      = 4
	minRound       = 4 * time.Millisecond
	roundPerReader = 4 * time.Microsecond
)

// ID names an event: the epoch of its chain, and its number.
type ID struct {
	epoch string // of [0-9a-z], and so random that no two chains share one
	seq   uint64 // counts the events of a chain from 1; 0 is before the first
}

// String returns EPOCH-SEQ, or "" for the zero ID, which names nothing.
func (id ID) String() string {
	if id == (ID{}) {
		return ""
	}
	return id.epoch + "-" + strconv.FormatUint(id.seq, 10)
}

// Seq returns the number of the event in its epoch.
func (id ID) Seq() uint64 { return id.seq }

// ParseID returns the ID whose String is s. The error says that there is none.
func ParseID(s string) (ID, error) {
	epoch, number, _ := strings.Cut(s, "-")
	seq, _ := strconv.ParseUint(number, 10, 64)
	id := ID{epoch, seq}
	if epoch == "" || id.String() != s {
		return ID{}, fmt.Errorf("%q is no id of an event", s)
	}
	return id, nil
}

// batch is a piece of the chain: events and comments that leave together.
type batch struct {
	sealed chan struct{}       // closed when nothing below will change any more
	data   []byte              // whole blocks of the event stream format; nil until the batch is sealed
	end    ID                  // the last event up to the end of data; zero until the batch is sealed
	next   weak.Pointer[batch] // the batch that follows; nil until the batch is sealed
	final  bool                // whether the chain ends here
}

// place is where something begins in the chain.
type place struct {
	batch  *batch
	offset int // in what is the batch's data once it is sealed
}

// Chain numbers events, keeps the last of them, and hands them to readers. It belongs to one
// goroutine, which calls its methods, and Tick whenever Due delivers.
type Chain struct {
	// Readers is how many readers there are. The owner counts them; the more there are, the longer
	// events are gathered.
	Readers int

	last    ID                    // the last event
	event   []byte                // the bytes of the event that is being appended, kept for the next
	filling *batch                // the end of the chain, which is not sealed yet
	data    []byte                // what filling will hold; its memory is kept for the next batch
	pending int                   // how many events there are in data
	history []place               // a ring of where the last events begin; event n is at (n-1) % maxHistory
	recent  [recentBatches]*batch // a ring of the batches that were sealed last
	batches int                   // how many batches were sealed; the last is at (batches-1) % recentBatches

	maxHistory int
	keepAlive  time.Duration
	timer      *time.Timer // runs until Tick is due
	gathering  bool        // whether the next event waits until Tick, because others left just before
	commentAt  time.Time   // when to send a comment, unless an event comes first
}

// New returns a chain of a new epoch. Readers can resume from the last history events, at least 1.
// After keepAlive, at least 1 ms, without an event the chain sends a comment.
func New(history int, keepAlive time.Duration) *Chain {
	return NewEpoch(RandomEpoch(), history, keepAlive)
}

// NewEpoch returns a chain as New does, of an epoch that no other chain must have.
func NewEpoch(epoch string, history int, keepAlive time.Duration) *Chain {
	return &Chain{
		last:       ID{epoch: epoch},
		filling:    newBatch(),
		maxHistory: history,
		keepAlive:  keepAlive,
		timer:      time.NewTimer(keepAlive),
	}
}

// RandomEpoch returns an epoch of 40 random bits.
func RandomEpoch() string { return strings.ToLower(rand.Text()[:8]) }

func newBatch() *batch { return &batch{sealed: make(chan struct{})} }

// LastID returns the ID of the last event.
func (c *Chain) LastID() ID { return c.last }

// Append appends an event, whose text is parts, concatenated. Each line of the text becomes a line
// of data.
func (c *Chain) Append(parts ...string) {
	id := ID{c.last.epoch, c.last.seq + 1}
	c.event = append(c.event[:0], "id: "...)
	c.event = append(c.event, id.epoch...)
	c.event = append(c.event, '-')
	c.event = strconv.AppendUint(c.event, id.seq, 10)
	c.event = append(c.event, "\nevent: message\ndata: "...)
	for _, part := range parts {
		c.event = append(c.event, strings.ReplaceAll(part, "\n", "\ndata: ")...)
	}
	c.event = append(c.event, "\n\n"...)
	c.add(id, c.event)
	if !c.gathering {
		c.seal()
	}
}

// add adds an event, as it will stand on the streams, to the batch that is being filled.
func (c *Chain) add(id ID, event []byte) {
	if c.pending > 0 && len(c.data)+len(event) > maxBatch {
		c.seal()
	}
	if begin := (place{c.filling, len(c.data)}); len(c.history) < c.maxHistory {
		c.history = append(c.history, begin)
	} else {
		c.history[c.last.seq%uint64(c.maxHistory)] = begin
	}
	c.data = append(c.data, event...)
	c.last = id
	c.pending++
}

// Due returns a channel that delivers when Tick is due. It is always the same one.
func (c *Chain) Due() <-chan time.Time { return c.timer.C }

// Tick does what time brings: it hands over what was gathered, or sends a comment, which keeps idle
// connections open and shows which of them are dead.
func (c *Chain) Tick() {
	switch {
	case c.pending > 0:
		c.seal()
	case c.gathering: // and nothing came, so the next event leaves at once
		c.gathering = false
		c.timer.Reset(time.Until(c.commentAt))
	default:
		c.data = append(c.data, ": keep-alive\n\n"...)
		c.seal()
	}
}

// seal hands the batch that is being filled to the readers, and links an empty one behind it.
func (c *Chain) seal() {
	b := c.filling
	c.filling = newBatch()
	b.data, c.data = bytes.Clone(c.data), c.data[:0] // no larger than it must be
	c.recent[c.batches%recentBatches] = b
	c.batches++
	b.end, b.next = c.last, weak.Make(c.filling)
	// A goroutine of its own, because to wake 10,000 readers takes milliseconds, in which the owner
	// has better things to do. Which of two batches wakes its readers first does not matter: they
	// read them in the chain's order.
	go close(b.sealed)

	c.commentAt = time.Now().Add(c.keepAlive)
	c.gathering = c.pending > 0
	if c.gathering {
		round := max(minRound, time.Duration(c.Readers)*roundPerReader)
		c.timer.Reset(min(time.Duration(min(c.pending, maxRounds))*round, c.keepAlive))
	} else {
		c.timer.Reset(c.keepAlive)
	}
	c.pending = 0
}

// End ends the chain: readers get everything up to now, and then io.EOF. Only After may be called
// from then on.
func (c *Chain) End() {
	c.timer.Stop()
	c.filling.data, c.filling.end, c.filling.final = c.data, c.last, true
	close(c.filling.sealed)
}

// Start is where a reader starts: a place in the chain, and what its client has to know.
type Start struct {
	place
	id  ID   // the last event before the place
	gap bool // whether the client misses events that it should have got
}

// After returns where to go on after the event that a client names: lastEventID is what it got as
// an id, or "" if it begins with the next event. If the history lacks an event after it, or the id
// is not one of this chain, the start is the end of the chain, with a gap.
func (c *Chain) After(lastEventID string) Start {
	if lastEventID == "" {
		return c.end(false)
	}
	id, err := ParseID(lastEventID)
	missed := c.last.seq - id.seq // a huge number if id is of the future
	if err != nil || id.epoch != c.last.epoch || missed > uint64(len(c.history)) {
		return c.end(true)
	}
	if missed == 0 {
		return c.end(false)
	}
	return Start{c.history[id.seq%uint64(c.maxHistory)], id, false}
}

// end returns the end of the chain.
func (c *Chain) end(gap bool) Start {
	return Start{place{c.filling, len(c.data)}, c.last, gap}
}
