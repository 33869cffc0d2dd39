// Here belongs what the Lists that are being sent keep in memory, and which are given up.
package roster

import (
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"weak"
)

// isGivenUp reports whether the senders of l were told to stop. In a bubble it
// waits until whoever is being told has been told.
func isGivenUp(l *List) bool {
	synctest.Wait()
	return l.Context().Err() != nil
}

// churn changes the roster until so many bytes have been replaced. Each round of
// two changes is followed by a Take, so that everything must be copied again.
func churn(r *Roster, bytes int) {
	for end := r.replaced + bytes; r.replaced < end; {
		r.Add("churn")
		r.Remove("churn")
		r.Release(r.Take())
	}
}

func TestTheOldestListsAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(20_000, 256)
		var lists []*List
		for range 200 {
			churn(r, 1<<20)
			lists = append(lists, r.Take())
			given := 0
			for given < len(lists) && isGivenUp(lists[given]) {
				given++
			}
			if slices.ContainsFunc(lists[given:], isGivenUp) {
				t.Fatal("a List was given up before an older one")
			}
			// Each List keeps a little over 1 MiB that the next does not have.
			if kept := len(lists) - given; kept > 33 || given > 0 && kept < 28 {
				t.Fatalf("%d Lists were given up and %d kept", given, kept)
			}
		}
	})
}

// TestListsThatFitAreNotGivenUp replaces much more than MaxOld, but the Lists
// together consist of less.
func TestListsThatFitAreNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(5000, 20)
		var lists []*List
		for range 20 {
			lists = append(lists, r.Take())
			churn(r, 10<<20)
		}
		if slices.ContainsFunc(lists, isGivenUp) {
			t.Error("a List was given up")
		}
	})
}

func TestAListIsBeingSentUntilItsLastRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(40_000, 1000) // one List of it is more than MaxOld
		twice, again := r.Take(), r.Take()
		r.Release(again)
		r.Remove(numbered(0, 1000))
		once := r.Take()
		r.Release(once)
		churn(r, MaxOld)
		if !isGivenUp(twice) {
			t.Error("a List was not given up, though one of its two senders is left")
		}
		if isGivenUp(once) {
			t.Error("a List was given up that nobody sends")
		}
		r.Release(twice) // which changes nothing any more
		if len(r.sending) > 0 {
			t.Errorf("%d Lists are still being sent", len(r.sending))
		}
	})
}

func TestShortListsAreNeverGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(100, 20)
		l := r.Take()
		churn(r, 2*MaxOld)
		if l.Long() || isGivenUp(l) {
			t.Errorf("a list of 100 names: Long() = %v, given up %v", l.Long(), isGivenUp(l))
		}
		if r.Take(); len(r.sending) > 0 {
			t.Error("a short List counts as being sent, though nobody need release it")
		}
	})
}

// TestTheOwnerDoesNotWakeTheSenders wants that to happen in another goroutine,
// because a List may have many senders. With one processor, that goroutine runs
// later, unless the owner happens to be interrupted at this very moment.
func TestTheOwnerDoesNotWakeTheSenders(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := rosterOf(40_000, 1000)
	for range 5 {
		l := r.Take()
		for len(r.sending) > 0 {
			r.Add("churn")
			r.Remove("churn")
			r.Release(r.Take())
		}
		if l.Context().Err() == nil {
			return
		}
	}
	t.Error("the owner went on only when all senders had been woken")
}

// heap returns how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestSendersThatNeverFinishKeepBoundedMemory starts senders that read nothing,
// while everything is replaced again and again. Each ends when it must.
func TestSendersThatNeverFinishKeepBoundedMemory(t *testing.T) {
	for _, test := range []struct {
		names, size int
		every       int // names that are replaced between two Lists
		look        int // Lists after which the memory is measured
	}{
		{names: 10_000, size: 20, every: 1, look: 2000},
		{names: 5000, size: 1000, every: 5000, look: 5},
	} {
		before := heap()
		r := rosterOf(test.names, test.size)
		alone := heap() - before
		ended := make(chan *List)
		sending, most := 0, 0
		for i := 1; r.replaced < 3*MaxOld; i++ {
			r.Remove(numbered(i%test.names, test.size))
			r.Add(numbered(i%test.names, test.size)) // a new string, as every user brings
			if i%test.every > 0 {
				continue
			}
			l := r.Take()
			sending++
			go func() {
				<-l.Context().Done()
				ended <- l
			}()
			for ; sending > len(r.sending); sending-- {
				r.Release(<-ended)
			}
			if i/test.every%test.look == 0 {
				most = max(most, heap()-before-alone)
			}
		}
		if most < MaxOld/2 || most > MaxOld+MaxOld/8 {
			t.Errorf("%d names: the Lists kept at most %.1f MiB", test.names, float64(most)/(1<<20))
		}
		for giveUp(r.sending); sending > 0; sending-- {
			<-ended
		}
	}
}

func TestListsThatNobodySendsAreForgotten(t *testing.T) {
	r := rosterOf(40_000, 1000)
	take := func() weak.Pointer[List] {
		r.Remove(numbered(r.Len()-1, 1000))
		return weak.Make(r.Take())
	}
	released, kept, current := take(), take(), take()
	r.Release(released.Value())
	runtime.GC()
	if released.Value() != nil {
		t.Error("a List is still there after its Release")
	}
	if kept.Value() == nil || current.Value() == nil {
		t.Error("a List that is being sent is gone")
	}
	given := kept.Value().Context()
	churn(r, MaxOld)
	<-given.Done()
	runtime.GC()
	if kept.Value() != nil {
		t.Error("a List is still there after it was given up")
	}
}
