// Package cluster makes the hubs of several machines one lobby.
//
// A hub applies commands in one order. On a single machine, that is the order in which it receives
// them. On several machines, it is the order of a log (package etcd) that all of them read:
//
//	   hub ──commands──▶ Node ──entries──▶ ┌─────┐ ──entries──▶ Node ──steps──▶ the same hub
//	                                       │ log │
//	another hub ──▶ another Node ────────▶ └─────┘ ────────────▶ another Node ──▶ the other hub
//
// A [Node] connects a hub with the log. It gathers the hub's commands in entries, and appends one
// entry after another. It reads all entries, its own and those of other nodes, and gives its hub
// what they say about users, as steps (package room). All hubs apply the same commands and removals
// in the same order, so they have the same users, events and ids.
//
// # How a node starts and ends
//
// Every node has a unique name. Its first entry, the registration, makes it known. From then on it
// appends at least one entry a second, its heartbeat, which may be empty. A node declares another
// one dead when 12 of its own heartbeats have come out of the log since the other's last entry. It
// then appends the removal of the dead node. The removal counts only if the dead node has appended
// nothing since. The entries of a removed node are ignored. So a node ends at the same place in the
// order for every hub, and no clocks are compared. While the log cannot be reached, no heartbeats
// come out of it, and no node is declared dead.
//
// A node ends when it reads its own removal, when its own entries do not come back, when someone
// else writes in its name, when the log was emptied or restored from a backup, or when the node
// cannot read the next entry or the snapshot. The process then starts another node; see [Lobby].
//
// # Epochs
//
// The first node of a lobby puts the settings key in etcd, lobby/lobby, which holds the epoch of
// the lobby's event ids. After etcd is restored from a backup, ids would be used again, for other
// events. So a node whose process has seen entries that the log now lacks says so in its
// registration, and the history starts over in a new epoch. The same happens if an operator removes
// the settings key and a node puts another one.
//
// # Snapshots
//
// To keep the log short, a node saves a snapshot of its hub's state whenever the log has grown by 4
// MiB, or by the size of the last snapshot if that is more. It removes entries that no node needs
// any more. The node whose entry makes the log that large saves the snapshot. No other node saves
// one until an entry of that node says how large the snapshot is, or that saving failed, or until
// that node is removed. So all nodes agree when another one is due. If saving fails, the next one
// is due when the log has grown by as much again.
//
// A running node also learns that someone has changed or removed an entry by hand. It has applied
// that entry already, but a node that starts can no longer read it. So running nodes make a
// snapshot due at once.
package cluster
