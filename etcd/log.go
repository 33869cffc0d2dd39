package etcd

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"
)

var (
	// ErrReplaced means that the settings key was removed or recreated. Perhaps the whole log was
	// emptied.
	ErrReplaced = errors.New("the log in etcd was emptied")

	// ErrRestored means that the log lacks something that this session has seen.
	ErrRestored = errors.New("the log in etcd was restored from a backup that lacks some entries")

	// ErrTrimmed means that the next entries were removed before this session had read them.
	ErrTrimmed = errors.New("the log in etcd has moved on too far to catch up")

	// ErrIncomplete means that someone has changed or removed an entry. Another snapshot heals that.
	ErrIncomplete = errors.New("the log in etcd lacks an entry that was changed or removed by hand")

	// ErrVoid means that the node's count was removed, as after the others declared the node dead.
	ErrVoid = errors.New("the log accepts no more entries of this node, because its count was removed")

	// ErrForgedCount means that someone else has put the node's count.
	ErrForgedCount = errors.New("this node's count of entries in etcd was changed by hand")
)

var errUnreachable = errors.New("the log cannot be reached")

// Session gives access to a lobby's log as Begin found it. One goroutine at a time may call Append,
// another SaveSnapshot, and a third may range over Entries. In this package's comments, NAME is the
// lobby's name, with which all of its keys begin.
type Session struct {
	Settings string // as the first node set them
	Snapshot []byte // the newest snapshot; nil if there is none yet
	At       int64  // the revision up to which Snapshot includes all entries
	Created  int64  // when the settings key was created; older entries belong to an earlier one
	Restored bool   // whether the log lacks the entry that this process had seen last

	log      *Log
	appender *client              // for Append
	saver    *client              // for SaveSnapshot
	began    *client              // the client that Begin used; Entries starts with a clone of it
	state    int64                // last known revision of the key NAME/state; see append
	halved   halvings             // by SaveSnapshot
	seen     chan int64           // holds the highest revision seen; see observe
	appended chan acknowledgement // holds Append's latest success until Entries receives it
}

// acknowledgement is etcd's confirmation that an entry is in the log.
type acknowledgement struct {
	revision int64
	endpoint int           // the index of the endpoint that sent it
	took     time.Duration // by Append
}

// Begin opens the lobby's log, or creates it with these settings if it does not exist. If only the
// settings key was removed, it keeps all else, because that is how an operator asks for a new
// epoch. It fails if all endpoints do; callers retry. seen is the last entry, without its text,
// that an earlier node of this process has read or appended, or the zero Entry. The error is one
// line. It matches ErrRefused if waiting does not help.
func (l *Log) Begin(ctx context.Context, settings string, seen Entry) (*Session, error) {
	lobby, state := l.key("lobby"), l.key("state")
	read := []operation{get(state), get(l.key("copy")),
		stat(l.entry(seen.Node, seen.Number)), stat(l.key("nodes/" + seen.Node))}
	for tries := 1; ; tries++ {
		c, response, err := l.askAll(ctx, transaction{
			Compare: []compare{versionIs(lobby, 0)},
			Success: append(read, put(lobby, []byte(settings))),
			Failure: append(read, get(lobby)),
		})
		if err != nil {
			return nil, err
		}
		p := l.pointer(response)
		s := &Session{
			Settings: settings,
			At:       p.At,
			Created:  response.Header.Revision,
			log:      l,
			began:    c,
			appender: c.clone(),
			saver:    c.clone(),
			state:    response.find(state).Modified,
			seen:     make(chan int64, 1),
			appended: make(chan acknowledgement, 1),
		}
		s.seen <- response.Header.Revision
		if p.Removed < seen.Revision { // Otherwise it was removed because a snapshot includes it.
			asking, cancel := context.WithTimeout(ctx, requestTimeout)
			s.Restored, err = c.lacks(asking, response, seen)
			cancel()
			if err != nil {
				return nil, l.Explain(errUnreachable)
			}
		}
		if !response.Succeeded {
			s.Settings, s.Created = string(response.find(lobby).Value), response.find(lobby).Created
		}
		s.Snapshot, err = l.readSnapshot(ctx, c, p)
		// The endpoint may be failing, or two other snapshots were saved, which removes this one.
		if err != nil && p != (pointer{}) && tries < 3 {
			c.note("", err)
			continue
		}
		if errors.Is(err, errDamaged) && p.Removed == 0 { // the log is still complete
			s.Snapshot, s.At, err = nil, 0, nil
		}
		return s, c.note("", err)
	}
}

// askAll sends a transaction to all endpoints, once at least half of them are known to belong to
// one cluster or all have responded or failed. It returns the first response, and a client at the
// same cluster. The client may be at another endpoint: the leader tends to respond first, and not
// all nodes should use it.
func (l *Log) askAll(ctx context.Context, t transaction) (*client, transactionResponse, error) {
	type answer struct {
		client   *client
		response transactionResponse
		err      error
	}
	trying, cancel := context.WithCancel(ctx)
	defer cancel()
	count := len(l.config.Endpoints)
	statuses, answers := make(chan answer, count), make(chan answer, count)
	areKnown := make(chan bool) // closed when the transaction may be sent
	for _, at := range rand.Perm(count) {
		go func() {
			a := answer{client: l.client(at)}
			err := a.client.ask(ctx, requestTimeout, "/v3/maintenance/status", struct{}{}, &a.response)
			a.client.note(a.response.Header.Cluster, err)
			statuses <- a
			<-areKnown
			// The endpoint must not belong to another cluster than most.
			if a.err = a.client.note("", nil); a.err == nil {
				err = a.client.ask(trying, requestTimeout, "/v3/kv/txn", t, &a.response)
				a.err = a.client.note("", err)
			}
			answers <- a
		}()
	}
	c, cluster, votes := l.client(0), "", make(map[string]int)
	for range count {
		a := <-statuses
		c.at, cluster = a.client.at, a.response.Header.Cluster
		c.tokens[c.at] = a.client.tokens[c.at]
		if votes[cluster]++; cluster != "" && 2*votes[cluster] >= count {
			break
		}
	}
	close(areKnown)
	var refused error
	for range count {
		a := <-answers
		if a.err == nil {
			if a.response.Header.Cluster != cluster {
				c.at = a.client.at
			}
			return c, a.response, nil
		}
		if errors.Is(a.err, ErrRefused) {
			refused = a.err
		}
	}
	return nil, transactionResponse{}, cmp.Or(refused, l.Explain(errUnreachable))
}

