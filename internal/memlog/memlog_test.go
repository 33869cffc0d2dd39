package memlog

// What belongs here: that the log in memory does what package etcd promises. Otherwise the tests of
// nodes would prove nothing.

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lobby/etcd"
)

// read returns the entries that a view has now, each as "NODE NUMBER @REVISION TEXT", and the error
// with which Entries ends within a second.
func read(t *testing.T, v *View) (got []string, err error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var e etcd.Entry
	for e, err = range v.Entries(ctx, nil) {
		if err == nil {
			got = append(got, fmt.Sprintf("%s %d @%d %s", e.Node, e.Number, e.Revision, e.Text))
		}
	}
	return got, err
}

func mustAppend(t *testing.T, v *View, node string, number int) {
	t.Helper()
	if _, err := v.Append(t.Context(), node, number, []byte("text")); err != nil {
		t.Fatal(err)
	}
}

func TestEachEntryIsInTheLogOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New("settings")
		v := l.Open()
		mustAppend(t, v, "a", 1)
		mustAppend(t, v, "b", 1)
		mustAppend(t, v, "a", 2)
		for _, number := range []int{0, 1, 2, 4} {
			if _, err := v.Append(t.Context(), "a", number, nil); err != etcd.ErrVoid {
				t.Errorf("entry %d after entry 2: %v", number, err)
			}
		}
		want := []string{"a 1 @1 text", "b 1 @2 text", "a 2 @3 text"}
		for _, view := range []*View{v, l.Open()} {
			if got, err := read(t, view); !slices.Equal(got, want) || err != context.DeadlineExceeded {
				t.Errorf("the entries are %q, %v, want %q", got, err, want)
			}
		}
		if v := l.Open(); v.Settings != "settings" || l.Len() != 3 || v.At != 0 || v.Snapshot != nil {
			t.Errorf("a node starts with %v", v.Session)
		}
	})
}

func TestSnapshotRemovesTheEntriesOfThePreviousOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New("")
		old, v := l.Open(), l.Open()
		for n := range 6 {
			mustAppend(t, v, "a", n+1)
		}
		save := func(at int64, data string, gone ...string) {
			t.Helper()
			if err := v.SaveSnapshot(t.Context(), at, []byte(data), gone); err != nil {
				t.Fatal(err)
			}
		}
		save(2, "first")
		if got, _ := read(t, old); len(got) != 6 {
			t.Errorf("after one snapshot, a node that started before it reads %q", got)
		}
		save(4, "second")
		save(3, "too late")
		if got, err := read(t, old); len(got) > 0 || err != etcd.ErrTrimmed {
			t.Errorf("after two snapshots, a node that started before them reads %q, %v", got, err)
		}
		middle := l.Open()
		middle.At = 2
		if got, _ := read(t, middle); len(got) != 4 {
			t.Errorf("a node that started from the first one reads %q", got)
		}
		fresh := l.Open()
		if got, _ := read(t, fresh); len(got) != 2 || string(fresh.Snapshot) != "second" || fresh.At != 4 || l.Len() != 6 {
			t.Errorf("a node that starts now has %q up to %d and reads %q", fresh.Snapshot, fresh.At, got)
		}
		mustAppend(t, v, "a", 7)
		save(7, "third", "a")
		mustAppend(t, v, "a", 1) // as if it were new
	})
}

func TestViewIsCutAndDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay, cut = 30 * time.Millisecond, time.Second
		start := time.Now()
		var isCut atomic.Bool
		l := New("")
		v := l.Open()
		v.Delay = func() time.Duration { return delay }
		v.Cut = isCut.Load
		mustAppend(t, v, "a", 1) // there and back
		if took := time.Since(start); took != 2*delay {
			t.Errorf("an append took %v", took)
		}
		isCut.Store(true)
		time.AfterFunc(cut, func() { isCut.Store(false) })
		for range v.Entries(t.Context(), nil) {
			break
		}
		if took := time.Since(start); took < 2*delay+cut || took > 2*delay+cut+time.Second/5 {
			t.Errorf("an entry was read after %v", took)
		}
		isCut.Store(true)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if _, err := v.Append(ctx, "a", 2, nil); err != context.DeadlineExceeded || l.Len() != 1 {
			t.Errorf("an append of a node that is cut off: %v, and there are %d entries", err, l.Len())
		}
	})
}
