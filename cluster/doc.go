// Package cluster makes hubs on several machines one lobby.
//
// A hub carries out commands in one order. On one machine that is the order in which it takes them.
// On several machines it is the order of a log (package etcd), which all hubs read:
//
//	   hub ──commands──▶ Node ──entries──▶ ┌─────┐ ──entries──▶ Node ──turns──▶ the same hub
//	                                       │ log │
//	another hub ──▶ another Node ────────▶ └─────┘ ────────────▶ another Node ──▶ the other hub
//
// A [Node] is a hub's way to the log and back. It gathers the hub's commands into entries and
// appends them, one after the other. Whatever comes out of the log, its own entries and those of
// the others, it gives to its hub as turns. All hubs get the same turns in the same order, so all
// of them have the same users, the same events, and the same ids.
//
// # Life and death
//
// A node has a name that no other has had, and a life. Its first entry, a hello, makes it known.
// From then on it appends an entry at least once a second, its beat, even if that is empty. If 12
// beats of its own have come out of the log since another node's last entry, a node takes that one
// for dead and appends its burial. The burial counts only if the dead node has made no entry
// meanwhile, and what a dead node appends later is void. So there is one place in the order where a
// node ends, for all hubs alike, and no clock is compared with another machine's. While the log
// cannot be reached no beats come out of it, and nobody is buried.
//
// A life ends when the node reads its own burial, when its own entries do not come back, when
// somebody else writes in its name, or when the log was emptied or restored from a backup. Then the
// process begins another life; see [Lobby].
//
// # Epochs
//
// The first node of a lobby puts a first key into etcd, with the epoch of the lobby's events. If
// etcd is restored from a backup, ids that were given already would be given again, to other
// events. So a node whose process has seen what the log now lacks says so in its hello, and the
// history begins anew in another epoch. It also does if somebody has removed the first key, and a
// node puts it anew.
//
// # The saved state
//
// So that the log need not grow for ever, a node saves the state of its hub whenever the log has
// grown by some megabytes since the last time, and removes the entries that nobody needs to begin
// from. The node whose entry made the log so long is the one that saves. If it cannot, nobody does
// until the log has grown by as much again.
package cluster
