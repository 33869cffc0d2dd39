package etcd

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	maxPiece   = 1 << 20 // bytes of a piece; etcd accepts requests of 1.5 MiB by default
	maxPieces  = 1024    // pieces of a snapshot
	maxRemoved = 128     // keys removed in one transaction; etcd accepts no more by default
	maxKeys    = 1000    // keys listed at once for removal
	maxHalved  = 4       // down to pieces of 64 KiB, and to 8 keys removed
)

// halvings says how often a session has halved maxPiece and maxRemoved because etcd accepts less.
type halvings struct{ piece, removed int }

var errDamaged = errors.New("the snapshot is missing or damaged, and entries that it includes " +
	"were removed; a running node can save another one")

// pointer is the content of NAME/state, in JSON.
type pointer struct {
	At      int64  `json:"at"`      // the revision up to which the snapshot includes all entries
	Removed int64  `json:"removed"` // the revision up to which entries may have been removed
	ID      string `json:"id"`      // piece I, from 1, is NAME/state/ID/I
	Pieces  int    `json:"pieces"`
	Sum     string `json:"sha256"` // of the snapshot, in hexadecimal digits
}

// parsePointer returns a zero pointer if value is not valid, as when others have written it.
// Reading a snapshot through a zero pointer fails with errDamaged.
func parsePointer(value []byte) pointer {
	var p pointer
	if json.Unmarshal(value, &p) != nil || p.Pieces < 0 || p.Pieces > maxPieces ||
		len(p.Sum) != 2*sha256.Size {
		return pointer{}
	}
	return p
}

// pointer returns the pointer in NAME/state or, if others have changed that, in its copy. Without a
// pointer, a node would not know that entries were removed, and would differ from the others.
func (l *Log) pointer(r transactionResponse) pointer {
	p, copied := parsePointer(r.find(l.key("state")).Value), parsePointer(r.find(l.key("copy")).Value)
	return cmp.Or(p, copied)
}

func sumOf(snapshot []byte) string {
	sum := sha256.Sum256(snapshot)
	return hex.EncodeToString(sum[:])
}

// readSnapshot reads the snapshot to which p points.
func (l *Log) readSnapshot(ctx context.Context, c *client, p pointer) (snapshot []byte, err error) {
	snapshot = []byte{}
	for i := range p.Pieces {
		key := l.piece(p.ID, i+1)
		read := transaction{Success: []operation{get(key)}}
		var response transactionResponse
		if err := c.ask(ctx, requestTimeout, "/v3/kv/txn", read, &response); err != nil {
			return nil, err
		}
		snapshot = append(snapshot, response.find(key).Value...) // a missing piece makes the sum wrong
	}
	if sumOf(snapshot) != p.Sum {
		return nil, errDamaged
	}
	return snapshot, nil
}

// piece returns the key of piece i of the snapshot id.
func (l *Log) piece(id string, i int) []byte { return l.key("state/" + id + "/" + strconv.Itoa(i)) }

// SaveSnapshot saves data as a snapshot that includes all entries up to the revision at. Before
// that it removes the pieces of snapshots older than the previous one, and compacts etcd's history.
// After that it removes the entries included in the previous snapshot, and the keys of the nodes
// that are gone. It has no effect if a later snapshot exists, or if another is saved at the same
// time. It fails with ctx's error, ErrReplaced or ErrTooLarge, or if data is too large.
//
// The pieces of the previous snapshot stay, because a node that is starting may be reading them.
func (s *Session) SaveSnapshot(ctx context.Context, at int64, data []byte, gone []string) error {
	log, state := s.log, s.log.key("state")
	size := log.maxPiece >> s.halved.piece
	if most := maxPieces * size; len(data) > most {
		return fmt.Errorf("it has %d bytes, and at most %d can be saved", len(data), most)
	}
	read := transaction{Success: []operation{get(state), get(log.key("copy"))}}
	response, err := s.saver.hedge(ctx, slowAfter, same(read))
	if err != nil {
		return err
	}
	current := response.find(state)
	previous := log.pointer(response)
	if previous.At >= at {
		return nil
	}
	if err := s.makeRoom(ctx, previous, current.Modified, at); err != nil {
		return err
	}
	p := pointer{At: at, Removed: previous.At, ID: rand.Text(), Sum: sumOf(data)}
	for piece := range slices.Chunk(data, size) {
		p.Pieces++
		_, err := s.change(ctx, nil, put(log.piece(p.ID, p.Pieces), piece))
		if errors.Is(err, ErrTooLarge) && s.halved.piece < maxHalved {
			s.halved.piece++
			// With another ID, a late put of this piece cannot replace a smaller one.
			return s.SaveSnapshot(ctx, at, data, gone)
		}
		if err != nil {
			return err
		}
	}
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	// Entries may be removed only after the pointer says so.
	unchanged := modifiedIs(state, current.Modified)
	saved, err := s.change(ctx, []compare{unchanged}, put(state, value), put(log.key("copy"), value))
	if err != nil {
		return err
	}
	if !saved.Succeeded && parsePointer(saved.find(state).Value).ID != p.ID {
		return nil // Another snapshot was saved meanwhile. This one has no effect.
	}
	if p.Removed > 0 {
		isOld := func(string) bool { return true }
		if err := s.removeKeys(ctx, log.key("log/"), p.Removed, isOld); err != nil {
			return err
		}
	}
	isGone := func(node string) bool { return slices.Contains(gone, node) }
	if err := s.removeKeys(ctx, s.log.key("nodes/"), 0, isGone); err != nil {
		return err
	}
	return ctx.Err()
}

