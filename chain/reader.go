package chain

import (
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"time"
)

// A client that lost its stream waits for this long before it comes back, each client for another
// time, so that a restarted server does not see all of them at once.
const minRetry, maxRetry = time.Second, 3 * time.Second

// Reader is one walk along the chain, by one goroutine at a time.
type Reader struct {
	place          // the batch that it reads, and where in it it began
	passed  bool   // whether Next has returned everything in that batch
	opening []byte // what Next returns first; nil after that
	after   func(ctx context.Context, lastEventID string) (Start, error)
}

// NewReader returns a Reader that begins at start. If it falls so far behind that its next batch is
// gone, it calls after, which must have the chain's owner call After.
func NewReader(start Start, after func(ctx context.Context, lastEventID string) (Start, error)) *Reader {
	retry := minRetry + mathrand.N(maxRetry-minRetry)
	opening := append(fmt.Appendf(nil, "retry: %d\n", retry.Milliseconds()), start.block()...)
	return &Reader{place: start.place, opening: opening, after: after}
}

// block returns what tells a client where it is. Without a gap it has no data, so that a client
// takes the id and dispatches no event.
func (s Start) block() []byte {
	if s.gap {
		return fmt.Appendf(nil, "id: %s\nevent: gap\ndata: Some events are missing here, because the server no longer has them; ask for the list of users again.\n\n", s.id)
	}
	return fmt.Appendf(nil, "id: %s\n\n", s.id)
}

// Next waits for the next bytes of the stream and returns them: whole blocks of the event stream
// format (HTML standard, section 9.2.6), at most 20 KiB unless one event takes more. Others share
// the bytes, so nobody may change them. The first call returns the opening block at once. The error
// is io.EOF when the chain has ended and everything was read, or else that of ctx.
func (r *Reader) Next(ctx context.Context) ([]byte, error) {
	if opening := r.opening; opening != nil {
		r.opening = nil
		return opening, nil
	}
	for {
		if r.passed {
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
		r.passed = true
		if data := r.batch.data[r.offset:]; len(data) > 0 {
			return data, nil
		}
	}
}

// step goes on to the batch that follows. If that one is gone, this reader is far behind, and asks
// where to go on; if there is a gap, step returns the block that tells the client of it.
func (r *Reader) step(ctx context.Context) (gap []byte, err error) {
	if r.batch.final {
		return nil, io.EOF
	}
	if next := r.batch.next.Value(); next != nil {
		r.place, r.passed = place{batch: next}, false
		return nil, nil
	}
	start, err := r.after(ctx, r.batch.end.String())
	if err != nil {
		return nil, err
	}
	r.place, r.passed = start.place, false
	if start.gap {
		gap = start.block()
	}
	return gap, nil
}
