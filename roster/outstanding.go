package roster

import "slices"

const (
	// MaxOld bounds the memory, in bytes, that the Lists which are being sent
	// keep beside the roster as it is now.
	MaxOld = 32 << 20

	checkEvery = 1 << 20 // replaced bytes, after which the owner checks that bound
)

// sent is a long List that is being sent.
type sent struct {
	list     *List
	senders  int // Takes that no Release has followed yet
	memory   int // bytes of all that the List consists of
	replaced int // value of Roster.replaced when the List was made
}

// Take returns who is there now: the same List until the next change. If the List
// is Long, Release must follow when it has been sent.
func (r *Roster) Take() *List {
	if r.last == nil {
		r.last = newList(r.chunks, r.total)
		r.lists++
	}
	if r.last.long {
		if n := len(r.sending); n == 0 || r.sending[n-1].list != r.last {
			s := sent{list: r.last, memory: r.memory(), replaced: r.replaced}
			r.sending = append(r.sending, s)
		}
		r.sending[len(r.sending)-1].senders++
	}
	return r.last
}

// Release ends what one Take began. For a List that is not Long it does nothing.
func (r *Roster) Release(l *List) {
	i := slices.IndexFunc(r.sending, func(s sent) bool { return s.list == l })
	if i < 0 {
		return // short, or given up
	}
	r.sending[i].senders--
	if r.sending[i].senders == 0 {
		r.sending = slices.Delete(r.sending, i, i+1)
	}
}

// memory returns how many bytes the roster consists of.
func (r *Roster) memory() int {
	return r.total.bytes + r.total.names*nameMemory +
		len(r.chunks)*chunkMemory + cap(r.chunks)*placeMemory
}

// countReplaced counts bytes that are gone from the roster but may still be in Lists.
func (r *Roster) countReplaced(bytes int) {
	r.replaced += bytes
	if r.replaced-r.checked >= checkEvery {
		r.checked = r.replaced
		r.giveUpOldest()
	}
}

// giveUpOldest gives up the oldest Lists until the others keep so little that they
// stay within MaxOld until checkEvery more has been replaced.
//
// A List counts for what neither the roster nor a younger List has. That is at most
// what was replaced between the making of the List and of the next younger one,
// because what was replaced later is in the younger one too. And it is at most all
// that the List consists of.
func (r *Roster) giveUpOldest() {
	kept, until := 0, r.replaced
	for i, s := range slices.Backward(r.sending) {
		kept += listMemory + min(s.memory, until-s.replaced)
		until = s.replaced
		if kept > MaxOld-checkEvery {
			go giveUp(slices.Clone(r.sending[:i+1]))
			r.sending = slices.Delete(r.sending, 0, i+1)
			return
		}
	}
}

// giveUp tells all senders of the lists to stop. It takes too long for the owner.
func giveUp(lists []sent) {
	for _, s := range lists {
		s.list.giveUp()
	}
}
