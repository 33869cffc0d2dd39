package etcd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

const (
	maxPiece   = 1 << 20 // bytes; etcd takes requests of 1.5 MiB
	maxPieces  = 1024    // pieces of a state
	maxRemoved = 100     // keys in a transaction; etcd takes 128
	maxKeys    = 1000    // keys that are looked up at once to be removed
)

var errDamaged = errors.New("the saved state lacks a piece, or has another than was saved")

// pointer is what NAME/state holds, in JSON.
type pointer struct {
	At      int64  `json:"at"`      // the revision up to which the state takes entries into account
	Removed int64  `json:"removed"` // the revision up to which entries may have been removed
	ID      string `json:"id"`      // piece I, from 1, is NAME/state/ID/I
	Pieces  int    `json:"pieces"`
	Sum     string `json:"sha256"` // of the state, in hexadecimal digits
}

// parsePointer returns a zero pointer if value is none: what others have put there counts as no
// state.
func parsePointer(value []byte) pointer {
	var p pointer
	if json.Unmarshal(value, &p) != nil || p.Pieces < 0 || p.Pieces > maxPieces {
		return pointer{}
	}
	return p
}

type compaction struct {
	Revision int64 `json:"revision"`
}

func sumOf(state []byte) string {
	sum := sha256.Sum256(state)
	return hex.EncodeToString(sum[:])
}

// load reads the state that NAME/state points to.
func (l *Log) load(ctx context.Context, c *client, value []byte) (at int64, state []byte, err error) {
	p := parsePointer(value)
	state = []byte{}
	for i := range p.Pieces {
		answer, err := ask[rangeAnswer](ctx, c, largeTime, "/v3/kv/range", rangeRequest{Key: l.piece(p.ID, i+1)})
		if err != nil {
			return 0, nil, err
		}
		state = append(state, answer.first().Value...) // if a piece is gone, the sum is wrong
	}
	if sumOf(state) != p.Sum {
		return 0, nil, errDamaged
	}
	return p.At, state, nil
}

// piece returns the key of piece i of the state id.
func (l *Log) piece(id string, i int) []byte {
	return l.key("state/" + id + "/" + strconv.Itoa(i))
}

// Save saves a state that takes into account all entries up to the revision at. Then it removes
// what nobody needs any more: the entries that the saved state before this one took into account,
// the pieces of states before that one, and the keys of the nodes that are gone. And it compacts
// etcd's history up to there. It changes nothing if a later state is saved already, or if another
// state is saved at the same time. Its errors are ctx's and ErrReplaced.
//
// The pieces of the state before this one stay, because a node that begins may be reading them.
func (s *Session) Save(ctx context.Context, at int64, state []byte, gone []string) error {
	log, c := s.log, s.saver
	current := log.key("state")
	answer, err := insist[rangeAnswer](ctx, c, requestTime, "/v3/kv/range", always(rangeRequest{Key: current}))
	if err != nil {
		return err
	}
	old := parsePointer(answer.first().Value)
	if old.At >= at {
		return nil
	}
	p := pointer{At: at, Removed: old.At, ID: rand.Text(), Sum: sumOf(state)}
	for rest := state; len(rest) > 0; p.Pieces++ {
		piece := rest[:min(len(rest), log.maxPiece)]
		rest = rest[len(piece):]
		if _, err := s.change(ctx, nil, put(log.piece(p.ID, p.Pieces+1), piece)); err != nil {
			return err
		}
	}
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	// Entries may be removed only after the pointer has said so.
	before := isModified(current, answer.first().Modified)
	saved, err := s.change(ctx, []compare{before}, put(current, value))
	if err != nil {
		return err
	}
	revision := saved.Header.Revision
	if !saved.Succeeded {
		found := saved.read(1).first()
		if parsePointer(found.Value).ID != p.ID {
			return nil
		}
		revision = found.Modified // an earlier try has come through
	}
	return s.tidy(ctx, p, old, revision, gone)
}

// tidy removes what nobody needs any more once the pointer p, which follows old, has been put with
// a revision.
func (s *Session) tidy(ctx context.Context, p, old pointer, revision int64, gone []string) error {
	if p.Removed > 0 {
		isOld := func(string) bool { return true }
		if err := s.clean(ctx, s.log.key("log/"), p.Removed, isOld); err != nil {
			return err
		}
	}
	// Pieces that came before the pointer are of states that have one of the two pointers, or that
	// never get one: whoever is saving such a state has read old, and comes too late.
	isOld := func(name string) bool {
		id, _, _ := strings.Cut(name, "/")
		return id != p.ID && id != old.ID
	}
	if err := s.clean(ctx, s.log.key("state/"), revision, isOld); err != nil {
		return err
	}
	for nodes := range slices.Chunk(gone, maxRemoved) {
		var operations []operation
		for _, node := range nodes {
			operations = append(operations, remove(s.log.key("nodes/"+node)))
		}
		if _, err := s.change(ctx, nil, operations...); err != nil {
			return err
		}
	}
	if p.Removed > 0 {
		// Somebody else may have done it, and it is only for etcd's sake: no need to try again.
		_, _ = ask[struct{}](ctx, s.saver, largeTime, "/v3/kv/compaction", compaction{p.Removed})
	}
	return ctx.Err()
}

// clean removes the keys that begin with prefix, have not changed since a revision, and are old by
// what follows the prefix.
func (s *Session) clean(ctx context.Context, prefix []byte, revision int64, isOld func(name string) bool) error {
	for from := prefix; ; {
		found, err := insist[rangeAnswer](ctx, s.saver, largeTime, "/v3/kv/range", always(rangeRequest{
			Key: from, End: after(prefix), MaxModified: revision, KeysOnly: true, Limit: maxKeys}))
		if err != nil {
			return err
		}
		for kvs := range slices.Chunk(found.KVs, maxRemoved) {
			var operations []operation
			for _, kv := range kvs {
				if isOld(strings.TrimPrefix(string(kv.Key), string(prefix))) {
					operations = append(operations, remove(kv.Key))
				}
			}
			if _, err := s.change(ctx, nil, operations...); err != nil {
				return err
			}
		}
		if !found.More {
			return nil
		}
		from = append(found.KVs[len(found.KVs)-1].Key, 0) // the next key there can be
	}
}

// change does operations if the log is still this session's and the conditions hold. If they do
// not, the answer's second range is the pointer. Its errors are ctx's and ErrReplaced.
func (s *Session) change(ctx context.Context, conditions []compare, operations ...operation) (transactionAnswer, error) {
	lobby := s.log.key("lobby")
	answer, err := insist[transactionAnswer](ctx, s.saver, largeTime, "/v3/kv/txn", always(transaction{
		Compare: append(conditions, isCreated(lobby, s.Created)),
		Success: operations,
		Failure: []operation{get(lobby), get(s.log.key("state"))},
	}))
	if err == nil && !answer.Succeeded && answer.read(0).first().Created != s.Created {
		err = ErrReplaced
	}
	return answer, err
}
