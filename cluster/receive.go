package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lobby/etcd"
	"lobby/room"
)

// receive handles the next entry of the log. All nodes conclude the same about users, events and
// nodes from it, no matter who wrote it. An error ends this node.
func (n *Node) receive(ctx context.Context, e etcd.Entry) error {
	if e.Damaged {
		n.noteDamage(e)
		if e.Node == n.name && e.Number > n.nodes[n.name].last { // someone else has put it twice
			go n.log.Discard(ctx, e)
		}
		return nil
	}
	if n.figures != nil {
		n.figures.read++
	}
	if !n.isKnown { // there may be much to read before this node's registration
		n.quiet = 0
	}
	// If an operator has removed the settings key, a node puts a new one with a new epoch. That epoch
	// starts at the first entry newer than the new key.
	isOld := e.Revision < n.created
	if n.isOld && !isOld {
		n.startEpoch(e, n.key.Epoch)
	}
	n.isOld = isOld
	c, err := n.admit(e)
	if err == nil {
		n.see(e)
		return n.apply(e, c)
	}
	n.warnOfEntry("skipped entry %d of %q in the lobby's log: %v", e.Number, e.Node, err)
	if e.Node == n.name {
		go n.log.Discard(ctx, e) // Until then, Append cannot put this node's entry with that key.
	}
	return nil
}

// warnOfEntry is warn, but at most once in warnPause.
func (n *Node) warnOfEntry(format string, args ...any) {
	if now := time.Now(); now.Sub(n.warnedAt) >= warnPause {
		n.warnedAt = now
		n.warn(fmt.Sprintf(format, args...))
	}
}

// noteDamage notes that an entry was changed or removed by hand. If nodes that start need it,
// another snapshot is due.
func (n *Node) noteDamage(e etcd.Entry) {
	if n.schedule.needs(e, n.nodes) {
		n.outbox.damaged = e.Revision
		n.warnOfEntry("entry %d of %q in the lobby's log was changed or removed by hand; "+
			"another snapshot replaces it", e.Number, e.Node)
	}
}

// admit returns the content of an entry, or the reason why it does not count.
func (n *Node) admit(e etcd.Entry) (content, error) {
	m, isMember := n.nodes[e.Node]
	switch {
	case !isMember && e.Number > 1:
		return content{}, errors.New("its node has not registered or was removed")
	case e.Number != m.last+1:
		return content{}, fmt.Errorf("the next entry of its node is %d", m.last+1)
	case e.Number == 1:
		return parseFirst(string(e.Text))
	}
	return parseNext(string(e.Text))
}

// apply carries out an entry that counts.
func (n *Node) apply(e etcd.Entry, c content) error {
	isOwn, sent := e.Node == n.name, n.outbox.sent
	if isOwn && (len(sent) == 0 || !bytes.Equal(e.Text, sent[0].text)) {
		return ErrForged // other nodes may have applied it, but it must not answer this hub's requests
	}
	n.nodes[e.Node] = member{last: e.Number}
	if slices.Contains(strings.Fields(c.lost), n.epoch) {
		if n.isKnown {
			return ErrNewEpoch
		}
		n.startEpoch(e, c.epoch)
	}
	for _, r := range c.removals {
		if m, isMember := n.nodes[r.node]; !isMember || m.last != r.last {
			continue
		}
		if r.node == n.name {
			n.outbox.sent = nil // what was not read before the removal never takes effect
			return ErrRemoved
		}
		delete(n.nodes, r.node)
		n.schedule.removed[r.node] = r.last
		n.removed = append(n.removed, r.node)
		n.inbox = append(n.inbox, room.RemoveNode{Node: r.node})
	}
	if len(c.commands) > 0 {
		n.inbox = append(n.inbox, room.Entry{Node: e.Node, Commands: c.commands})
	}
	if isOwn {
		n.noteOwn()
	}
	if n.schedule.note(e, c, n.nodes) && isOwn {
		n.takeSnapshot(e.Revision)
	}
	return nil
}

// takeSnapshot asks the hub for a snapshot after the entry with this revision.
func (n *Node) takeSnapshot(at int64) {
	s := snapshot{Lobby: n.key.Epoch, Nodes: n.schedule.last, Due: n.schedule.due, Saver: n.name}
	n.snapshot = &pendingSnapshot{s, at, slices.Clone(n.removed)}
	n.inbox = append(n.inbox, room.TakeSnapshot{})
}

// see notes that an entry is in the log.
func (n *Node) see(e etcd.Entry) {
	if e.Revision > n.seen.Revision {
		n.seen = etcd.Entry{Revision: e.Revision, Node: e.Node, Number: e.Number}
	}
}

// startEpoch starts the history over with entry e.
func (n *Node) startEpoch(e etcd.Entry, epoch string) {
	if e.Node == n.name {
		n.warn(fmt.Sprintf("the history has started over in the epoch %s, "+
			"because the log was restored from a backup or its settings key was removed", epoch))
	}
	n.epoch = epoch
	n.inbox = append(n.inbox, room.NewEpoch{Epoch: epoch})
}

// noteOwn notes that the oldest entry that was sent has been read. If it is a heartbeat, the nodes
// that have been silent for too long are to be removed.
func (n *Node) noteOwn() {
	entry := n.outbox.sent[0]
	n.outbox.sent = n.outbox.sent[1:]
	n.quiet, n.isKnown = 0, true
	if n.figures != nil {
		n.figures.sent = entry.at
	}
	if !entry.isHeartbeat {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(n.nodes)) {
		m := n.nodes[name]
		m.silent++
		n.nodes[name] = m
		if m.silent == deadAfter {
			n.outbox.removals = append(n.outbox.removals, removal{name, m.last})
		}
	}
}
