package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
)

var (
	// ErrReplaced means that the lobby's settings were removed or recreated. Perhaps the whole log
	// was emptied.
	ErrReplaced = errors.New("the log in etcd was emptied")

	// ErrRestored means that the log lacks something that this session has seen.
	ErrRestored = errors.New("the log in etcd was restored from a backup that lacks some entries")

	// ErrTrimmed means that the next entries were removed before this session had read them.
	ErrTrimmed = errors.New("the log in etcd has moved on too far to catch up")

	// ErrVoid means that the node's key was removed, because the others declared the node dead, or
	// that it counts more entries than the node has sent.
	ErrVoid = errors.New("the log accepts no more entries of this node")
)

// Session gives access to a lobby's log as Begin found it. One goroutine at a time may call Append,
// another SaveSnapshot, and a third may range over Entries. In this package's comments, NAME is the
// lobby's name, with which all of its keys begin.
type Session struct {
	Settings string // as the first node set them
	Snapshot []byte // the newest snapshot; nil if there is none yet
	At       int64  // the revision up to which Snapshot includes all entries
	Created  int64  // when the lobby's key was created; older entries belong to an earlier key
	Restored bool   // whether the log lacks the entry that this process had seen last

	log      *Log
	appender *client              // for Append
	saver    *client              // for SaveSnapshot
	began    *client              // the client that Begin used; Entries starts with a clone of it
	state    int64                // last known revision of the key NAME/state; see append
	halved   halvings             // see there
	seen     chan int64           // holds the highest revision seen; see observe
	appended chan acknowledgement // holds Append's latest success until Entries receives it
}

// acknowledgement is etcd's confirmation that an entry is in the log.
type acknowledgement struct {
	revision int64
	endpoint int // the index of the endpoint that sent it
}

// Begin opens the lobby's log, or creates it with these settings if there is none. It tries each
// endpoint once; callers retry. seen is the last entry, without its text, that an earlier node of
// this process has read or appended, or the zero Entry. The error is one line. It matches
// ErrRefused if waiting does not help.
func (l *Log) Begin(ctx context.Context, settings string, seen Entry) (*Session, error) {
	c := l.client(0)
	for c.at = range l.config.Endpoints { // to see which clusters they belong to
		var r transactionResponse
		err := c.ask(ctx, slowAfter, "/v3/maintenance/status", struct{}{}, &r)
		c.note(r.Header.Cluster, err)
	}
	var refused error
	c.at = rand.IntN(len(l.config.Endpoints))
	for range l.config.Endpoints {
		s, err := l.begin(ctx, c, settings, seen)
		if err = c.note("", err); err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, ErrRefused) {
			refused = err
		}
		c.move()
	}
	if refused != nil {
		return nil, refused
	}
	return nil, l.Explain(errors.New("the log cannot be reached"))
}

// begin is Begin at the current endpoint of c. If only the lobby's key was removed, it keeps
// everything else, because that is how an operator asks for a new epoch.
func (l *Log) begin(ctx context.Context, c *client, settings string, seen Entry) (*Session, error) {
	if err := c.note("", nil); err != nil {
		return nil, err
	}
	lobby, state := l.key("lobby"), l.key("state")
	last := l.key("log/" + seen.Node + "/" + strconv.Itoa(seen.Number))
	read := []operation{get(state), get(l.key("copy")), stat(last)}
	for tries := 1; ; tries++ {
		var response transactionResponse
		err := c.ask(ctx, 2*slowAfter, "/v3/kv/txn", transaction{
			Compare: []compare{versionIs(lobby, 0)},
			Success: append(read, put(lobby, []byte(settings))),
			Failure: append(read, get(lobby)),
		}, &response)
		if err != nil {
			return nil, err
		}
		p := l.pointer(response)
		s := &Session{
			Settings: settings,
			At:       p.At,
			Created:  response.Header.Revision,
			// If that entry is missing, it may have been removed because a snapshot includes it.
			Restored: response.find(last).Created != seen.Revision && p.Removed < seen.Revision,
			log:      l,
			began:    c,
			appender: c.clone(),
			saver:    c.clone(),
			state:    response.find(state).Modified,
			seen:     make(chan int64, 1),
			appended: make(chan acknowledgement, 1),
		}
		s.seen <- response.Header.Revision
		if !response.Succeeded {
			s.Settings, s.Created = string(response.find(lobby).Value), response.find(lobby).Created
		}
		s.Snapshot, err = l.readSnapshot(ctx, c, p)
		// If two snapshots were saved meanwhile, this one was removed.
		if errors.Is(err, errDamaged) && p != (pointer{}) && tries < 3 {
			continue
		}
		if errors.Is(err, errDamaged) && p.Removed == 0 { // the log is still complete
			s.Snapshot, s.At, err = nil, 0, nil
		}
		return s, err
	}
}

// observe records that a response had this revision, and returns the highest revision seen so far.
// The response to any later request must not have a lower one.
func (s *Session) observe(revision int64) int64 {
	highest := max(<-s.seen, revision)
	s.seen <- highest
	return highest
}

// Append appends text as entry number of node, once, and returns its revision. It asks one endpoint
// after another until the result is certain or ctx is done. It fails with ctx's error, ErrReplaced,
// ErrRestored, ErrVoid or ErrTooLarge. After ctx's error and, rarely, ErrTooLarge, the entry may
// still get into the log, now or later, and Append may be called again with the same number and
// text.
func (s *Session) Append(ctx context.Context, node string, number int, text []byte) (int64, error) {
	revision, err := s.append(ctx, node, number, text)
	for err == errNewSnapshot {
		revision, err = s.append(ctx, node, number, text)
	}
	if err != nil {
		return 0, err
	}
	s.observe(revision)
	select {
	case <-s.appended: // an older one that Entries has not received
	default:
	}
	s.appended <- acknowledgement{revision, s.appender.at}
	return revision, nil
}

var errNewSnapshot = errors.New("another snapshot was saved meanwhile")

// append is one attempt of Append. A node's first entry is put only if NAME/state has not changed
// since Begin or append last read it; otherwise append fails with errNewSnapshot. The first entry
// needs this condition because no number in etcd tells whether it is a late retry: once the others
// have declared the node dead and saved a snapshot, the node's key is removed.
func (s *Session) append(ctx context.Context, node string, number int, text []byte) (int64, error) {
	lobby, state, key := s.log.key("lobby"), s.log.key("state"), s.log.key("nodes/"+node)
	digits := strconv.Itoa(number)
	conditions := []compare{createdIs(lobby, s.Created), versionIs(key, int64(number-1))}
	if number == 1 {
		conditions = append(conditions, modifiedIs(state, s.state))
	}
	seen := s.observe(0)
	response, err := s.appender.hedge(ctx, slowAfter, same(transaction{
		Compare: conditions,
		Success: []operation{put(s.log.key("log/"+node+"/"+digits), text), put(key, []byte(digits))},
		Failure: []operation{get(lobby), get(key), get(state)},
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
	count, newState := response.find(key), response.find(state).Modified
	switch {
	case response.find(lobby).Created != s.Created:
		return 0, ErrReplaced
	case revision < seen:
		return 0, ErrRestored
	case count.Version == int64(number): // an earlier attempt succeeded
		return count.Modified, nil
	case 0 < count.Version && count.Version < int64(number):
		return 0, ErrRestored
	case number == 1 && newState != s.state:
		s.state = newState
		return 0, errNewSnapshot
	}
	return 0, ErrVoid
}
