package etcd

// What belongs here: tests of SaveSnapshot, and of Begin with the result.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// mustSave saves a snapshot.
func mustSave(t *testing.T, s *Session, at int64, snapshot string, gone ...string) {
	t.Helper()
	if err := s.SaveSnapshot(t.Context(), at, []byte(snapshot), gone); err != nil {
		t.Fatalf("saving at %d: %v", at, err)
	}
}

// mustHave fails the test unless a new session has this snapshot.
func mustHave(t *testing.T, w *world, at int64, snapshot string) *Session {
	t.Helper()
	s := w.mustBegin()
	if s.At != at || string(s.Snapshot) != snapshot {
		t.Fatalf("found a snapshot of %d bytes at %d, want %d bytes at %d",
			len(s.Snapshot), s.At, len(snapshot), at)
	}
	return s
}

// names returns the rest of the lobby's keys that begin with prefix.
func (w *world) names(prefix string) (names []string) {
	for _, kv := range w.list("lobby/" + prefix) {
		name, _, _ := strings.Cut(strings.TrimPrefix(kv, "lobby/"+prefix), "=")
		names = append(names, name)
	}
	return names
}

func last(names []string) string { return names[len(names)-1] }

func TestSnapshotIsFoundByTheNextNode(t *testing.T) {
	for _, size := range []int{0, 1, testPiece - 1, testPiece, testPiece + 1} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			s := w.mustBegin()
			at := mustAppend(t, s, "a", 1, "x")
			mustAppend(t, s, "a", 2, "y")
			snapshot := strings.Repeat("0123456789", size/10+1)[:size]
			mustSave(t, s, at, snapshot)
			next := mustHave(t, w, at, snapshot)
			if next.Snapshot == nil {
				t.Error("an empty snapshot counts as none")
			}
			follow(t.Context(), next).mustRead(t, "a/2=y")
		})
	}
}

func TestSnapshotRemovesWhatIsNoLongerNeeded(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		var at []int64
		for i := range 4 {
			at = append(at, mustAppend(t, s, "a", i+1, "x"))
			mustAppend(t, s, fmt.Sprint("b", i), 1, "y")
		}
		w.put("lobby/logs", "stays")

		mustSave(t, s, at[1], "one")
		if got := w.names("log/"); len(got) != 8 {
			t.Errorf("after one snapshot the log is %q", got)
		}
		mustSave(t, s, at[2], "two", "b0", "never was")
		if got, want := w.names("log/"), []string{"b1/1", "a/3", "b2/1", "a/4", "b3/1"}; !slices.Equal(got, want) {
			t.Errorf("after two snapshots the log is %q, want %q", got, want)
		}
		if got, want := w.names("nodes/"), []string{"b1", "b2", "a", "b3"}; !slices.Equal(got, want) {
			t.Errorf("the nodes are %q, want %q", got, want)
		}
		if w.compacted != at[2] {
			t.Errorf("compacted up to %d, want %d", w.compacted, at[2])
		}
		mustSave(t, s, at[3], "three")
		if got := w.names("log/"); !slices.Equal(got, []string{"b2/1", "a/4", "b3/1"}) {
			t.Errorf("after three snapshots the log is %q", got)
		}
		if got := w.names("state/"); len(got) != 2 {
			t.Errorf("the pieces are %q, want those of two snapshots", got)
		}
		if got := w.names("logs"); len(got) != 1 {
			t.Error("a key that does not belong to the log was removed")
		}
		mustHave(t, w, at[3], "three")
	})
}

func TestManyEntriesAreRemoved(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		var at int64
		for i := range 2*maxKeys + maxRemoved + 1 {
			at = w.put(fmt.Sprint("lobby/log/a/", i+1), "x")
		}
		w.script(func(c *call, serve func()) {
			if c.path == "/v3/kv/txn" && len(decode[transaction](c.body).Success) > maxRemoved {
				t.Error("a transaction has more operations than etcd accepts")
			}
			serve()
		}, 0)
		var gone []string
		for i := range 2 * maxRemoved {
			gone = append(gone, fmt.Sprint("gone", i))
		}
		mustSave(t, s, at, "one", gone...)
		mustSave(t, s, at+1, "two", gone...)
		if got := w.names("log/"); len(got) != 0 {
			t.Errorf("%d entries remain", len(got))
		}
	})
}

