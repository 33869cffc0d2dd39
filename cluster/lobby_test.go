package cluster

// What belongs here: what a process remembers between its nodes, and Begin.

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"lobby/etcd"
)

// emptyLog is an etcd without the settings key, so that each node puts one. But it has the
// entry lobby/log/a/1, with this revision.
type emptyLog struct{ revision atomic.Int64 }

func (l *emptyLog) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, `{"header":{"cluster_id":"1","revision":"9"},"succeeded":true,`+
		`"responses":[{},{"response_range":{}},`+
		`{"response_range":{"kvs":[{"key":"bG9iYnkvbG9nL2EvMQ==","create_revision":"%d"}]}}]}`, l.revision.Load())
}

// openLobby returns a lobby whose etcd is handler.
func openLobby(t *testing.T, handler http.Handler) *Lobby {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	config, err := etcd.ParseURLs(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return NewLobby(etcd.New(config), settings, func(string) {})
}

func mustBegin(t *testing.T, l *Lobby) *Node {
	t.Helper()
	n, err := l.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFirstNodePutsTheFirstKey(t *testing.T) {
	l := openLobby(t, new(emptyLog))
	epochs := make(map[string]bool)
	for range 10 {
		n := mustBegin(t, l)
		if want := (lobbyKey{version, n.key.Epoch, settings}); n.key != want {
			t.Errorf("the settings key says %v, want %v", n.key, want)
		}
		if epochs[n.epoch] || len(n.epoch) < 8 || n.epoch != n.key.Epoch {
			t.Errorf("the epoch is %q, and the settings key says %q", n.epoch, n.key.Epoch)
		}
		epochs[n.epoch] = true
	}
}

// Another attempt would append another registration, which the others would then have to remove.
func TestNodeThatMissesAnEntryIsFollowedByOneAfterTheNextSnapshot(t *testing.T) {
	l := openLobby(t, new(emptyLog))
	missing := fmt.Errorf("%w: entry 7", etcd.ErrIncomplete)
	n := mustBegin(t, l)
	if l.End(n, missing) {
		t.Error("it was known")
	}
	for range 2 {
		if _, err := l.Begin(t.Context()); !errors.Is(err, missing) {
			t.Errorf("got %v, want %v", err, missing)
		}
	}
	l.at = n.startedAt - 1 // as if there were another snapshot since
	mustBegin(t, l)
	l.at, l.created = n.startedAt, n.created-1 // or another log
	l.End(mustBegin(t, l), ErrQuiet)
	mustBegin(t, l)
}

func TestNextNodeNoticesALoss(t *testing.T) {
	log := new(emptyLog)
	l := openLobby(t, log)
	next := func(found, seen int64, isKnown bool, wantLost string) {
		t.Helper()
		log.revision.Store(found)
		n := mustBegin(t, l)
		if n.lost != wantLost {
			t.Errorf("if the entry has revision %d, the node has lost %q, want %q", found, n.lost, wantLost)
		}
		n.seen, n.epoch, n.isKnown = etcd.Entry{Revision: seen, Node: "a", Number: 1}, fmt.Sprint("epoch", seen), isKnown
		l.End(n, ErrQuiet)
	}
	next(0, 20, true, "")
	next(20, 30, false, "") // its clients have had no event of this epoch
	next(29, 29, false, "epoch20")
	next(20, 30, true, "")
	next(0, 29, true, "epoch20 epoch30") // the backup may be older than either
	last := int64(29)
	for n := range int64(maxEpochs) {
		next(last, 40+n, true, "")
		last = 40 + n
	}
	var remembered []string
	for n := range maxEpochs {
		remembered = append(remembered, fmt.Sprint("epoch", 40+n))
	}
	next(0, 99, true, strings.Join(remembered, " "))
}

func TestBeginSaysWhetherWaitingHelps(t *testing.T) {
	first := strings.Replace(settingsKey, `"history":10`, `"history":11`, 1)
	l := openLobby(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"header":{"revision":"9"},"responses":[{"response_range":{"kvs":[`+
			`{"key":"bG9iYnkvbG9iYnk=","value":%q,"version":"1","create_revision":"1","mod_revision":"1"}]}},{"response_range":{}}]}`,
			base64.StdEncoding.EncodeToString([]byte(first)))
	}))
	if _, err := l.Begin(t.Context()); !errors.Is(err, ErrSettings) {
		t.Errorf("in a lobby with another -history, Begin says %v", err)
	}
	l = openLobby(t, http.NotFoundHandler())
	if _, err := l.Begin(t.Context()); err == nil || errors.Is(err, ErrSettings) {
		t.Errorf("without an etcd, Begin says %v", err)
	}
}

// A node that has lost the log, and the one that follows, say the same, so that it is printed once.
func TestLostLogIsExplained(t *testing.T) {
	var isFull atomic.Bool
	l := openLobby(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isFull.Load() {
			http.Error(w, `{"message":"etcdserver: mvcc: database space exceeded"}`, http.StatusTooManyRequests)
			return
		}
		new(emptyLog).ServeHTTP(w, r)
	}))
	n := mustBegin(t, l)
	if err := n.explain(ErrQuiet); err != ErrQuiet {
		t.Errorf("before anything fails: %v", err)
	}
	isFull.Store(true)
	_, next := l.Begin(t.Context())
	err := n.explain(ErrQuiet)
	if !errors.Is(err, ErrQuiet) || !strings.Contains(err.Error(), "database space exceeded") || next == nil ||
		next.Error() != err.Error() {
		t.Errorf("the node says %v, and the next one %v", err, next)
	}
}
