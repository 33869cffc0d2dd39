// Package etcd keeps a log in etcd. All readers get its entries in the same order, and the entries
// survive as long as a majority of the etcd servers does.
//
// etcd is a replicated key-value store. It numbers its changes: the number of a change is its
// revision, and each key records the revision of its last change. So a log needs nothing but keys.
// Entry 7 of the node n1 in the lobby called lobby is the key lobby/log/n1/7, which never changes,
// and the log is these keys in the order of their revisions. It needs no old revisions of keys, so
// nothing is lost when etcd discards those (a compaction).
//
// If someone changes or removes an entry by hand, the nodes that run have read it already. A node
// that starts compares what it reads with each node's count of entries, and so finds that something
// is missing. Then it has to wait for a snapshot.
//
//	lobby/lobby       the settings key, put by the first node; recreating it starts a new epoch
//	lobby/log/n1/7    entry 7 of the node n1
//	lobby/nodes/n1    the count of the entries that the node n1 has put
//	lobby/state       says which snapshot is the newest, so that older entries can be removed
//	lobby/copy        a copy of lobby/state, in case someone changes that
//	lobby/state/ID/1  the first piece of the snapshot ID
//
// The package uses five calls. Their form is JSON over HTTP, with keys and values in base64:
// bG9iYnkvbG9nLw== is lobby/log/, and bG9iYnkvbG9nMA== is lobby/log0, the end of the range of keys
// that begin with lobby/log/.
//
// Appending is a transaction. If the node has put exactly n-1 entries so far, the transaction puts
// entry n and the node's new count. It is therefore idempotent: if a response is lost, the same
// transaction can be sent again, to any server, at any time. If it has been carried out before, its
// condition now fails, it changes nothing, and the response gives the entry's revision. There are
// two more conditions: lobby/lobby is still the key that the node has read, so the log is the same,
// and nobody else has put the entry's key. A node's first entry also requires that lobby/state is
// as the node has read it. Otherwise a late repetition could register a removed node again, because
// a snapshot removes the node's count.
//
//	curl http://127.0.0.1:2379/v3/kv/txn -d '{
//	  "compare": [{"target": "CREATE", "key": "bG9iYnkvbG9iYnk=", "create_revision": 2},
//	              {"target": "VERSION", "key": "bG9iYnkvbm9kZXMvbjE=", "version": 0},
//	              {"target": "VERSION", "key": "bG9iYnkvbG9nL24xLzE=", "version": 0},
//	              {"target": "MOD", "key": "bG9iYnkvc3RhdGU=", "mod_revision": 0}],
//	  "success": [{"request_put": {"key": "bG9iYnkvbG9nL24xLzE=", "value": "aGVsbG8="}},
//	              {"request_put": {"key": "bG9iYnkvbm9kZXMvbjE=", "value": "MQ=="}}],
//	  "failure": [{"request_range": {"key": "bG9iYnkvbm9kZXMvbjE="}}]}'
//
// Reading begins with ranges, sorted by revision, which return the entries so far:
//
//	curl http://127.0.0.1:2379/v3/kv/txn -d '{"success": [{"request_range": {
//	  "key": "bG9iYnkvbG9nLw==", "range_end": "bG9iYnkvbG9nMA==", "min_mod_revision": 1,
//	  "sort_target": "MOD", "sort_order": "ASCEND", "limit": 64}}]}'
//
// It continues with a watch, from the revision after that of the last response. The response to a
// watch has no end. It has one line for every few entries:
//
//	curl -N http://127.0.0.1:2379/v3/watch -d '{"create_request": {
//	  "key": "bG9iYnkvbG9nLw==", "range_end": "bG9iYnkvbG9nMA==", "start_revision": 2}}'
//
// A watch that breaks, for whatever reason, is followed by a range and a watch at the next server.
// That watch begins where the last one ended, because a range does not show what was removed. A
// stalled watch is noticed because it does not deliver what Append knows to be in the log.
//
// From time to time a node saves a snapshot, the state that the entries up to some revision lead
// to. Then the entries before the previous snapshot are removed. Before the next snapshot, etcd
// discards what was removed:
//
//	curl http://127.0.0.1:2379/v3/kv/compaction -d '{"revision": 2}'
//
// Before a node starts, it asks each server to which etcd cluster it belongs:
//
//	curl http://127.0.0.1:2379/v3/maintenance/status -d '{}'
//
// If etcd has users, each call carries a token in its Authorization header. This call returns one:
//
//	curl http://127.0.0.1:2379/v3/auth/authenticate -d '{"name": "alice", "password": "secret"}'
//
// The goroutines share only three channels. Append, SaveSnapshot and Entries each have a client
// that sends its requests to one server (an endpoint) until that fails or is slow, and then to the
// next. Two channels carry how far etcd has come: a response that is older than an earlier one
// shows that etcd was restored from a backup. The third has what is known about each endpoint.
package etcd
