package etcd

// Tests of Save and of loading what it has saved.

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

// mustSave saves, and fails the test if that does not work.
func mustSave(t *testing.T, s *Session, at int64, state string, gone ...string) {
	t.Helper()
	if err := s.Save(t.Context(), at, []byte(state), gone); err != nil {
		t.Fatalf("saving at %d: %v", at, err)
	}
}

// mustLoad fails the test unless a new session has this state.
func mustLoad(t *testing.T, w *world, at int64, state string) *Session {
	t.Helper()
	s := w.mustBegin()
	if s.At != at || string(s.State) != state {
		t.Fatalf("loaded a state of %d bytes at %d, want %d bytes at %d", len(s.State), s.At, len(state), at)
	}
	return s
}

// names returns the lobby's keys that begin with prefix, without it.
func (w *world) names(prefix string) (names []string) {
	for _, kv := range w.list("lobby/" + prefix) {
		name, _, _ := strings.Cut(strings.TrimPrefix(kv, "lobby/"+prefix), "=")
		names = append(names, name)
	}
	return names
}

func TestSavedStateIsLoaded(t *testing.T) {
	for _, size := range []int{0, 1, testPiece - 1, testPiece, testPiece + 1} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			s := w.mustBegin()
			at := mustAppend(t, s, "a", 1, "x")
			mustAppend(t, s, "a", 2, "y")
			state := strings.Repeat("0123456789", size/10+1)[:size]
			mustSave(t, s, at, state)
			loaded := mustLoad(t, w, at, state)
			if loaded.State == nil {
				t.Error("an empty state is no state")
			}
			follow(t.Context(), loaded).mustRead(t, "a/2=y")
		})
	}
}

func TestSaveRemovesWhatNobodyNeeds(t *testing.T) {
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
			t.Errorf("after one state the log is %q", got)
		}
		if w.compacted != 0 {
			t.Errorf("compacted up to %d", w.compacted)
		}
		mustSave(t, s, at[2], "two", "b0", "never was")
		if got, want := w.names("log/"), []string{"b1/1", "a/3", "b2/1", "a/4", "b3/1"}; !slices.Equal(got, want) {
			t.Errorf("after two states the log is %q, want %q", got, want)
		}
		if got, want := w.names("nodes/"), []string{"b1", "b2", "a", "b3"}; !slices.Equal(got, want) {
			t.Errorf("the nodes are %q, want %q", got, want)
		}
		if w.compacted != at[1] {
			t.Errorf("compacted up to %d, want %d", w.compacted, at[1])
		}
		mustSave(t, s, at[3], "three")
		if got := w.names("log/"); !slices.Equal(got, []string{"b2/1", "a/4", "b3/1"}) {
			t.Errorf("after three states the log is %q", got)
		}
		if got := w.names("state/"); len(got) != 2 {
			t.Errorf("the pieces are %q, want those of two states", got)
		}
		if got := w.names("logs"); len(got) != 1 {
			t.Error("a key that is not the log's was removed")
		}
		mustLoad(t, w, at[3], "three")
	})
}

func TestManyEntriesAreRemoved(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		var at int64
		for i := range 2*maxKeys + maxRemoved + 1 {
			at = w.put(fmt.Sprint("lobby/log/a/", i+1), "x")
		}
		w.members[0].script = func(c *call, serve func()) {
			if c.path == "/v3/kv/txn" && len(decode[transaction](c.body).Success) > maxRemoved {
				t.Error("a transaction is too long for etcd")
			}
			serve()
		}
		var gone []string
		for i := range 2 * maxRemoved {
			gone = append(gone, fmt.Sprint("gone", i))
		}
		mustSave(t, s, at, "one", gone...)
		mustSave(t, s, at+1, "two", gone...)
		if got := w.names("log/"); len(got) != 0 {
			t.Errorf("%d entries are left", len(got))
		}
	})
}

func TestLaterStateStays(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		early := mustAppend(t, s, "a", 1, "x")
		late := mustAppend(t, s, "a", 2, "y")
		mustSave(t, s, late, "late")
		revision := w.revision
		mustSave(t, s, early, "early")
		mustSave(t, s, late, "the same")
		if w.revision != revision {
			t.Error("something has changed")
		}
		mustLoad(t, w, late, "late")
	})
}

// atPointer calls do when somebody is about to put the pointer, once.
func (w *world) atPointer(do func()) {
	var isDone atomic.Bool
	w.members[0].script = func(c *call, serve func()) {
		if c.path == "/v3/kv/txn" && bytes.Contains(c.body, []byte(`"target":"MOD"`)) && !isDone.Swap(true) {
			do()
		}
		serve()
	}
}

func TestStatesThatAreSavedAtTheSameTime(t *testing.T) {
	for _, first := range []int64{1, 2} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			one, two := w.mustBegin(), w.mustBegin()
			at := mustAppend(t, one, "a", 1, "x")
			mustAppend(t, one, "a", 2, "y")
			mustAppend(t, one, "a", 3, "z")
			w.atPointer(func() { mustSave(t, two, at+first, "two") })
			mustSave(t, one, at+3-first, "one")
			mustLoad(t, w, at+first, "two")
			mustSave(t, one, at+4, "three")
			mustLoad(t, w, at+4, "three")
			if got := w.names("state/"); len(got) != 2 {
				t.Errorf("the pieces are %q, want those of two states", got)
			}
		})
	}
}

