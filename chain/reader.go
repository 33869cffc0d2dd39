package chain

import (
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"time"
)

// Clients that lose their stream reconnect after a random delay in this range, so that they do not
// all reach a restarted server at once.
const minRetry, maxRetry = time.Second, 2 * time.Second

// Reader reads the chain. Only one goroutine at a time may use it.
type Reader struct {
	position        // the current batch, and the offset at which reading it started
	done     bool   // whether Next or More has returned the rest of that batch
	opening  []byte // returned by the first Next; nil afterwards
	askOwner func(ctx context.Context, lastEventID string) (Start, error)
}

// NewReader returns a Reader that begins at start. If the Reader falls so far behind that its next
// batch is gone, it calls askOwner, which must return the result of the owner's After.
func NewReader(
	start Start, askOwner func(ctx context.Context, lastEventID string) (Start, error),
) *Reader {
	retry := minRetry + mathrand.N(maxRetry-minRetry)
	opening := append(fmt.Appendf(nil, "retry: %d\n", retry.Milliseconds()), start.block()...)
	return &Reader{position: start.position, opening: opening, askOwner: askOwner}
}

// block returns the block that tells a client its position. Without a gap it has an id but no data,
// so clients store the id without dispatching an event.
func (s Start) block() []byte {
	if s.gap {
		return fmt.Appendf(nil, "id: %s\nevent: gap\ndata: Some events are missing because the "+
			"server no longer has them; fetch the list of users again.\n\n", s.id)
	}
	return fmt.Appendf(nil, "id: %s\n\n", s.id)
}

// Next waits for the next bytes of the stream and returns them: whole blocks of the event stream
// format (HTML standard, section 9.2.6), at most 20 KiB unless a single event is larger. Readers
// share the slice, so it must not be modified. The first call returns the opening block at once.
// The error is io.EOF if the chain has ended and everything was read, and otherwise that of ctx.
func (r *Reader) Next(ctx context.Context) ([]byte, error) {
	if opening := r.opening; opening != nil {
		r.opening = nil
		return opening, nil
	}
	for {
		if r.done {
			gap, err := r.step(ctx)
			if gap != nil || err != nil {
				return gap, err
			}
		}
		select {
		case <-r.batch.sealed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		r.done = true
		if data := r.batch.data[r.offset:]; len(data) > 0 {
			return data, nil
		}
	}
}

// More returns the bytes that follow those of the last call of Next or More, if they are available
// now and no more than limit, and otherwise nil. It lets a late reader send several batches at once.
func (r *Reader) More(limit int) []byte {
	p := r.position
	if r.done {
		p = position{batch: r.batch.next.Value()}
	}
	if p.batch == nil {
		return nil // Next finds out where to continue.
	}
	select {
	case <-p.batch.sealed:
	default:
		return nil
	}
	data := p.batch.data[p.offset:]
	if len(data) > limit {
		return nil
	}
	r.position, r.done = p, true
	return data
}

// step moves to the next batch. If that batch is gone, the reader is far behind, and asks where to
// continue; if there is a gap, step returns the block that tells the client.
func (r *Reader) step(ctx context.Context) (gap []byte, err error) {
	if r.batch.final {
		return nil, io.EOF
	}
	if next := r.batch.next.Value(); next != nil {
		r.position, r.done = position{batch: next}, false
		return nil, nil
	}
	start, err := r.askOwner(ctx, r.batch.end.String())
	if err != nil {
		return nil, err
	}
	r.position, r.done = start.position, false
	if start.gap {
		gap = start.block()
	}
	return gap, nil
}
