package roster

import (
	"iter"
	"slices"
	"strings"
)

// Roster is the sorted set of the names of all present users. One goroutine owns it and calls its
// methods. The zero Roster is empty and ready to use.
//
// The names are kept in chunks. A List is the slice of chunks at the moment when it was made, and
// chunks in a List are never modified: Add and Remove first copy the slice and the chunk that they
// change, each unless it was copied since the last List was made.
type Roster struct {
	chunks []*chunk // sorted; none is empty, unless it is the only one
	total  sums

	// By Form: what Take returns; nil from a change until the next Take.
	current [len(layouts)]*outstandingList

	gen       int // generation: how many Lists have been made
	copiedGen int // generation in which the slice of chunks was copied

	outstanding []*outstandingList // Lists that some senders may still have, the oldest first
	short       int                // number of short ones among them
	retired     memory             // total of what left the roster but may be retained by Lists
	nextCheck   int                // sum of retired at which to check what outstanding Lists retain
}

// chunk is a part of the roster: names that follow each other.
type chunk struct {
	names []string // sorted; at most maxChunk
	gen   int      // generation in which the chunk was made
}

const (
	maxChunk = 128 // names

	// Approximate bytes of memory.
	chunkMemory = 2400 // of a chunk
	placeMemory = 8    // of its place in the slice of chunks
	nameMemory  = 16   // of a name, in addition to its own bytes
	listMemory  = 256  // of a List, in addition to its chunks
)

// Take returns the current List in the given form: the same List until the next change. Call the
// List's Return once it has been sent. Take returns nil if too many Lists are being sent.
func (r *Roster) Take(form Form) *List {
	if r.current[form] == nil {
		r.current[form] = r.newOutstandingList(form)
	}
	t := r.current[form]
	if t == nil {
		return nil
	}
	select {
	case t.senders <- struct{}{}:
		return &t.List
	default:
		return nil
	}
}

// NamesAfter returns the names after name, in order; name itself need not be in the roster. The
// roster must not change meanwhile.
func (r *Roster) NamesAfter(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if len(r.chunks) == 0 {
			return
		}
		first, at := r.find(name)
		if names := r.chunks[first].names; at < len(names) && names[at] == name {
			at++
		}
		for _, c := range r.chunks[first:] {
			for _, name := range c.names[at:] {
				if !yield(name) {
					return
				}
			}
			at = 0
		}
	}
}

// Add adds a name that is not in the roster.
func (r *Roster) Add(name string) {
	if len(r.chunks) == 0 {
		r.chunks = []*chunk{r.newChunk(nil)}
	}
	i, at := r.find(name)
	c := r.change(i)
	if len(c.names) == maxChunk {
		const half = maxChunk / 2
		upper := r.newChunk(c.names[half:])
		c.names = slices.Delete(c.names, half, maxChunk)
		r.chunks = slices.Insert(r.chunks, i+1, upper)
		if at > half {
			c, at = upper, at-half
		}
	}
	c.names = slices.Insert(c.names, at, name)
	r.total.count(name, 1)
}

// Remove removes a name that is in the roster.
func (r *Roster) Remove(name string) {
	i, at := r.find(name)
	c := r.change(i)
	c.names = slices.Delete(c.names, at, at+1)
	r.total.count(name, -1)
	r.retire(memory{names: len(name) + nameMemory})
	if i+1 < len(r.chunks) {
		r.merge(i)
	}
	if i > 0 {
		r.merge(i - 1)
	}
}

// merge joins the chunks i and i+1 if together they fill at most half a chunk. An empty chunk is
// always joined with the other.
func (r *Roster) merge(i int) {
	n, next := len(r.chunks[i].names), r.chunks[i+1]
	if n+len(next.names) > maxChunk/2 && n > 0 && len(next.names) > 0 {
		return
	}
	c := r.change(i)
	c.names = append(c.names, next.names...)
	r.chunks = slices.Delete(r.chunks, i+1, i+2)
	r.retire(memory{chunks: chunkMemory})
}

// find returns the position of name, or the position where it belongs: the index of the chunk, and
// the index in the chunk.
func (r *Roster) find(name string) (i, at int) {
	// The search leaves out chunk 0, so its result i means chunk i+1. If that chunk begins with name,
	// name is in it. Otherwise it begins after name, so name belongs in chunk i.
	i, found := slices.BinarySearchFunc(r.chunks[1:], name, compareFirst)
	if found {
		i++
	}
	at, _ = slices.BinarySearch(r.chunks[i].names, name)
	return i, at
}

func compareFirst(c *chunk, name string) int { return strings.Compare(c.names[0], name) }

// change prepares chunk i for a change and returns it. It first copies the chunk and the slice of
// chunks if a List may have them.
func (r *Roster) change(i int) *chunk {
	clear(r.current[:])
	if r.copiedGen != r.gen {
		r.retire(memory{chunks: placeMemory * cap(r.chunks)})
		r.chunks = slices.Clone(r.chunks)
		r.copiedGen = r.gen
	}
	if c := r.chunks[i]; c.gen != r.gen {
		r.retire(memory{chunks: chunkMemory})
		r.chunks[i] = r.newChunk(c.names)
	}
	return r.chunks[i]
}

// newChunk returns a chunk with a copy of names and room for maxChunk.
func (r *Roster) newChunk(names []string) *chunk {
	return &chunk{names: append(make([]string, 0, maxChunk), names...), gen: r.gen}
}

// sums are the totals that determine the size of a body.
type sums struct {
	names   int
	bytes   int // of all names
	escapes int // bytes that JSON adds to the names: a backslash before each \ and "
}

// count adds n times the figures of name; n is -1 if name is removed.
func (s *sums) count(name string, n int) {
	s.names += n
	s.bytes += n * len(name)
	s.escapes += n * (strings.Count(name, `"`) + strings.Count(name, `\`))
}