// Pieces of a state whose pointer is still to come must outlive the tidying up of another state.
func TestPiecesOfAStateThatIsBeingSavedStay(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		one, two, rest := w.mustBegin(), w.mustBegin(), w.mustBegin()
		at := mustAppend(t, one, "a", 1, "x")
		var isDone atomic.Bool
		w.members[0].script = func(c *call, serve func()) {
			// Once one has put its pointer, and before it looks for pieces to remove, two begins.
			isTidying := c.path == "/v3/kv/range" && decode[rangeRequest](c.body).KeysOnly
			if isTidying && !isDone.Swap(true) {
				w.atPointer(func() { mustSaveRest(t, rest, at) })
				mustSave(t, two, at+1, "two")
			}
			serve()
		}
		mustSave(t, one, at, "one")
		mustLoad(t, w, at+1, "two")
	})
}

// The same, if one learns only from a second try that it has put its pointer.
func TestPiecesStayAfterALostAnswer(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		one, two := w.mustBegin(), w.mustBegin()
		at := mustAppend(t, one, "a", 1, "x")
		isSaved, mayGoOn, isDone := make(chan bool), make(chan bool), make(chan bool)
		var pointers atomic.Int64
		w.members[0].script = func(c *call, serve func()) {
			if bytes.Contains(c.body, []byte(`"target":"MOD"`)) {
				switch pointers.Add(1) {
				case 1: // one's
					serve0(c, serve)
					go func() {
						defer close(isDone)
						mustSave(t, two, at+1, "two")
					}()
					<-isSaved
					c.abort()
				case 2: // two's
					close(isSaved)
					<-mayGoOn
				}
			}
			serve()
		}
		mustSave(t, one, at, "one")
		close(mayGoOn)
		<-isDone
		mustLoad(t, w, at+1, "two")
	})
}

// mustSaveRest does with s what another's Save of a state at at still has to do once its pointer is
// in etcd.
func mustSaveRest(t *testing.T, s *Session, at int64) {
	t.Helper()
	found := s.log.key("state")
	answer, err := insist[rangeAnswer](t.Context(), s.saver, largeTime, "/v3/kv/range", always(rangeRequest{Key: found}))
	if err != nil {
		t.Fatal(err)
	}
	p := parsePointer(answer.first().Value)
	if p.At != at {
		t.Fatalf("the pointer is of %d, want %d", p.At, at)
	}
	if err := s.tidy(t.Context(), p, pointer{}, answer.first().Modified, nil); err != nil {
		t.Fatal(err)
	}
}

func TestSaveWhateverFails(t *testing.T) {
	for name, fail := range failures {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 2, func(t *testing.T, w *world) {
				s := w.mustBegin()
				one := mustAppend(t, s, "a", 1, "x")
				two := mustAppend(t, s, "a", 2, "y")
				mustSave(t, s, one, "one")
				large := strings.Repeat("x", testPiece+1)
				// Every other request to any member fails.
				var n atomic.Int64
				script := func(c *call, serve func()) {
					if n.Add(1)%2 == 1 {
						fail(c, serve)
						return
					}
					serve()
				}
				w.set(func() { w.members[0].script, w.members[1].script = script, script })
				mustSave(t, s, two, large)
				w.set(func() { w.members[0].script, w.members[1].script = nil, nil })
				mustLoad(t, w, two, large)
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

// An entry may be removed only after the pointer says so, or a reader would not notice.
func TestPointerComesBeforeRemoval(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		one := mustAppend(t, s, "a", 1, "x")
		two := mustAppend(t, s, "a", 2, "y")
		mustSave(t, s, one, "one")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w.atPointer(cancel)
		if err := s.Save(ctx, two, []byte("two"), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if got := w.names("log/"); len(got) != 2 {
			t.Errorf("the log is %q, want both entries", got)
		}
	})
}

func TestSaveIntoAnotherLogChangesNothing(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		at := mustAppend(t, s, "a", 1, "x")
		w.remove("lobby/")
		w.mustBegin()
		revision := w.revision
		if err := s.Save(t.Context(), at, []byte("state"), []string{"a"}); !errors.Is(err, ErrReplaced) {
			t.Errorf("got %v", err)
		}
		if w.revision != revision {
			t.Errorf("etcd has now %q", w.list("lobby/"))
		}
	})
}

// Two states are saved while a node loads the one before: its pieces vanish under its hands.
func TestLoadingStartsOver(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		s := w.mustBegin()
		at := mustAppend(t, s, "a", 1, "x")
		mustSave(t, s, at, strings.Repeat("1", testPiece+1))
		var isDone atomic.Bool
		w.members[0].script = func(c *call, serve func()) {
			serve()
			if c.path == "/v3/kv/range" && !isDone.Swap(true) {
				mustSave(t, s, at+1, "two")
				mustSave(t, s, at+2, "three")
			}
		}
		mustLoad(t, w, at+2, "three")
	})
}

func TestDamagedStateIsNotLoaded(t *testing.T) {
	for name, damage := range map[string]func(w *world){
		"piece missing":     func(w *world) { w.remove("lobby/state/") },
		"piece changed":     func(w *world) { w.put("lobby/state/"+w.names("state/")[0], "other") },
		"garbage":           func(w *world) { w.put("lobby/state", "garbage") },
		"too many pieces":   func(w *world) { w.put("lobby/state", `{"at":9,"id":"x","pieces":1000000000}`) },
		"pieces below zero": func(w *world) { w.put("lobby/state", `{"at":9,"id":"x","pieces":-1}`) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				s := w.mustBegin()
				at := mustAppend(t, s, "a", 1, "x")
				mustSave(t, s, at, "state")
				damage(w)
				if _, err := w.newLog().Begin(t.Context(), "", Entry{}); err == nil || !strings.Contains(err.Error(), errDamaged.Error()) {
					t.Errorf("got %v", err)
				}
				// A node that runs repairs it.
				mustSave(t, s, at+1, "state")
				mustLoad(t, w, at+1, "state")
			})
		})
	}
}