// makeRoom removes the pieces that are not needed, given the newest pointer and its revision, which
// is 0 before the first snapshot. Then it lets etcd discard all that was removed up to at.
func (s *Session) makeRoom(ctx context.Context, newest pointer, revision, at int64) error {
	// Pieces that are older than the pointer and not of its snapshot can go. They are of an earlier
	// snapshot, or of one whose save will fail, because the pointer has changed since it began.
	isOld := func(rest string) bool { return !strings.HasPrefix(rest, newest.ID+"/") }
	if revision > 0 {
		if err := s.removeKeys(ctx, s.log.key("state/"), revision, isOld); err != nil {
			return err
		}
	}
	// This only saves space in etcd, and others may have done it already, so errors do not matter.
	upTo := map[string]int64{"revision": at}
	_ = s.saver.ask(ctx, requestTimeout, "/v3/kv/compaction", upTo, new(any))
	return nil
}

// removeKeys removes the keys that begin with prefix and for which isOld, given the rest of the
// key, returns true. Unless revision is 0, it keeps those that have changed since then.
func (s *Session) removeKeys(
	ctx context.Context, prefix []byte, revision int64, isOld func(rest string) bool,
) error {
	for from := prefix; ; {
		list := operation{Range: &rangeRequest{Key: from, End: after(prefix), MaxModified: revision,
			KeysOnly: true, Limit: maxKeys}}
		response, err := s.saver.hedge(ctx, requestTimeout, same(transaction{Success: []operation{list}}))
		if err != nil {
			return err
		}
		found := response.first()
		var operations []operation
		for _, kv := range found.KVs {
			if isOld(strings.TrimPrefix(string(kv.Key), string(prefix))) {
				operations = append(operations, remove(kv.Key))
			}
		}
		for len(operations) > 0 {
			n := min(len(operations), maxRemoved>>s.halved.removed)
			_, err := s.change(ctx, nil, operations[:n]...)
			switch {
			case err == nil:
				operations = operations[n:]
			case errors.Is(err, ErrTooLarge) && s.halved.removed < maxHalved:
				s.halved.removed++
			default:
				return err
			}
		}
		if !found.More {
			return nil
		}
		from = append(found.KVs[len(found.KVs)-1].Key, 0) // the first key that can follow it
	}
}

// change executes operations if the log is still this session's and the conditions hold. Otherwise
// the response contains NAME/state. It fails with ctx's error, ErrReplaced or ErrTooLarge.
func (s *Session) change(
	ctx context.Context, conditions []compare, operations ...operation,
) (transactionResponse, error) {
	lobby, state := s.log.key("lobby"), s.log.key("state")
	response, err := s.saver.hedge(ctx, requestTimeout, same(transaction{
		Compare: append(conditions, createdIs(lobby, s.Created)),
		Success: operations,
		Failure: []operation{get(lobby), get(state)},
	}))
	if err == nil && !response.Succeeded && response.find(lobby).Created != s.Created {
		err = ErrReplaced
	}
	return response, err
}
