package chain

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"time"
	"weak"
)

const (
	// maxBatch is the largest size of a batch in bytes, unless a single event is larger. Larger
	// batches would make floods cheaper, but in the worst case every stalled reader keeps a
	// different batch alive.
	maxBatch = 20 << 10

	// recentBatches is how many batches are kept even if the history is shorter, so that a reader
	// that is a moment late loses nothing.
	recentBatches = 64

	// Waking a reader and writing to it takes deliveryCost of processor time, however many events
	// are written (BenchmarkDelivery measures it). So events are gathered for one or more rounds. A
	// round is about the time that all processors together need to deliver a batch to all readers.
	// After a batch of n events, the next ones are gathered for log2(n)+1 rounds, but for at most
	// maxRounds: an ordinary room hardly waits, and a flood is sent in few, large batches.
	deliveryCost = 4500 * time.Nanosecond
	minRound     = 50 * time.Microsecond // for the owner's own work
	maxRounds    = 7
)

// ID identifies an event by its epoch and its number.
type ID struct {
	epoch string // says which numbering seq belongs to; the chains of one lobby share it
	seq   uint64 // counts the events of an epoch from 1; 0 is before the first
}

// String returns EPOCH-SEQ, or "" for the zero ID, which identifies no event.
func (id ID) String() string {
	if id == (ID{}) {
		return ""
	}
	return id.epoch + "-" + strconv.FormatUint(id.seq, 10)
}

// Seq returns the number of the event in its epoch.
func (id ID) Seq() uint64 { return id.seq }

// ParseID parses an ID as formatted by String.
func ParseID(s string) (ID, error) {
	epoch, number, _ := strings.Cut(s, "-")
	seq, _ := strconv.ParseUint(number, 10, 64)
	id := ID{epoch, seq}
	if epoch == "" || id.String() != s {
		return ID{}, fmt.Errorf("%q is not an event id", s)
	}
	return id, nil
}

// batch is a part of the chain: events that are sent together, or one comment. All fields but
// sealed are zero until the batch is sealed, and never change afterwards.
type batch struct {
	sealed chan struct{}       // closed when the batch is sealed
	data   []byte              // whole blocks of the event stream format
	end    ID                  // the last event up to the end of data
	next   weak.Pointer[batch] // the batch that follows
	final  bool                // whether the chain ends with this batch
}

// position is a position in the chain.
type position struct {
	batch  *batch
	offset int // byte offset in the batch's data; until the batch is sealed, in Chain.data
}

// Chain numbers events, keeps the last of them, and hands them to readers. It is owned by one
// goroutine, which calls its methods, and Tick whenever Due delivers.
type Chain struct {
	// Readers is the number of readers; the more there are, the longer events are gathered. The
	// owner sets it: readers, each in its own goroutine, would need a lock to count themselves.
	Readers int

	last    ID         // the last event
	event   []byte     // the bytes of the event being appended; the memory is reused
	filling *batch     // the end of the chain, not yet sealed
	data    []byte     // the future data of filling; the memory is reused
	pending int        // the number of events in data
	history []position // a ring of the last events' positions; event n is at (n-1) % maxHistory

	recent  [recentBatches]*batch // a ring of the batches sealed last
	batches int                   // sealed so far; the last one is at (batches-1) % recentBatches

	maxHistory  int
	keepAlive   time.Duration
	timer       *time.Timer // runs until Tick is due
	gatherUntil time.Time   // when the events in data are sent, at the latest
}

// New returns a chain with a new epoch. It keeps the last events for resuming, at most as many as
// history says (at least 1), and sends a comment after keepAlive (at least 1 ms) without an event.
func New(history int, keepAlive time.Duration) *Chain {
	return NewEpoch(RandomEpoch(), history, keepAlive)
}

