package roster

import (
	"context"
	"iter"
	"strings"
)

// MaxPiece is how long a piece of a List's body may be, in bytes.
const MaxPiece = 64 << 10

// Form is how the body of a List is written.
type Form int

// The forms.
const (
	FormText Form = iota // "Connected users:\n", then "User: NAME" for each, joined by newlines
	FormJSON             // {"users":["NAME","NAME"]}
)

// layouts are what stands around the names, by form.
var layouts = [...]struct{ opening, before, after, between, closing string }{
	FormText: {opening: "Connected users:\n", before: "User: ", between: "\n"},
	FormJSON: {opening: `{"users":[`, before: `"`, after: `"`, between: ",", closing: "]}"},
}

// List says who was there when it was taken from the Roster. Any goroutine may use
// it.
//
// A List is short if its body fits in one piece, in both forms. Such a body is
// written once in each form, by the first who asks for it, and shared by all. The
// body of a long List is written anew, piece by piece, for everyone who asks.
type List struct {
	chunks []*chunk
	total  sums

	long   bool
	bodies [len(layouts)]sharedBody // of a short List, by form

	context context.Context
	giveUp  context.CancelFunc // ends context; nil if the List is short
}

// sharedBody is a body that is written by the first who wants it.
type sharedBody struct {
	turn    chan struct{} // holds one token, for whoever writes the body
	written chan struct{} // closed when bytes is set
	bytes   []byte
}

func newList(chunks []*chunk, total sums) *List {
	l := &List{chunks: chunks, total: total, context: context.Background()}
	l.long = max(l.Size(FormText), l.Size(FormJSON)) > MaxPiece
	if l.long {
		l.context, l.giveUp = context.WithCancel(context.Background())
		return l
	}
	for f := range l.bodies {
		b := &l.bodies[f]
		b.turn, b.written = make(chan struct{}, 1), make(chan struct{})
		b.turn <- struct{}{}
	}
	return l
}

// Long reports whether the List must be given back with Roster.Release.
func (l *List) Long() bool { return l.long }

// Context returns a context that is done when a long List has been given up,
// because the Lists that are being sent keep too much memory. Whoever still sends
// it must stop. That of a short List is never done.
func (l *List) Context() context.Context { return l.context }

// Size returns how long the body is, in bytes.
func (l *List) Size(f Form) int {
	layout, n := layouts[f], l.total.names
	size := len(layout.opening) + len(layout.closing) + l.total.bytes +
		n*len(layout.before+layout.after) + max(n-1, 0)*len(layout.between)
	if f == FormJSON {
		size += l.total.escapes
	}
	return size
}

// Pieces returns the body in pieces of at most MaxPiece. A piece may be read
// until the next is asked for, and must not be changed.
func (l *List) Pieces(f Form) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if l.long {
			l.write(f, yield)
		} else {
			yield(l.Body(f))
		}
	}
}

// Body returns the body of a short List in one piece, which must not be changed. Whoever keeps it
// does not keep the List.
func (l *List) Body(f Form) []byte {
	b := &l.bodies[f]
	select {
	case <-b.turn:
		l.write(f, func(piece []byte) bool { // called once, because the body fits in one piece
			b.bytes = piece
			return true
		})
		close(b.written)
	default:
		<-b.written
	}
	return b.bytes
}

// write writes the body and calls yield with each piece, until that returns
// false. All pieces share one buffer. A short List has one piece.
func (l *List) write(f Form, yield func([]byte) bool) {
	const room = 1 << 10 // bytes; more than a name and the closing can take
	layout := layouts[f]
	before, betweenAndBefore := layout.before, layout.between+layout.before
	escaped := f == FormJSON && l.total.escapes > 0

	b := make([]byte, 0, min(l.Size(f), MaxPiece))
	b = append(b, layout.opening...)
	for _, c := range l.chunks {
		for _, name := range c.names {
			if l.long && len(b) > MaxPiece-room {
				if !yield(b) {
					return
				}
				b = b[:0]
			}
			b = append(b, before...)
			before = betweenAndBefore
			if escaped {
				b = appendEscaped(b, name)
			} else {
				b = append(b, name...)
			}
			b = append(b, layout.after...)
		}
	}
	yield(append(b, layout.closing...))
}

// appendEscaped appends name with a backslash before each \ and ", which is all
// that JSON needs, because names have no control characters.
func appendEscaped(b []byte, name string) []byte {
	for {
		i := strings.IndexAny(name, `"\`)
		if i < 0 {
			return append(b, name...)
		}
		b = append(b, name[:i]...)
		b = append(b, '\\', name[i])
		name = name[i+1:]
	}
}
