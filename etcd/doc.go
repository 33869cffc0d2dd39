// Package etcd keeps a log in etcd: entries that all who read them get in the same order, and that
// outlive every machine but a majority of the etcd servers.
//
// etcd is a map from keys to values that several servers keep alike. It counts its changes: the
// number of a change is its revision, and each key knows the revision of its last change. So a log
// needs nothing but keys. Entry 7 of the node n1 in the lobby called lobby is the key
// lobby/log/n1/7, which is never changed after it was put, and the entries in the order of their
// revisions are the log. Old revisions of keys are not needed, so nothing is lost when etcd forgets
// them (a compaction).
//
//	lobby/lobby       the settings, put by the first node; who put them anew began another log
//	lobby/log/n1/7    entry 7 of the node n1
//	lobby/nodes/n1    the number of the last entry of the node n1
//	lobby/state       which saved state is the newest, so that not all entries need be kept
//	lobby/state/ID/1  the first piece of the saved state ID
//
// Five calls are all there is to it. etcd takes them as HTTP with JSON, in which keys and values
// are base64: bG9iYnkvbG9nLw== is lobby/log/, and bG9iYnkvbG9nMA== is lobby/log0, where the keys
// that begin with lobby/log/ end.
//
// Appending is a transaction. If the node has put no entry yet (else: exactly n-1 entries), it puts
// the entry and the node's number together. So whatever becomes of the answer, the same transaction
// can be sent again, to any server, at any time: the second one finds its condition false and
// changes nothing. The answer says so, and with which revision the entry stands in the log. The
// first entry of a node has a second condition, that lobby/state is as the node has seen it, because
// the node's key may be gone when the transaction comes again.
//
//	curl http://127.0.0.1:2379/v3/kv/txn -d '{
//	  "compare": [{"target": "VERSION", "key": "bG9iYnkvbm9kZXMvbjE=", "version": 0},
//	              {"target": "MOD", "key": "bG9iYnkvc3RhdGU=", "mod_revision": 0}],
//	  "success": [{"request_put": {"key": "bG9iYnkvbG9nL24xLzE=", "value": "aGVsbG8="}},
//	              {"request_put": {"key": "bG9iYnkvbm9kZXMvbjE=", "value": "MQ=="}}],
//	  "failure": [{"request_range": {"key": "bG9iYnkvbm9kZXMvbjE="}}]}'
//
// Reading is a range, sorted by revision, of what is there:
//
//	curl http://127.0.0.1:2379/v3/kv/range -d '{
//	  "key": "bG9iYnkvbG9nLw==", "range_end": "bG9iYnkvbG9nMA==", "min_mod_revision": 1,
//	  "sort_target": "MOD", "sort_order": "ASCEND", "limit": 64}'
//
// and then a watch of what comes, from the revision after the one in the range's answer. A watch is
// an answer without an end, a line for each few entries:
//
//	curl -N http://127.0.0.1:2379/v3/watch -d '{"create_request": {
//	  "key": "bG9iYnkvbG9nLw==", "range_end": "bG9iYnkvbG9nMA==", "start_revision": 2}}'
//
// A watch that breaks, for whatever reason, is followed by a range and another watch at the next
// server. A watch that falls silent shows in what Append gets: entries that the watch does not
// bring.
//
// Now and then somebody saves a state, which is what the entries up to some revision lead to. Then
// those that came before the former state are removed, and etcd forgets that they were there:
//
//	curl http://127.0.0.1:2379/v3/kv/compaction -d '{"revision": 2}'
//
// If etcd has users, a header Authorization of each call is a token, which this call gets:
//
//	curl http://127.0.0.1:2379/v3/auth/authenticate -d '{"name": "alice", "password": "secret"}'
//
// No goroutine shares anything but two channels. Append, Save and Entries each have a client, which
// asks one server (an endpoint) until it fails or lets it wait, and then the next. The channels say
// how far etcd has come: no answer may be older than what was seen before, or etcd was restored from
// a backup.
package etcd