// observe records that a response had this revision, and returns the highest revision seen so far.
// The response to any later request must not have a lower one.
func (s *Session) observe(revision int64) int64 {
	highest := max(<-s.seen, revision)
	s.seen <- highest
	return highest
}

// Append appends text once, as the node's entry with this number, and returns its revision. It asks
// one endpoint after another until the result is certain or ctx is done. It fails with ctx's error,
// ErrReplaced, ErrRestored, ErrVoid, ErrForgedCount or ErrTooLarge. After ctx's error and, rarely,
// ErrTooLarge, the entry may still get into the log, now or later, and Append may be called again
// with the same number and text.
func (s *Session) Append(ctx context.Context, node string, number int, text []byte) (int64, error) {
	start := time.Now()
	revision, err := s.append(ctx, node, number, text)
	for ; err == errNewSnapshot || err == errTaken; revision, err = s.append(ctx, node, number, text) {
		if err == errTaken {
			pause(ctx)
		}
	}
	if err == ErrForgedCount {
		// Otherwise nodes that start would look for entries that never existed.
		key := s.log.key("nodes/" + node)
		_, err = s.appender.hedge(ctx, slowAfter, same(transaction{
			Compare: []compare{createdIs(s.log.key("lobby"), s.Created)},
			Success: []operation{remove(key)},
		}))
		return 0, cmp.Or(err, ErrForgedCount)
	}
	if err != nil {
		return 0, err
	}
	s.observe(revision)
	select {
	case <-s.appended: // an older one that Entries has not received
	default:
	}
	s.appended <- acknowledgement{revision, s.appender.at, time.Since(start)}
	return revision, nil
}

var (
	errNewSnapshot = errors.New("another snapshot was saved meanwhile")
	errTaken       = errors.New("someone else has put the entry's key")
)

// append is one attempt of Append. A node's first entry is put only if NAME/state has not changed
// since Begin or append last read it; otherwise append fails with errNewSnapshot. Without
// this condition, a late repetition could register a removed node again: once a snapshot is saved,
// the count of such a node is removed, as if it had never put an entry.
//
// An entry's key must not exist before. If someone else has put that key, append fails with
// errTaken until the node has read the foreign entry, skipped it, and discarded it.
func (s *Session) append(ctx context.Context, node string, number int, text []byte) (int64, error) {
	lobby, state, key := s.log.key("lobby"), s.log.key("state"), s.log.key("nodes/"+node)
	entry, digits := s.log.entry(node, number), strconv.Itoa(number)
	conditions := []compare{
		createdIs(lobby, s.Created), versionIs(key, int64(number-1)), versionIs(entry, 0),
	}
	if number == 1 {
		conditions = append(conditions, modifiedIs(state, s.state))
	}
	seen := s.observe(0)
	response, err := s.appender.hedge(ctx, slowAfter, same(transaction{
		Compare: conditions,
		Success: []operation{put(entry, text), put(key, []byte(digits))},
		Failure: []operation{get(lobby), get(key), get(state), get(s.log.key("copy")), stat(entry)},
	}))
	if err != nil {
		return 0, err
	}
	revision := response.Header.Revision
	if response.Succeeded {
		if revision <= seen {
			return 0, ErrRestored
		}
		return revision, nil
	}
	count, newState, found := response.find(key), response.find(state).Modified, response.find(entry)
	switch {
	case response.find(lobby).Created != s.Created:
		return 0, ErrReplaced
	case revision < seen:
		return 0, ErrRestored
	case count.isForged() || count.Version > int64(number):
		return 0, ErrForgedCount
	case count.Version == int64(number):
		// If an earlier attempt succeeded, it put the entry and the count at the same revision. The
		// entry may have been removed since.
		wasPut := found.Created == count.Modified || s.log.pointer(response).Removed >= count.Modified
		if !wasPut {
			wasPut, err = s.appender.wasPut(ctx, entry, count.Modified)
		}
		if err == nil && !wasPut {
			err = ErrForgedCount
		}
		return count.Modified, err
	case 0 < count.Version && count.Version < int64(number-1):
		return 0, ErrRestored
	case number == 1 && newState != s.state:
		s.state = newState
		return 0, errNewSnapshot
	case count.Version == int64(number-1):
		return 0, errTaken
	}
	return 0, ErrVoid
}

// isForged reports whether kv, the count of a node, was put by someone else. Its node puts every
// count once, from 1.
func (kv keyValue) isForged() bool {
	return kv.Version > 0 && string(kv.Value) != strconv.FormatInt(kv.Version, 10)
}

// Discard removes an entry that someone else has put in the name of a node of this process, unless
// it was changed since.
func (s *Session) Discard(ctx context.Context, e Entry) {
	key := s.log.entry(e.Node, e.Number)
	_, _ = s.began.clone().hedge(ctx, slowAfter, same(transaction{
		Compare: []compare{createdIs(s.log.key("lobby"), s.Created), modifiedIs(key, e.Revision)},
		Success: []operation{remove(key)},
	}))
}
