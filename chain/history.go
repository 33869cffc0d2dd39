package chain

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// History returns the events from which readers can resume, as they appear on the streams, without
// comments. Restore makes a chain from them.
func (c *Chain) History() []byte {
	var parts [][]byte
	var copied *batch
	for n := range uint64(len(c.history)) {
		before := c.last.seq - uint64(len(c.history)) + n // the number of the preceding event
		p := c.history[before%uint64(c.maxHistory)]
		switch p.batch {
		case copied: // The rest of a batch was copied with its first event.
		case c.filling:
			parts = append(parts, c.data[p.offset:])
		default:
			parts = append(parts, p.batch.data[p.offset:])
		}
		copied = p.batch
	}
	return slices.Concat(parts...)
}

// Restore returns a chain that continues after the event last. Its history comes from events, the
// result of another chain's History at that point: the new chain keeps as many of the last ones as
// its own history holds. Restore fails if events are missing.
func Restore(last ID, events []byte, history int, keepAlive time.Duration) (*Chain, error) {
	blocks := bytes.SplitAfter(events, []byte("\n\n"))
	blocks = blocks[:len(blocks)-1] // Nothing follows the last separator.
	kept := min(last.seq, uint64(history))
	if uint64(len(blocks)) < kept {
		return nil, fmt.Errorf("there are only %d events up to %v", len(blocks), last)
	}
	c := NewEpoch(last.epoch, history, keepAlive)
	c.last.seq = last.seq - kept
	if c.last.seq > 0 {
		// The events below fill the whole ring, and the first of them need not be at index 0.
		c.history = c.history[:history]
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
