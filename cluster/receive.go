package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lobby/etcd"
	"lobby/room"
)

// receive handles the next entry of the log. All nodes do the same with it, no matter who wrote it.
// An error ends this node.
func (n *Node) receive(e etcd.Entry) error {
	n.see(e)
	if n.figures != nil {
		n.figures.read++
	}
	if !n.isKnown { // there may be much to read before this node's registration
		n.quiet = 0
	}
	// If an operator has removed the lobby's first key, a node puts a new one with a new epoch. That
	// epoch starts at the first entry newer than the new key.
	isOld := e.Revision < n.created
	if n.isOld && !isOld {
		n.startEpoch(n.key.Epoch)
	}
	n.isOld = isOld
	c, err := n.admit(e)
	if err == nil {
		return n.apply(e, c)
	}
	if now := time.Now(); now.Sub(n.warnedAt) >= warnPause {
		n.warnedAt = now
		n.warn(fmt.Sprintf("skipped entry %d of %q in the lobby's log: %v", e.Number, e.Node, err))
	}
	return nil
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
		n.startEpoch(c.epoch)
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
		n.removed = append(n.removed, r.node)
		n.inbox = append(n.inbox, room.RemoveNode{Node: r.node})
	}
	if len(c.commands) > 0 {
		n.inbox = append(n.inbox, room.Entry{Node: e.Node, Commands: c.commands})
	}
	if isOwn {
		n.noteOwn()
	}
	if c.saved > 0 {
		n.due = max(c.saved, snapshotAfter)
	}
	if n.size += len(e.Text) + entryCost; n.size >= n.due {
		n.size = 0
		if isOwn && n.snapshot == nil {
			n.takeSnapshot(e.Revision)
		}
	}
	return nil
}

// see notes that an entry is in the log.
func (n *Node) see(e etcd.Entry) {
	if e.Revision > n.seen.Revision {
		n.seen = etcd.Entry{Revision: e.Revision, Node: e.Node, Number: e.Number}
	}
}

// startEpoch starts the history over.
func (n *Node) startEpoch(epoch string) {
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

// takeSnapshot asks the hub for a snapshot after the entry with this revision.
func (n *Node) takeSnapshot(at int64) {
	s := snapshot{Lobby: n.key.Epoch, Nodes: make(map[string]int), Due: n.due}
	for name, m := range n.nodes {
		s.Nodes[name] = m.last
	}
	n.snapshot = &pendingSnapshot{s, at, slices.Clone(n.removed)}
	n.inbox = append(n.inbox, room.TakeSnapshot{})
}
