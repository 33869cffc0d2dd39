package roster

import "slices"

// This file bounds the memory that Lists retain while they are being sent. Nothing else depends on
// how it does so.

const (
	// MaxRetained bounds the memory, in bytes, that outstanding Lists retain in addition to the
	// current roster.
	MaxRetained = 32 << 20

	checkEvery = 1 << 20 // retired bytes from one check of that bound to the next
)

// taken is a List with the owner's account of it, which only long Lists need.
type taken struct {
	List
	senders int // calls of Take that no Return has followed yet
	memory  int // bytes of everything that the List refers to
	retired int // value of Roster.retired when the List was made
}

// Return ends what one Take began: the List has been sent. It does nothing if the List is short or
// was abandoned.
func (r *Roster) Return(l *List) {
	i := slices.IndexFunc(r.outstanding, func(t *taken) bool { return &t.List == l })
	if i < 0 {
		return
	}
	r.outstanding[i].senders--
	if r.outstanding[i].senders == 0 {
		r.outstanding = slices.Delete(r.outstanding, i, i+1)
	}
}

// memory returns the size of the roster in bytes.
func (r *Roster) memory() int {
	return r.total.bytes + r.total.names*nameMemory +
		len(r.chunks)*chunkMemory + cap(r.chunks)*placeMemory
}

// retire accounts for bytes that have left the roster but may be retained by Lists.
func (r *Roster) retire(bytes int) {
	r.retired += bytes
	if r.retired >= r.nextCheck {
		r.nextCheck = r.retired + checkEvery
		r.abandonOldest()
	}
}

// abandonOldest abandons the oldest Lists until the rest retain so little that they stay within
// MaxRetained until the next check.
//
// Each List is charged for the memory that neither the roster nor a newer List shares with it. That
// is at most what was retired before the next newer List was made, because what was retired later
// is in the newer List too. And it is at most the List's own size.
func (r *Roster) abandonOldest() {
	retained, newer := 0, r.retired
	for i, t := range slices.Backward(r.outstanding) {
		retained += listMemory + min(t.memory, newer-t.retired)
		newer = t.retired
		if retained > MaxRetained-checkEvery {
			// Waking all senders takes too long for the owner.
			go abandon(slices.Clone(r.outstanding[:i+1]))
			r.outstanding = slices.Delete(r.outstanding, 0, i+1)
			return
		}
	}
}

func abandon(lists []*taken) {
	for _, t := range lists {
		close(t.abandoned)
	}
}
