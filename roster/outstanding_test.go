package roster

// What outstanding Lists retain belongs here, and which of them are abandoned.

import (
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"weak"
)

// isAbandoned reports whether the senders of l were told to stop. In a bubble it first waits until
// all that are being told have been told.
func isAbandoned(l *List) bool {
	synctest.Wait()
	select {
	case <-l.Abandoned():
		return true
	default:
		return false
	}
}

// churn replaces the first name by a copy, over and over, until so many bytes of names are retired.
func churn(r *Roster, bytes int) {
	first := r.chunks[0].names[0]
	for end := r.retired.names + bytes; r.retired.names < end; {
		r.Remove(first)
		r.Add(first)
	}
}

func TestOldestListsAreAbandonedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(20_000, 256)
		var lists []*List
		for i := range 200 {
			churn(r, 1<<20)
			lists = append(lists, r.Take(Form(i%len(layouts))))
			abandoned := 0
			for abandoned < len(lists) && isAbandoned(lists[abandoned]) {
				abandoned++
			}
			if slices.ContainsFunc(lists[abandoned:], isAbandoned) {
				t.Fatal("a List was abandoned before an older one")
			}
			// Each List is charged a little over 1 MiB that the next does not have.
			if kept := len(lists) - abandoned; kept > 33 || abandoned > 0 && kept < 28 {
				t.Fatalf("%d Lists were abandoned and %d kept", abandoned, kept)
			}
		}
	})
}

// Much more than maxLong is retired, but the Lists together are smaller.
func TestListsThatFitAreNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(5000, 20)
		var lists []*List
		for range 10 {
			lists = append(lists, r.Take(Text), r.Take(JSON))
			churn(r, 4<<20)
		}
		if slices.ContainsFunc(lists, isAbandoned) {
			t.Error("a List was abandoned")
		}
	})
}

// The two forms of a List share its chunks, which count once.
func TestBothFormsRetainNoMoreThanOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(20_000, 1000) // its size is more than half of maxLong
		text, json := r.Take(Text), r.Take(JSON)
		churn(r, 2*maxLong)
		if isAbandoned(text) || isAbandoned(json) {
			t.Error("a List was abandoned")
		}
	})
}

func TestListIsOutstandingUntilItsLastReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(40_000, 1000) // a single List of it is more than maxLong
		twice, again := r.Take(Text), r.Take(Text)
		again.Return()
		r.Remove(numbered(0, 1000))
		once := r.Take(Text)
		once.Return()
		churn(r, maxLong)
		if !isAbandoned(twice) {
			t.Error("a List with one sender left was not abandoned")
		}
		if isAbandoned(once) {
			t.Error("a List was abandoned after its Return")
		}
		twice.Return() // has no effect
		if r.prune(); len(r.outstanding) > 0 {
			t.Errorf("%d Lists are outstanding", len(r.outstanding))
		}
	})
}

func TestShortListIsNeverAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(300, 200) // almost long
		l := r.Take(Text)
		r.Add(numbered(300, 10_000)) // from here on, Lists are long
		churn(r, 2*maxLong)
		if l.Long() || isAbandoned(l) {
			t.Errorf("a list of 300 names: Long() = %v, abandoned %v", l.Long(), isAbandoned(l))
		}
	})
}

// Old short Lists whose senders never finish stop new ones, except for the current one.
func TestOutstandingShortListsAreBounded(t *testing.T) {
	r := rosterOf(10, 20)
	var lists []*List
	for range maxShort {
		r.Add("alice")
		lists = append(lists, r.Take(Text))
		r.Remove("alice")
	}
	if r.Take(Text) != nil || r.Take(JSON) != nil {
		t.Fatalf("there is another short List beside %d", maxShort)
	}
	lists[10].Return()
	current := r.Take(Text)
	if current == nil {
		t.Fatal("there is no short List although one was returned")
	}
	for range 10 * maxShort {
		if r.Take(Text) != current {
			t.Fatal("the current List is not shared")
		}
	}
	if r.Take(JSON) != nil {
		t.Error("there is another short List in the other form")
	}
}

// A long List and the roster have the same names, even if all chunks were replaced since. So many
// senders can have old Lists while others come and go.
func TestNamesThatDidNotLeaveCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rosterOf(20_000, 1000)
		var lists []*List
		for range 20 {
			lists = append(lists, r.Take(Text))
			for i := range 20_000 / (maxChunk / 2) { // in every chunk
				name := numbered(i*maxChunk/2, 1000) + "!"
				r.Add(name)
				r.Remove(name)
			}
		}
		if slices.ContainsFunc(lists, isAbandoned) {
			t.Error("a List was abandoned")
		}
	})
}

// A List may have many senders, so another goroutine wakes them. With one processor, that goroutine
// runs later, unless the owner happens to be interrupted at this very moment.
func TestOwnerDoesNotWakeTheSenders(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := rosterOf(40_000, 1000)
	for range 5 {
		l := r.Take(Text)
		churn(r, maxLong)
		select {
		case <-l.Abandoned():
		default:
			return
		}
	}
	t.Error("the owner continued only when all senders had been woken")
}

// heap returns how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// The senders read nothing, while everything is replaced again and again. Each ends when it must.
func TestSendersThatNeverFinishRetainBoundedMemory(t *testing.T) {
	for _, test := range []struct {
		names, size int
		every       int // names that are replaced between two Lists
		measure     int // Lists after which the memory is measured
	}{
		{names: 10_000, size: 20, every: 1, measure: 2000},
		{names: 5000, size: 1000, every: 5000, measure: 5},
	} {
		before := heap()
		r := rosterOf(test.names, test.size)
		alone := heap() - before
		ended := make(chan *List)
		sending, most := 0, 0
		for i := 1; r.retired.chunks+r.retired.names < 3*maxLong; i++ {
			r.Remove(numbered(i%test.names, test.size))
			r.Add(numbered(i%test.names, test.size)) // a new string, as every user brings
			if i%test.every > 0 {
				continue
			}
			l := r.Take(Text)
			sending++
			go func() {
				<-l.Abandoned()
				ended <- l
			}()
			for ; sending > len(r.outstanding); sending-- {
				(<-ended).Return()
			}
			if i/test.every%test.measure == 0 {
				most = max(most, heap()-before-alone)
			}
		}
		if most < maxLong/2 || most > maxLong+maxLong/8 {
			t.Errorf("%d names: the Lists retained at most %.1f MiB", test.names, float64(most)/(1<<20))
		}
		for abandon(r.outstanding); sending > 0; sending-- {
			<-ended
		}
	}
}

func TestListsWithoutSendersAreNotRetained(t *testing.T) {
	r := rosterOf(40_000, 1000)
	take := func() weak.Pointer[List] {
		r.Remove(numbered(r.total.names-1, 1000))
		return weak.Make(r.Take(Text))
	}
	returned, kept, current := take(), take(), take()
	returned.Value().Return()
	churn(r, checkEvery)
	runtime.GC()
	if returned.Value() != nil {
		t.Error("a List is retained after its Return")
	}
	if kept.Value() == nil || current.Value() == nil {
		t.Error("a List with a sender is gone")
	}
	abandoned := kept.Value().Abandoned()
	churn(r, maxLong)
	<-abandoned
	runtime.GC()
	if kept.Value() != nil {
		t.Error("a List is retained after it was abandoned")
	}
}