// NewEpoch is New with the given epoch, in which no other events may have been numbered.
func NewEpoch(epoch string, history int, keepAlive time.Duration) *Chain {
	return &Chain{
		last:       ID{epoch: epoch},
		filling:    newBatch(),
		history:    make([]position, 0, history), // growing it later would hold up the owner
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

// Append appends an event. Its text is the concatenation of parts; each line of the text becomes a
// line of data.
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
	// A timer alone would be too late, because some systems round short ones up, to as much as 15 ms.
	// So each event also looks at the clock. Only events that no other follows depend on the timer.
	switch wait := time.Until(c.gatherUntil); {
	case wait <= 0:
		c.seal()
	case c.pending == 1:
		c.timer.Reset(wait)
	}
}

// add adds the bytes of an event to the batch that is being filled.
func (c *Chain) add(id ID, event []byte) {
	if c.pending > 0 && len(c.data)+len(event) > maxBatch {
		c.seal()
	}
	if p := (position{c.filling, len(c.data)}); len(c.history) < c.maxHistory {
		c.history = append(c.history, p)
	} else {
		c.history[c.last.seq%uint64(c.maxHistory)] = p
	}
	c.data = append(c.data, event...)
	c.last = id
	c.pending++
}

// Due returns a channel that delivers when Tick is due. It is always the same channel.
func (c *Chain) Due() <-chan time.Time { return c.timer.C }

// Tick sends the gathered events. If there are none, it sends a comment, which keeps idle
// connections open and shows which of them are dead.
func (c *Chain) Tick() {
	if c.pending == 0 {
		c.data = append(c.data, ": keep-alive\n\n"...)
	}
	c.seal()
}

// seal hands the batch that is being filled to the readers and links an empty one behind it.
func (c *Chain) seal() {
	b := c.filling
	c.filling = newBatch()
	b.data, c.data = bytes.Clone(c.data), c.data[:0] // The clone leaves the spare capacity behind.
	c.recent[c.batches%recentBatches] = b
	c.batches++
	b.end, b.next = c.last, weak.Make(c.filling)
	// Waking 10,000 readers takes milliseconds, so another goroutine does it. A later batch may be
	// closed first; that does no harm, because readers follow the order of the chain.
	go close(b.sealed)

	c.gatherUntil = time.Now().Add(c.gatherTime(c.pending))
	c.timer.Reset(c.keepAlive)
	c.pending = 0
}

// gatherTime returns how long to gather events after a batch of n events.
func (c *Chain) gatherTime(n int) time.Duration {
	if n == 0 { // a comment
		return 0
	}
	round := minRound + time.Duration(c.Readers)*deliveryCost/time.Duration(runtime.GOMAXPROCS(0))
	rounds := min(math.Log2(float64(n))+1, maxRounds)
	return min(time.Duration(rounds*float64(round)), c.keepAlive)
}

// End ends the chain: readers receive everything so far and then io.EOF. After End, only After may
// be called.
func (c *Chain) End() {
	c.timer.Stop()
	c.filling.data, c.filling.end, c.filling.final = c.data, c.last, true
	close(c.filling.sealed)
}

// Start is the position at which a reader starts, with the id and the gap to report to its client.
type Start struct {
	position
	id  ID   // the last event before the position
	gap bool // whether the client misses events that it asked for
}

// IsGap reports whether the client misses events that it asked for.
func (s Start) IsGap() bool { return s.gap }

// After returns where to continue after an event: lastEventID is the last id that the client
// received, or "" to start with the next event. If an event after it has left the history, or if
// the id does not belong to this chain, the Start is the end of the chain, with a gap.
func (c *Chain) After(lastEventID string) Start {
	if lastEventID == "" {
		return c.tail(false)
	}
	id, err := ParseID(lastEventID)
	missed := c.last.seq - id.seq // wraps if id is ahead of the chain, to more than last.seq
	if err != nil || id.epoch != c.last.epoch || missed > uint64(len(c.history)) {
		return c.tail(true)
	}
	if missed == 0 {
		return c.tail(false)
	}
	return Start{c.history[id.seq%uint64(c.maxHistory)], id, false}
}

// tail returns the end of the chain.
func (c *Chain) tail(gap bool) Start {
	return Start{position{c.filling, len(c.data)}, c.last, gap}
}
