// Package memlog is a lobby's log in memory. Tests of nodes and hubs use it instead of etcd, and
// can delay each node's access or cut it off.
package memlog

import (
	"context"
	"iter"
	"time"

	"lobby/etcd"
)

// Log is a log in memory.
type Log struct {
	settings string
	contents chan contents // a mutex: it holds one element, which its users receive and send back
}

// contents is the contents of a log.
type contents struct {
	entries  []etcd.Entry   // the one with revision r is at index r-1-removed
	removed  int64          // number of entries removed from the front
	numbers  map[string]int // the number of each node's last entry
	snapshot []byte         // the newest one
	at       int64          // the revision up to which it includes all entries
	grown    chan struct{}  // closed when another entry is appended
}

// New returns an empty log of a lobby whose settings key is settings.
func New(settings string) *Log {
	l := &Log{settings, make(chan contents, 1)}
	l.contents <- contents{numbers: make(map[string]int), grown: make(chan struct{})}
	return l
}

// Snapshot returns the newest snapshot, and the revision up to which it includes all entries.
func (l *Log) Snapshot() (data []byte, at int64) {
	c := <-l.contents
	defer func() { l.contents <- c }()
	return c.snapshot, c.at
}

// Len returns the number of entries that were ever appended.
func (l *Log) Len() int64 {
	c := <-l.contents
	defer func() { l.contents <- c }()
	return c.last()
}

func (c contents) last() int64 { return c.removed + int64(len(c.entries)) }

// View is one node's access to a log, with the methods of an etcd.Session.
type View struct {
	*etcd.Session // where the node starts; its own methods must not be called

	Delay func() time.Duration // returns how long an operation takes, each way; may be nil
	Cut   func() bool          // reports whether the node is cut off; may be nil

	log *Log
}

// Open returns access to the log for a node that starts now.
func (l *Log) Open() *View {
	c := <-l.contents
	defer func() { l.contents <- c }()
	start := &etcd.Session{Settings: l.settings, Snapshot: c.snapshot, At: c.at}
	return &View{log: l, Session: start}
}

// wait waits for Delay, and until the node is not cut off. It returns false if ctx is done first.
func (v *View) wait(ctx context.Context) bool {
	if v.Delay != nil {
		sleep(ctx, v.Delay())
	}
	for v.Cut != nil && v.Cut() && ctx.Err() == nil {
		sleep(ctx, time.Second/10)
	}
	return ctx.Err() == nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Append is like that of an etcd.Session.
func (v *View) Append(ctx context.Context, node string, number int, text []byte) (int64, error) {
	if !v.wait(ctx) {
		return 0, ctx.Err()
	}
	revision, err := v.log.append(node, number, text)
	if !v.wait(ctx) {
		return 0, ctx.Err()
	}
	return revision, err
}

func (l *Log) append(node string, number int, text []byte) (int64, error) {
	c := <-l.contents
	defer func() { l.contents <- c }()
	if c.numbers[node] != number-1 {
		return 0, etcd.ErrVoid
	}
	c.numbers[node] = number
	c.entries = append(c.entries, etcd.Entry{Revision: c.last() + 1, Node: node, Number: number, Text: text})
	close(c.grown)
	c.grown = make(chan struct{})
	return c.last(), nil
}

// Entries is like that of an etcd.Session.
func (v *View) Entries(ctx context.Context, _ map[string]int) iter.Seq2[etcd.Entry, error] {
	return func(yield func(etcd.Entry, error) bool) {
		for at := v.At; ; {
			c := <-v.log.contents
			v.log.contents <- c
			var entry etcd.Entry
			switch {
			case at < c.removed:
				yield(etcd.Entry{}, etcd.ErrTrimmed)
				return
			case at < c.last():
				entry = c.entries[at-c.removed]
			default:
				select {
				case <-c.grown:
					continue
				case <-ctx.Done():
				}
			}
			if !v.wait(ctx) {
				yield(etcd.Entry{}, ctx.Err())
				return
			}
			at++
			if !yield(entry, nil) {
				return
			}
		}
	}
}

// Discard does nothing, since here an entry of another node never takes the place of one's own.
func (v *View) Discard(context.Context, etcd.Entry) {}

// Damage makes all nodes read that an entry was changed or removed by hand.
func (l *Log) Damage(node string, number int) {
	c := <-l.contents
	defer func() { l.contents <- c }()
	e := etcd.Entry{Revision: c.last() + 1, Node: node, Number: number, Damaged: true}
	c.entries = append(c.entries, e)
	close(c.grown)
	c.grown = make(chan struct{})
}

// SaveSnapshot is like that of an etcd.Session.
func (v *View) SaveSnapshot(ctx context.Context, at int64, data []byte, gone []string) error {
	if !v.wait(ctx) {
		return ctx.Err()
	}
	c := <-v.log.contents
	defer func() { v.log.contents <- c }()
	if at <= c.at {
		return nil
	}
	if n := c.at - c.removed; n > 0 {
		c.entries, c.removed = c.entries[n:], c.at
	}
	c.snapshot, c.at = data, at
	for _, node := range gone {
		delete(c.numbers, node)
	}
	return nil
}