func TestEarlierSnapshotDoesNotReplaceALaterOne(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		early := mustAppend(t, s, "a", 1, "x")
		late := mustAppend(t, s, "a", 2, "y")
		mustSave(t, s, late, "late")
		revision := w.revision
		mustSave(t, s, early, "early")
		mustSave(t, s, late, "the same")
		if w.revision != revision {
			t.Error("etcd has changed")
		}
		mustHave(t, w, late, "late")
	})
}

// atPointer calls do once, just before a pointer is put.
func (w *world) atPointer(do func()) {
	var isDone atomic.Bool
	w.script(func(c *call, serve func()) {
		if c.path == "/v3/kv/txn" && bytes.Contains(c.body, []byte(`"target":"MOD"`)) && !isDone.Swap(true) {
			do()
		}
		serve()
	}, 0)
}

func TestOneOfTwoSimultaneousSnapshotsIsSaved(t *testing.T) {
	for _, first := range []int64{1, 2} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			one, two := w.mustBegin(), w.mustBegin()
			at := mustAppend(t, one, "a", 1, "x")
			mustAppend(t, one, "a", 2, "y")
			mustAppend(t, one, "a", 3, "z")
			w.atPointer(func() { mustSave(t, two, at+first, "two") })
			mustSave(t, one, at+3-first, "one")
			mustHave(t, w, at+first, "two")
			mustSave(t, one, at+4, "three")
			mustHave(t, w, at+4, "three")
			if got := w.names("state/"); len(got) != 2 {
				t.Errorf("the pieces are %q, want those of two snapshots", got)
			}
		})
	}
}

// Session two has put a piece when session one saves a snapshot, which may be the first of all. The
// piece stays until nothing can point to it any more.
func TestPieceOfASnapshotThatIsBeingSavedStays(t *testing.T) {
	for _, isFirst := range []bool{false, true} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			one, two := w.mustBegin(), w.mustBegin()
			at := mustAppend(t, one, "a", 1, "x")
			if !isFirst {
				mustSave(t, one, at, "zero")
			}
			isPut, proceed, isDone := make(chan bool), make(chan bool), make(chan bool)
			w.script(func(c *call, serve func()) {
				serve()
				if bytes.Contains(c.body, []byte(`"request_put"`)) {
					close(isPut)
					<-proceed
				}
			}, 0)
			go func() {
				defer close(isDone)
				mustSave(t, two, at+2, "two")
			}()
			<-isPut
			w.script(nil, 0)
			before := len(w.names("state/"))
			mustSave(t, one, at+1, "one")
			if got := w.names("state/"); len(got) != before+1 {
				t.Errorf("the pieces are %q, want one more than %d", got, before)
			}
			close(proceed)
			<-isDone
			mustHave(t, w, at+1, "one") // Session two has read an outdated pointer.
			mustSave(t, one, at+3, "three")
			mustHave(t, w, at+3, "three")
			if got := w.names("state/"); len(got) != 2 {
				t.Errorf("the pieces are %q, want those of two snapshots", got)
			}
		})
	}
}

func TestSnapshotIsSavedWhateverFails(t *testing.T) {
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 2, func(t *testing.T, w *world) {
				s := w.mustBegin()
				one := mustAppend(t, s, "a", 1, "x")
				two := mustAppend(t, s, "a", 2, "y")
				mustSave(t, s, one, "one")
				large := strings.Repeat("x", testPiece+1)
				// Every second request fails.
				var n atomic.Int64
				script := func(c *call, serve func()) {
					if n.Add(1)%2 == 1 {
						fail(c, serve)
						return
					}
					serve()
				}
				w.script(script)
				mustSave(t, s, two, large)
				w.script(nil)
				mustHave(t, w, two, large)
				if got := w.names("log/"); !slices.Equal(got, []string{"a/2"}) {
					t.Errorf("the log is %q", got)
				}
				if got := w.names("state/"); len(got) != 3 {
					t.Errorf("the pieces are %q", got)
				}
			})
		})
	}
}

