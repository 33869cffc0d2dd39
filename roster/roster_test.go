package roster

// The names in a roster belong here, and that Lists stay as they were when they were taken.

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// rosterOf returns a roster of names that count from 0, each as long as size.
func rosterOf(n, size int) *Roster {
	var r Roster
	for i := range n {
		r.Add(numbered(i, size))
	}
	return &r
}

// numbered returns a name that no other number has.
func numbered(i, size int) string {
	name := fmt.Sprintf("%07d", i)
	return name + strings.Repeat("x", size-len(name))
}

// read returns the body of l.
func read(l *List) string {
	var body strings.Builder
	for piece := range l.Pieces() {
		body.Write(piece)
	}
	return body.String()
}

// oddName returns a random name of characters that JSON or HTML treat specially, among others.
func oddName(random *rand.Rand) string {
	letters := []rune(`abc"\<>&'é名😀`)
	name := make([]rune, 1+random.IntN(8))
	for i := range name {
		name[i] = letters[random.IntN(len(letters))]
	}
	return string(name)
}

// Long names make long Lists, which share the roster's chunks.
func TestRosterHasTheNamesThatWereAddedAndNotRemoved(t *testing.T) {
	for _, test := range []struct{ every, padding int }{{1, 0}, {10, 200}, {100, 200}} {
		random := rand.New(rand.NewPCG(uint64(test.every), 0))
		testRoster(t, random, test.every, strings.Repeat("x", test.padding))
	}
}

// testRoster compares a roster with a sorted slice while both grow, become empty and grow again. It
// takes a List before every so many changes.
func testRoster(t *testing.T, random *rand.Rand, every int, padding string) {
	type taken struct {
		list  *List
		names []string
	}
	var r Roster
	var names []string
	var lists []taken
	for i := range 10_000 {
		grows := i%5000 < 2000
		switch name := oddName(random) + padding; {
		case random.IntN(8) > 0 == grows:
			if at, found := slices.BinarySearch(names, name); !found {
				names = slices.Insert(names, at, name)
				r.Add(name)
			}
		case len(names) > 0:
			at := random.IntN(len(names))
			r.Remove(names[at])
			names = slices.Delete(names, at, at+1)
		}
		if r.total.names != len(names) {
			t.Fatalf("there are %d names, want %d", r.total.names, len(names))
		}
		if i%every == 0 {
			checkChunks(t, &r)
			l := r.Take(Form(random.IntN(len(layouts))))
			if random.IntN(20) == 0 && len(lists) < maxShort/2 {
				lists = append(lists, taken{l, slices.Clone(names)})
			} else {
				l.Return()
			}
		}
	}
	for _, old := range lists {
		checkList(t, old.list, old.names)
	}
}

// checkChunks fails the test if the roster has chunks that are too long or not
// in order, or so many short ones that its size does not bound their number.
func checkChunks(t *testing.T, r *Roster) {
	t.Helper()
	last, before := "", maxChunk
	for _, c := range r.chunks {
		n := len(c.names)
		if n > maxChunk || n == 0 && len(r.chunks) > 1 || n+before <= maxChunk/2 {
			t.Fatalf("a chunk has %d names and the one before it %d", n, before)
		}
		if cap(c.names) != maxChunk {
			t.Fatalf("a chunk has room for %d names", cap(c.names))
		}
		for _, name := range c.names {
			if name <= last {
				t.Fatalf("%q stands after %q", name, last)
			}
			last = name
		}
		before = n
	}
}

// A chunk becomes empty, at either end or in the middle, while its neighbors are full.
func TestEmptyChunkIsRemoved(t *testing.T) {
	for _, chunk := range []int{0, 1, 2} {
		var r Roster
		for i := 0; len(r.chunks) < 3 || len(r.chunks[2].names) < maxChunk; i++ {
			r.Add(numbered(i*1000, 10))
		}
		for i := range 2 {
			for n := 1; len(r.chunks[i].names) < maxChunk; n++ {
				r.Add(r.chunks[i].names[0] + strings.Repeat("y", n))
			}
		}
		for left := slices.Clone(r.chunks[chunk].names); len(left) > 0; left = left[1:] {
			r.Remove(left[0])
			checkChunks(t, &r)
		}
		if len(r.chunks) != 2 || r.total.names != 2*maxChunk {
			t.Errorf("%d names in %d chunks are left", r.total.names, len(r.chunks))
		}
	}
}

