package chain

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// History returns the events from which readers can resume, as they stand on the streams, without
// comments. Restore makes a chain of them.
func (c *Chain) History() []byte {
	var parts [][]byte
	var last *batch
	for n := range uint64(len(c.history)) {
		seq := c.last.seq - uint64(len(c.history)) + n // of the event before
		begin := c.history[seq%uint64(c.maxHistory)]
		switch begin.batch {
		case last:
		case c.filling:
			parts = append(parts, c.data[begin.offset:])
		default:
			parts = append(parts, begin.batch.data[begin.offset:])
		}
		last = begin.batch
	}
	return slices.Concat(parts...)
}

// Restore returns a chain that goes on after the event last, with what History of another chain
// returned then, of which it takes as much as its own history holds. The error says what is missing
// there.
func Restore(last ID, events []byte, history int, keepAlive time.Duration) (*Chain, error) {
	blocks := bytes.SplitAfter(events, []byte("\n\n"))
	blocks = blocks[:len(blocks)-1] // what follows the last separator is empty
	kept := min(last.seq, uint64(history))
	if uint64(len(blocks)) < kept {
		return nil, fmt.Errorf("there are only %d events up to %v", len(blocks), last)
	}
	c := NewEpoch(last.epoch, history, keepAlive)
	c.last.seq = last.seq - kept
	if c.last.seq > 0 {
		c.history = make([]place, history) // the ring is full, and does not begin at its first place
	}
	for _, block := range blocks[uint64(len(blocks))-kept:] {
		id := ID{last.epoch, c.last.seq + 1}
		if !bytes.HasPrefix(block, fmt.Appendf(nil, "id: %v\n", id)) {
			return nil, fmt.Errorf("the event %v is missing", id)
		}
		c.add(id, block)
	}
	if c.pending > 0 {
		c.seal()
	}
	return c, nil
}
