package roster

import (
	"iter"
	"slices"
	"strings"
)

// Roster is the sorted list of who is there. One goroutine owns it and calls its
// methods. The zero Roster is empty and ready.
//
// The names stand in chunks, and a List is no more than the slice of chunks as
// it was when the List was taken. What a List has is never changed: Add and Remove
// change a copy of one chunk, in a copy of the slice of chunks, unless both have
// been copied since the last List was made. So taking a List costs nothing, and
// Lists share all chunks that did not change between them.
type Roster struct {
	chunks []*chunk // sorted; none is empty, except a single one
	copied int      // value of lists when the slice of chunks was copied
	total  sums

	lists int   // how many Lists have been made
	last  *List // who is there now; nil if that has changed since the last List was made

	sending  []sent // the long Lists that are being sent, the oldest first
	replaced int    // bytes that were replaced or removed, ever, and may still be in Lists
	checked  int    // value of replaced when giveUpOldest last ran
}

// chunk is a part of the roster: names that follow each other.
type chunk struct {
	names []string // sorted; at most maxChunk
	made  int      // value of Roster.lists when the chunk was made
}

const (
	maxChunk = 128 // names

	// Bytes of memory, as the allocator rounds them up.
	chunkMemory = 2400 // of a chunk
	placeMemory = 8    // of its place in the slice of chunks
	nameMemory  = 16   // of a name, besides its own bytes
	listMemory  = 512  // of a List, besides its chunks
)

// Len returns how many names there are.
func (r *Roster) Len() int { return r.total.names }

// NamesAfter returns the names that follow name in their order, whether or not that is there. The
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
		for i, c := range r.chunks[first:] {
			names := c.names
			if i == 0 {
				names = names[at:]
			}
			for _, name := range names {
				if !yield(name) {
					return
				}
			}
		}
	}
}

// Add adds the name of a user, as Name.String returns it, that is not there yet.
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
	r.total.add(name)
}

// Remove removes a name that is there.
func (r *Roster) Remove(name string) {
	i, at := r.find(name)
	c := r.change(i)
	c.names = slices.Delete(c.names, at, at+1)
	r.total.remove(name)
	r.countReplaced(len(name) + nameMemory)
	if i+1 < len(r.chunks) {
		r.merge(i)
	}
	if i > 0 {
		r.merge(i - 1)
	}
}

// merge makes one chunk of the chunks i and i+1 if both together fill less than
// half of one. An empty chunk is always merged with the other.
func (r *Roster) merge(i int) {
	n, next := len(r.chunks[i].names), r.chunks[i+1]
	if n+len(next.names) > maxChunk/2 && n > 0 && len(next.names) > 0 {
		return
	}
	c := r.change(i)
	c.names = append(c.names, next.names...)
	r.chunks = slices.Delete(r.chunks, i+1, i+2)
	r.countReplaced(chunkMemory)
}

// find returns where name is, or where it belongs: the chunk's index, and the
// name's in the chunk.
func (r *Roster) find(name string) (i, at int) {
	// The chunk is the last that does not begin after name, or else the first.
	i, found := slices.BinarySearchFunc(r.chunks[1:], name, compareFirst)
	if found {
		i++
	}
	at, _ = slices.BinarySearch(r.chunks[i].names, name)
	return i, at
}

func compareFirst(c *chunk, name string) int { return strings.Compare(c.names[0], name) }

// change returns chunk i, and sees to it that neither the chunk nor the slice of
// chunks is in a List, so that both may be changed.
func (r *Roster) change(i int) *chunk {
	r.last = nil
	if r.copied != r.lists {
		r.countReplaced(placeMemory * cap(r.chunks))
		r.chunks = slices.Clone(r.chunks)
		r.copied = r.lists
	}
	if c := r.chunks[i]; c.made != r.lists {
		r.countReplaced(chunkMemory)
		r.chunks[i] = r.newChunk(c.names)
	}
	return r.chunks[i]
}

// newChunk returns a chunk with a copy of names and room for maxChunk.
func (r *Roster) newChunk(names []string) *chunk {
	return &chunk{names: append(make([]string, 0, maxChunk), names...), made: r.lists}
}

// sums are the numbers from which the size of a body follows.
type sums struct {
	names   int
	bytes   int // of all names
	escapes int // bytes that JSON adds to the names: a backslash before each \ and "
}

func (s *sums) add(name string) {
	s.names++
	s.bytes += len(name)
	s.escapes += escapes(name)
}

func (s *sums) remove(name string) {
	s.names--
	s.bytes -= len(name)
	s.escapes -= escapes(name)
}

func escapes(name string) int { return strings.Count(name, `"`) + strings.Count(name, `\`) }
