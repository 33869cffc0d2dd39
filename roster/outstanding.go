package roster

import "slices"

// This file bounds the memory that Lists retain while they are being sent. Nothing else depends on
// how it does so.

const (
	// MaxRetained bounds the memory, in bytes, that outstanding Lists retain in addition to the
	// current roster: for a long List, the chunks and names that neither the roster nor a newer List
	// has; for a short one, its body. Until its first sender runs, a short List retains its chunks
	// instead.
	MaxRetained = maxLong + maxShort*MaxPiece

	maxLong  = 32 << 20 // bytes
	maxShort = 256      // Lists

	maxSenders = 1 << 20 // of one List; the elements are empty, so the capacity needs no memory
	checkEvery = 1 << 20 // maxLong is checked each time that this many more bytes are retired
)

// outstandingList is a List with the owner's account of it.
type outstandingList struct {
	List
	memory  memory // of everything that a long List refers to
	retired memory // value of Roster.retired when the List was made
}

// memory is a number of bytes, by what they are used for. Names are counted apart because a chunk
// and its copies share them.
type memory struct{ chunks, names int }

// memory returns the size of the roster.
func (r *Roster) memory() memory {
	return memory{
		chunks: len(r.chunks)*chunkMemory + cap(r.chunks)*placeMemory,
		names:  r.total.bytes + r.total.names*nameMemory,
	}
}

// newOutstandingList makes a List of the roster as it is now, or returns nil if the List would be
// short and too many short ones are outstanding.
func (r *Roster) newOutstandingList(form Form) *outstandingList {
	if r.total.bodySize(form) <= MaxPiece {
		if r.short == maxShort {
			r.prune()
		}
		if r.short == maxShort {
			return nil
		}
		r.short++
	}
	r.gen++
	t := &outstandingList{newList(form, r.chunks, r.total), r.memory(), r.retired}
	r.outstanding = append(r.outstanding, t)
	return t
}

// prune drops from r.outstanding the Lists that all senders have returned and that Take will not
// return again. It also counts the short ones that are left.
func (r *Roster) prune() {
	r.short = 0
	r.outstanding = slices.DeleteFunc(r.outstanding, func(t *outstandingList) bool {
		if len(t.senders) == 0 && !slices.Contains(r.current[:], t) {
			return true
		}
		if !isLong(t) {
			r.short++
		}
		return false
	})
}

// retire accounts for memory that has left the roster but may be retained by Lists.
func (r *Roster) retire(m memory) {
	r.retired.chunks += m.chunks
	r.retired.names += m.names
	if sum := r.retired.chunks + r.retired.names; sum >= r.nextCheck {
		r.nextCheck = sum + checkEvery
		r.abandonOldest()
	}
}

// abandonOldest abandons the oldest long Lists until the rest retain so little that they stay
// within maxLong until the next check.
//
// Each List is charged for the memory that neither the roster nor a newer List shares with it. That
// is at most what was retired between the making of this List and of the next newer one. What was
// retired later was still in the roster when the newer List was made, so that List has it, too. And
// it is at most the List's own size.
func (r *Roster) abandonOldest() {
	r.prune()
	bytes := 0
	newer := r.retired // when the next newer List was made; for the newest List, now
	for i, t := range slices.Backward(r.outstanding) {
		if !isLong(t) {
			continue
		}
		bytes += listMemory + min(t.memory.chunks, newer.chunks-t.retired.chunks) +
			min(t.memory.names, newer.names-t.retired.names)
		newer = t.retired
		if bytes > maxLong-checkEvery {
			oldest := r.outstanding[:i+1]
			go abandon(slices.Clone(oldest)) // Waking all senders takes too long for the owner.
			r.outstanding = slices.Concat(slices.DeleteFunc(oldest, isLong), r.outstanding[i+1:])
			return
		}
	}
}

func isLong(t *outstandingList) bool { return t.Long() }

func abandon(lists []*outstandingList) {
	for _, t := range lists {
		if isLong(t) {
			close(t.abandoned)
		}
	}
}
