package cluster

import "lobby/etcd"

// schedule decides when a snapshot is due, and which node saves it: the one whose entry makes it
// due. Until the log says what came of that, no other is due. All nodes decide the same, because
// everything here follows from the entries.
type schedule struct {
	size      int    // bytes of entries since the last snapshot became due
	due       int    // size at which the next one is due
	isDamaged bool   // whether the next one is due because an entry was changed or removed
	saver     string // the node that saves a snapshot now, or ""

	at      int64          // the revision of the entry that made the latest snapshot due
	last    map[string]int // by node, its last entry at that moment
	removed map[string]int // by node that was removed since, its last entry
}

// note reports whether entry e, which says c, makes a snapshot due. nodes are those after it.
func (s *schedule) note(e etcd.Entry, c content, nodes map[string]member) bool {
	if e.Node == s.saver && c.saved != 0 {
		s.saver = ""
		if c.saved == notSaved {
			s.last = nil // Nodes that start still need all entries.
		} else {
			s.due = max(c.saved, snapshotAfter)
		}
	}
	if _, isMember := nodes[s.saver]; s.saver != "" && !isMember {
		s.saver, s.size = "", s.due // It was removed, so perhaps it has saved nothing.
	}
	s.size += len(e.Text) + entryCost
	s.isDamaged = s.isDamaged || c.damaged > s.at
	if s.saver != "" || s.size < s.due && !s.isDamaged {
		return false
	}
	s.saver, s.size, s.isDamaged, s.at = e.Node, 0, false, e.Revision
	s.last, s.removed = make(map[string]int), make(map[string]int)
	for name, m := range nodes {
		s.last[name] = m.last
	}
	return true
}

// needs reports whether a node that starts must find entry e unchanged: e was applied, and no
// snapshot that is saved or being saved includes it. Nodes remove the entries that one includes.
func (s *schedule) needs(e etcd.Entry, nodes map[string]member) bool {
	return s.last[e.Node] < e.Number && e.Number <= max(nodes[e.Node].last, s.removed[e.Node])
}
