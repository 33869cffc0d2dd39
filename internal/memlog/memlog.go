// Package memlog is a lobby's log in memory. Tests of nodes and hubs use it in place of etcd, with
// the delays and losses that they want.
package memlog

import (
	"context"
	"iter"
	"time"

	"lobby/etcd"
)

// Log is a log that lives as long as the program.
type Log struct {
	settings string
	contents chan contents // holds the one contents; whoever takes it puts it back at once
}

// contents is what is in a log.
type contents struct {
	entries []etcd.Entry   // the one of revision r is at r-1-removed
	removed int64          // how many entries were removed from the front
	numbers map[string]int // of each node's last entry
	state   []byte         // the saved state
	at      int64          // the revision up to which state takes entries into account
	grown   chan struct{}  // closed when an entry follows
}

// New returns an empty log of a lobby with settings, as its first key has them.
func New(settings string) *Log {
	l := &Log{settings, make(chan contents, 1)}
	l.contents <- contents{numbers: make(map[string]int), grown: make(chan struct{})}
	return l
}

// State returns the saved state, and the revision up to which it takes entries into account.
func (l *Log) State() (state []byte, at int64) {
	c := <-l.contents
	defer func() { l.contents <- c }()
	return c.state, c.at
}

// Len returns how many entries were ever appended.
func (l *Log) Len() int64 {
	c := <-l.contents
	defer func() { l.contents <- c }()
	return c.last()
}

func (c contents) last() int64 { return c.removed + int64(len(c.entries)) }

// View is one node's access to a log. It has the methods of an etcd.Session.
type View struct {
	*etcd.Session // what the node begins with; its methods must not be called

	// Delay is called before whatever is done, and returns for how long that waits. It may be nil.
	Delay func() time.Duration
	// Cut reports whether the node is cut off. It may be nil.
	Cut func() bool

	log *Log
}

// Open returns access to the log for a node that begins now.
func (l *Log) Open() *View {
	c := <-l.contents
	defer func() { l.contents <- c }()
	return &View{log: l, Session: &etcd.Session{
		Settings: l.settings, Snapshot: c.state, At: c.at,
	}}
}

// wait waits as Delay says, and until the node is not cut off. It reports whether ctx is not done.
func (v *View) wait(ctx context.Context) bool {
	const again = time.Second / 10
	if v.Delay != nil && !sleep(ctx, v.Delay()) {
		return false
	}
	for v.Cut != nil && v.Cut() {
		if !sleep(ctx, again) {
			return false
		}
	}
	return ctx.Err() == nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Append is as etcd.Session's.
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

// Entries is as etcd.Session's.
func (v *View) Entries(ctx context.Context) iter.Seq2[etcd.Entry, error] {
	return func(yield func(etcd.Entry, error) bool) {
		for at := v.At; ; {
			c := <-v.log.contents
			v.log.contents <- c
			var entry etcd.Entry
			switch {
			case at < c.removed:
				yield(entry, etcd.ErrTrimmed)
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

// SaveSnapshot is as etcd.Session's.
func (v *View) SaveSnapshot(ctx context.Context, at int64, state []byte, gone []string) error {
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
	c.state, c.at = state, at
	for _, node := range gone {
		delete(c.numbers, node)
	}
	return nil
}