// etcd, or a proxy in front of it, accepts only requests that are smaller than usual.
func TestSnapshotIsSavedInSmallerParts(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		rejections := w.limit(testPiece>>maxHalved, maxRemoved>>maxHalved)
		var at int64
		for i := range 2*maxRemoved + 1 {
			at = mustAppend(t, s, "a", i+1, "x")
		}
		large := strings.Repeat("0123456789", testPiece/4)
		mustSave(t, s, at, large)
		mustHave(t, w, at, large)
		mustSave(t, s, at+1, "two")
		if got := w.names("log/"); len(got) > 0 {
			t.Errorf("%d entries remain", len(got))
		}
		if n := rejections.Load(); n != 2*maxHalved {
			t.Errorf("etcd has rejected %d requests", n)
		}
		mustSave(t, s, at+2, large) // the session remembers what etcd accepts
		mustHave(t, w, at+2, large)
		if n := rejections.Load(); n != 2*maxHalved {
			t.Errorf("etcd has rejected %d requests after another snapshot", n)
		}
	})
}

func TestSnapshotWhosePartsAreRejectedIsNotSaved(t *testing.T) {
	const most, fewest = testPiece >> maxHalved, maxRemoved >> maxHalved
	for _, test := range []struct{ bytes, operations, entries, pieces int }{
		{most - 1, fewest, fewest, 0},
		{testPiece, fewest - 1, fewest, 2}, // only the entries cannot be removed
	} {
		inWorld(t, 2, func(t *testing.T, w *world) {
			s := w.mustBegin()
			var at int64
			for i := range fewest {
				at = mustAppend(t, s, "a", i+1, "x")
			}
			mustSave(t, s, at, "")
			w.limit(test.bytes, test.operations)
			err := s.SaveSnapshot(t.Context(), at+1, make([]byte, 2*testPiece), nil)
			const want = "--max-request-bytes"
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want advice with %q", err, want)
			}
			if got := w.names("log/"); len(got) != test.entries {
				t.Errorf("%d entries remain, want %d", len(got), test.entries)
			}
			if got := w.names("state/"); len(got) != test.pieces {
				t.Errorf("the pieces are %q, want %d", got, test.pieces)
			}
		})
	}
}

// A snapshot has a limited number of pieces, so smaller ones hold less in total.
func TestSnapshotThatIsTooLargeChangesNothing(t *testing.T) {
	for _, most := range []int{testPiece, testPiece / 2} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			s := w.mustBegin()
			at := mustAppend(t, s, "a", 1, "x")
			mustSave(t, s, at, "one")
			w.limit(most, maxRemoved)
			revision := w.revision
			err := s.SaveSnapshot(t.Context(), at+1, make([]byte, maxPieces*most+1), nil)
			want := fmt.Sprintf("at most %d can be saved", maxPieces*most)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if w.revision != revision {
				t.Error("etcd has changed")
			}
			mustHave(t, w, at, "one")
		})
	}
}

// One endpoint executes a put only after another has rejected it.
func TestLatePutOfALargePieceDoesNoHarm(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		s := w.mustBegin()
		at := mustAppend(t, s, "a", 1, "x")
		large := strings.Repeat("0123456789", testPiece/10)
		w.limit(testPiece/2, maxRemoved)
		first := make(chan transaction, 1)
		w.script(func(c *call, serve func()) {
			if asked := decode[transaction](c.body); asked.Compare != nil {
				select {
				case first <- asked:
					c.hang()
					return
				default:
				}
			}
			serve()
		}, 0)
		mustSave(t, s, at, large)
		w.set(func() {
			if late := <-first; !w.transact(late).Succeeded {
				t.Error("the late put was not executed")
			}
			first <- transaction{} // so that nothing else is late
		})
		mustHave(t, w, at, large)
		mustSave(t, s, at+1, "two")
		mustSave(t, s, at+2, "three")
		if got := w.names("state/"); len(got) != 2 {
			t.Errorf("the pieces are %q, want those of two snapshots", got)
		}
	})
}