func TestTakeReturnsTheSameListUntilTheNextChange(t *testing.T) {
	for _, form := range []Form{Text, JSON} {
		for _, n := range []int{0, 5000} { // short and long
			r := rosterOf(n, 20)
			before := r.Take(form)
			if r.Take(form) != before || r.Take(1-form) == before {
				t.Errorf("%d names: two Takes in one form differ, or two forms share a List", n)
			}
			r.Add("alice")
			with := r.Take(form)
			if r.Take(form) != with || with == before {
				t.Errorf("%d names: an Add did not lead to one new List", n)
			}
			r.Remove("alice")
			if r.Take(form) == with {
				t.Errorf("%d names: a Remove did not lead to a new List", n)
			}
		}
	}
}

func TestChangeCopiesOneChunk(t *testing.T) {
	r := rosterOf(10_000, 7)
	before := r.Take(Text)
	r.Add(numbered(5000, 8))
	r.Remove(numbered(5000, 8))
	after := r.Take(Text)
	copied := 0
	for i, c := range after.chunks {
		if c != before.chunks[i] {
			copied++
		}
	}
	if copied != 1 {
		t.Errorf("two changes to the same chunk copied %d of %d chunks", copied, len(after.chunks))
	}

	r.Add(numbered(5000, 8))
	chunks, name := slices.Clone(r.chunks), numbered(5000, 9)
	allocs := testing.AllocsPerRun(100, func() {
		r.Add(name)
		r.Remove(name)
	})
	if !slices.Equal(chunks, r.chunks) || allocs > 0 {
		t.Errorf("changes to a chunk that no List has copied something: %v allocations", allocs)
	}
}

func TestRosterRetainsNoRemovedName(t *testing.T) {
	r := rosterOf(1000, 7)
	for i := range 900 {
		r.Remove(numbered(i, 7))
	}
	for _, c := range r.chunks {
		for _, name := range c.names[len(c.names):cap(c.names)] {
			if name != "" {
				t.Fatalf("%s is still in the roster's memory", name)
			}
		}
	}
}

// It asks for the names after each name that is present, and after others before, between and
// behind them, while rosters have no chunk, one that is full, and several.
func TestNamesAfterAnyNameAreInOrder(t *testing.T) {
	for _, n := range []int{0, 1, 2, maxChunk - 1, maxChunk, maxChunk + 1, 2 * maxChunk, 1000} {
		var r Roster
		var names []string
		for i := range n {
			names = append(names, numbered(2*i*7919%(2*n), 7))
			r.Add(names[i])
		}
		slices.Sort(names)
		for i := range 2*n + 1 {
			after := numbered(i, 7)
			first, found := slices.BinarySearch(names, after)
			if found {
				first++
			}
			if got := slices.Collect(r.NamesAfter(after)); !slices.Equal(got, names[first:]) {
				t.Fatalf("of %d names, %d follow %s, want %d", n, len(got), after, n-first)
			}
		}
		for _, edge := range []struct {
			after string
			want  []string
		}{{"", names}, {"\x00", names}, {"~", nil}} {
			if got := slices.Collect(r.NamesAfter(edge.after)); !slices.Equal(got, edge.want) {
				t.Errorf("of %d names, %d follow %q, want %d", n, len(got), edge.after, len(edge.want))
			}
		}
		for range r.NamesAfter("") {
			break // A caller may stop early.
		}
	}
}

func TestNamesAfterInARosterThatBecameEmpty(t *testing.T) {
	r := rosterOf(3, 7)
	for i := range 3 {
		r.Remove(numbered(i, 7))
	}
	for _, after := range []string{"", numbered(1, 7), "~"} {
		for name := range r.NamesAfter(after) {
			t.Errorf("%s follows %q", name, after)
		}
	}
}

// BenchmarkLongestCall measures how long one call can occupy the owner while Lists are taken all
// the time and none is ever returned. On a busy machine the longest call is one that was
// interrupted.
func BenchmarkLongestCall(b *testing.B) {
	r := rosterOf(100_000, 256)
	var calls []time.Duration
	call := func(f func()) {
		start := time.Now()
		f()
		calls = append(calls, time.Since(start))
	}
	for i := 0; b.Loop(); i++ {
		name := numbered(i*7919%100_000, 255)
		call(func() { r.Add(name) })
		call(func() { r.Take(Text) })
		call(func() { r.Remove(name) })
		call(func() { r.Take(Text) })
	}
	slices.Sort(calls)
	b.ReportMetric(float64(calls[len(calls)/2].Microseconds()), "median-µs")
	b.ReportMetric(float64(calls[len(calls)-1].Microseconds()), "longest-µs")
	b.ReportMetric(float64(calls[len(calls)*999/1000].Microseconds()), "p99.9-µs")
	b.ReportMetric(float64(len(r.outstanding)), "lists")
}
