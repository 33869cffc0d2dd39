package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

var (
	// ErrReplaced says that the lobby's settings are gone or were put anew: the log was emptied.
	ErrReplaced = errors.New("the log in etcd was emptied")

	// ErrRestored says that the log lacks something that this session has seen.
	ErrRestored = errors.New("the log in etcd was restored from a backup that lacks something")

	// ErrTrimmed says that entries that come next were removed before this session read them.
	ErrTrimmed = errors.New("the log in etcd has gone on too far to catch up with")

	// ErrVoid says that the node's key is gone, or counts more entries than it can have: the others
	// have given the node up.
	ErrVoid = errors.New("the other nodes have given this node up")
)

// Session is a lobby as Begin found it. One goroutine at a time may call Append, another Save, and
// a third may range over Entries.
type Session struct {
	Settings string // as the first node set them
	State    []byte // the saved state; nil if none has been saved yet
	At       int64  // the revision up to which State takes entries into account
	Created  int64  // that of the lobby's key; what is older belongs to an earlier key
	Restored bool   // whether the log lacks what this process has seen: it was restored

	log      *Log
	appender *client              // Append's
	saver    *client              // Save's
	began    *client              // Begin's, of which the others are copies; not used any more
	pointer  int64                // the revision of NAME/state that is known; see append
	seen     chan int64           // the highest revision seen; whoever takes it puts one back
	appended chan acknowledgement // holds Append's last success, until Entries takes it
}

// acknowledgement is an answer of etcd that an entry is in the log.
type acknowledgement struct {
	revision int64
	endpoint int // the index of the one that has said so
}

// Begin looks the lobby up, or makes it with settings if there is none. It makes one try per
// endpoint; the caller repeats. seen is the last entry that this process has read or appended in an
// earlier life, without its text, or the zero Entry. The error is one line; it is ErrRefused if
// waiting does not help.
func (l *Log) Begin(ctx context.Context, settings string, seen Entry) (*Session, error) {
	c := l.client(rand.IntN(len(l.config.Endpoints)))
	var reasons []string
	var refused error
	for range l.config.Endpoints {
		s, err := l.begin(ctx, c, settings, seen)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = c.explain(err)
		if errors.Is(err, ErrRefused) {
			refused = err
		}
		reasons = append(reasons, err.Error())
		c.move()
	}
	if refused != nil {
		return nil, refused
	}
	return nil, fmt.Errorf("etcd does not answer as it should: %s", strings.Join(reasons, "; "))
}

// begin is Begin at the present endpoint of c. If somebody has removed the lobby's key alone, what
// else there is stays: the operator asks for a new epoch in this way.
func (l *Log) begin(ctx context.Context, c *client, settings string, seen Entry) (*Session, error) {
	lobby, state, last := l.key("lobby"), l.key("state"), l.key("log/"+seen.Node+"/"+strconv.Itoa(seen.Number))
	for tries := 1; ; tries++ {
		answer, err := ask[transactionAnswer](ctx, c, 2*requestTime, "/v3/kv/txn", transaction{
			Compare: []compare{isVersion(lobby, 0)},
			Success: []operation{put(lobby, []byte(settings)), get(state), get(last)},
			Failure: []operation{get(lobby), get(state), get(last)},
		})
		if err != nil {
			return nil, err
		}
		s := &Session{
			Settings: settings,
			Created:  answer.Header.Revision,
			log:      l,
			began:    c,
			appender: c.clone(),
			saver:    c.clone(),
			seen:     make(chan int64, 1),
			appended: make(chan acknowledgement, 1),
		}
		s.seen <- answer.Header.Revision
		if !answer.Succeeded {
			found := answer.read(0).first()
			s.Settings, s.Created = string(found.Value), found.Created
		}
		pointer := answer.read(1).first()
		s.pointer = pointer.Modified
		// An entry that is missing may have been removed because a saved state takes it into account.
		s.Restored = answer.read(2).first().Created != seen.Revision &&
			parsePointer(pointer.Value).Removed < seen.Revision
		if pointer.Version == 0 {
			return s, nil
		}
		s.At, s.State, err = l.load(ctx, c, pointer.Value)
		// Somebody may have saved two states meanwhile, and so removed this one.
		if err == nil || !errors.Is(err, errDamaged) || tries == 3 {
			return s, err
		}
	}
}

// see takes note of a revision, and returns the highest that this session has seen. No answer to a
// later question may have a lower one.
func (s *Session) see(revision int64) int64 {
	highest := max(<-s.seen, revision)
	s.seen <- highest
	return highest
}

// Append appends text as entry number of node, once. It tries, one endpoint after the other, until
// that is certain or ctx is done. It returns the entry's revision. Its errors are ctx's,
// ErrReplaced, ErrRestored and ErrVoid. If it is ctx's, the entry may come into the log, now or
// later; Append may be called again with the same number and text.
func (s *Session) Append(ctx context.Context, node string, number int, text []byte) (revision int64, err error) {
	for {
		if revision, err = s.append(ctx, node, number, text); err != errSaved {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	s.see(revision)
	select {
	case <-s.appended: // an older one, which Entries has not taken
	default:
	}
	s.appended <- acknowledgement{revision, s.appender.at}
	return revision, nil
}

var errSaved = errors.New("another state was saved meanwhile")

// append is Append, but for the first entry it fails with errSaved if another state was saved than
// the last that Begin or append have seen. Such an entry is put under that condition because it has
// no number before it in etcd that could say whether it comes too late: the node's key is removed
// once the others have given the node up and have saved a state.
func (s *Session) append(ctx context.Context, node string, number int, text []byte) (revision int64, err error) {
	lobby, state, key := s.log.key("lobby"), s.log.key("state"), s.log.key("nodes/"+node)
	count := strconv.Itoa(number)
	conditions := []compare{isCreated(lobby, s.Created), isVersion(key, int64(number-1))}
	if number == 1 {
		conditions = append(conditions, isModified(state, s.pointer))
	}
	seen := s.see(0)
	answer, err := insist[transactionAnswer](ctx, s.appender, requestTime, "/v3/kv/txn", always(transaction{
		Compare: conditions,
		Success: []operation{put(s.log.key("log/"+node+"/"+count), text), put(key, []byte(count))},
		Failure: []operation{get(lobby), get(key), get(state)},
	}))
	if err != nil {
		return 0, err
	}
	revision = answer.Header.Revision
	if answer.Succeeded {
		if revision <= seen {
			return 0, ErrRestored
		}
		return revision, nil
	}
	found, pointer := answer.read(1).first(), answer.read(2).first().Modified
	switch {
	case answer.read(0).first().Created != s.Created:
		return 0, ErrReplaced
	case revision < seen:
		return 0, ErrRestored
	case found.Version == int64(number): // an earlier try has come through
		return found.Modified, nil
	case 0 < found.Version && found.Version < int64(number):
		return 0, ErrRestored
	case number == 1 && pointer != s.pointer:
		s.pointer = pointer
		return 0, errSaved
	}
	return 0, ErrVoid
}
