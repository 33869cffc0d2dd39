// Package roster keeps the sorted names of a chat's users and lists them.
//
// One goroutine owns a [Roster]; it adds and removes names. For each request it takes a [List],
// which never changes, and hands it to the goroutine that serves the request. That goroutine sends
// the List while the owner continues:
//
//	var present roster.Roster
//	present.Add("bob")
//	present.Add("alice")
//	list := present.Take(roster.JSON)
//	present.Add("carol") // list does not change
//	for piece := range list.Pieces() {
//		os.Stdout.Write(piece) // {"users":["alice","bob"]}
//	}
//	list.Return()
//
// A List refers to the roster's chunks of names, which are replaced and not modified once a List
// has them. So taking a List is O(1), and two Lists share every chunk that did not change between
// them. The goroutine that sends a List writes its body, the owner never does. The bytes of a short
// List are written by its first sender and shared by all.
//
// Lists stay in memory while they are being sent, and a client may read slowly on purpose. So the
// owner knows which Lists are outstanding, from Take to [List.Return], and bounds what they retain
// by [MaxRetained]. It abandons the oldest long Lists: the channel of [List.Abandoned] is closed,
// and their senders must stop. And it makes no new short List while too many old ones are
// outstanding.
package roster