// If an entry were removed before the pointer says so, a reader would not notice.
func TestPointerIsPutBeforeEntriesAreRemoved(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		one := mustAppend(t, s, "a", 1, "x")
		two := mustAppend(t, s, "a", 2, "y")
		mustSave(t, s, one, "one")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.atPointer(cancel)
		if err := s.SaveSnapshot(ctx, two, []byte("two"), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if got := w.names("log/"); len(got) != 2 {
			t.Errorf("the log is %q, want both entries", got)
		}
	})
}

func TestSnapshotOfAnotherLogChangesNothing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		at := mustAppend(t, s, "a", 1, "x")
		w.remove("lobby/")
		w.mustBegin()
		revision := w.revision
		if err := s.SaveSnapshot(t.Context(), at, []byte("state"), []string{"a"}); !errors.Is(err, ErrReplaced) {
			t.Errorf("got %v", err)
		}
		if w.revision != revision {
			t.Errorf("etcd now has %q", w.list("lobby/"))
		}
	})
}

// Two snapshots are saved while a node reads the previous one, so its pieces vanish.
func TestReadingASnapshotStartsOverIfItWasRemoved(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		at := mustAppend(t, s, "a", 1, "x")
		mustSave(t, s, at, strings.Repeat("1", testPiece+1))
		var isDone atomic.Bool
		w.script(func(c *call, serve func()) {
			serve()
			isPiece := !bytes.Contains(c.body, []byte("compare")) // Begin's other request has conditions
			if isPiece && !isDone.Swap(true) {
				mustSave(t, s, at+1, "two")
				mustSave(t, s, at+2, "three")
			}
		}, 0)
		mustHave(t, w, at+2, "three")
	})
}

func TestPointerThatIsNotValidDoesNoHarm(t *testing.T) {
	for _, text := range []string{
		"", "garbage", "9", `{"at":9}`, `{"at":9,"id":"x","pieces":1}`, `{"at":9,"id":"x","pieces":1000000000}`, `{"at":9,"id":"x","pieces":-1}`,
	} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			s := w.mustBegin()
			w.put("lobby/state", text)
			w.put("lobby/copy", text)
			at := mustAppend(t, s, "a", 1, "x")
			follow(t.Context(), mustHave(t, w, 0, "")).mustRead(t, "a/1=x")
			for n := range 3 { // the last two remove entries
				next := mustAppend(t, s, "a", n+2, "y")
				mustSave(t, s, at, "snapshot")
				w.put("lobby/state", text)
				follow(t.Context(), mustHave(t, w, at, "snapshot")).mustRead(t, fmt.Sprintf("a/%d=y", n+2))
				at = next
			}
			if got := w.names("log/"); !slices.Equal(got, []string{"a/3", "a/4"}) {
				t.Errorf("the log is %q", got)
			}
		})
	}
}

func TestDamagedSnapshotIsRejectedAndReplaced(t *testing.T) {
	for name, damage := range map[string]func(w *world){
		"pieces and pointer missing": func(w *world) { w.remove("lobby/state") },
		"piece missing":              func(w *world) { w.remove("lobby/state/") },
		"piece changed":              func(w *world) { w.put("lobby/state/"+last(w.names("state/")), "other") },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				s := w.mustBegin()
				at := mustAppend(t, s, "a", 1, "x")
				mustSave(t, s, at, "snapshot")
				// The log still has all entries.
				damage(w)
				follow(t.Context(), mustHave(t, w, 0, "")).mustRead(t, "a/1=x")
				at = mustAppend(t, s, "a", 2, "y")
				mustSave(t, s, at-1, "snapshot")
				mustSave(t, s, at, "snapshot") // it removes the first entry
				damage(w)
				_, err := w.newLog().Begin(t.Context(), "", Entry{})
				if err == nil || !strings.Contains(err.Error(), errDamaged.Error()) || errors.Is(err, ErrRefused) {
					t.Errorf("got %v", err)
				}
				// A running node replaces it.
				mustSave(t, s, at+1, "snapshot")
				mustHave(t, w, at+1, "snapshot")
			})
		})
	}
}
