package roster

import (
	"iter"
	"strings"
)

// MaxPiece is the maximum size of a piece of a List's body, in bytes.
const MaxPiece = 64 << 10

// Form is an output format of a List.
type Form int

// The forms.
const (
	Text Form = iota // "Connected users:\n", then "User: NAME" for each, joined by newlines
	JSON             // {"users":["NAME","NAME"]}
)

// layouts holds the text around the names, by Form.
var layouts = [...]struct{ opening, before, after, between, closing string }{
	Text: {opening: "Connected users:\n", before: "User: ", between: "\n"},
	JSON: {opening: `{"users":[`, before: `"`, after: `"`, between: ",", closing: "]}"},
}

// List is the content of a Roster at one moment, in one Form. It never changes, and any goroutine
// may use it.
type List struct {
	form      Form
	size      int
	chunks    []*chunk      // the names; in a short List, nil once body holds the bytes
	body      chan []byte   // of a short List: holds its body, or nil until a sender has written it
	escaped   bool          // whether a name needs escaping in this form
	abandoned chan struct{} // of a long List
	senders   chan struct{} // has an element for each Take that no Return has followed yet
}

func newList(form Form, chunks []*chunk, total sums) List {
	l := List{
		form:    form,
		chunks:  chunks,
		size:    total.bodySize(form),
		escaped: form == JSON && total.escapes > 0,
		senders: make(chan struct{}, maxSenders),
	}
	if l.Long() {
		l.abandoned = make(chan struct{})
	} else {
		l.body = make(chan []byte, 1)
		l.body <- nil
	}
	return l
}

// bodySize returns the size of the body of a List.
func (s sums) bodySize(form Form) int {
	layout := layouts[form]
	size := len(layout.opening) + len(layout.closing) + s.bytes +
		s.names*len(layout.before+layout.after) + max(s.names-1, 0)*len(layout.between)
	if form == JSON {
		size += s.escapes
	}
	return size
}

// Return ends what one Take began: the List has been sent.
func (l *List) Return() { <-l.senders }

// Long reports whether the body is larger than MaxPiece.
func (l *List) Long() bool { return l.size > MaxPiece }

// Size returns the size of the body, in bytes.
func (l *List) Size() int { return l.size }

// Body returns the body of a short List. It must not be modified.
func (l *List) Body() []byte {
	body := <-l.body // Other senders wait until it is back.
	if body == nil {
		l.write(func(piece []byte) bool { body = piece; return true }) // A short List has one piece.
		l.chunks = nil
	}
	l.body <- body
	return body
}

// Pieces returns the body in pieces of at most MaxPiece. A piece is valid until the next one is
// requested, and must not be modified.
func (l *List) Pieces() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if l.Long() {
			l.write(yield)
		} else {
			yield(l.Body())
		}
	}
}

// Abandoned returns a channel that is closed when a long List is abandoned because the outstanding
// Lists retain too much memory. Its senders must then stop. The channel of a short List is nil.
func (l *List) Abandoned() <-chan struct{} { return l.abandoned }

// write formats the body and calls yield with each piece, until yield returns false. All pieces
// share one buffer. A short List has one piece.
func (l *List) write(yield func([]byte) bool) {
	const room = 1 << 10 // bytes kept free in a piece: enough for one more name and the closing
	layout := layouts[l.form]
	before, separator := layout.before, layout.between+layout.before

	b := make([]byte, 0, min(l.size, MaxPiece))
	b = append(b, layout.opening...)
	for _, c := range l.chunks {
		for _, name := range c.names {
			if l.Long() && len(b) > MaxPiece-room {
				if !yield(b) {
					return
				}
				b = b[:0]
			}
			b = append(b, before...)
			before = separator
			if l.escaped {
				b = appendEscaped(b, name)
			} else {
				b = append(b, name...)
			}
			b = append(b, layout.after...)
		}
	}
	yield(append(b, layout.closing...))
}

// appendEscaped appends name with a backslash before each \ and ". JSON needs no other escapes
// here, because names contain no control characters.
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
