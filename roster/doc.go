// Package roster keeps the sorted list of a chat's users, and hands out versions of it that never change.
//
// One goroutine owns a [Roster], to which it adds names and from which it removes
// them. Whenever somebody asks who is there, it takes a [List] and hands it to that
// somebody's goroutine, which sends it while the owner goes on:
//
//	var here roster.Roster
//	here.Add("bob")
//	here.Add("alice")
//	list := here.Take()
//	here.Add("carol") // list does not change
//	for piece := range list.Pieces(roster.FormJSON) {
//		os.Stdout.Write(piece) // {"users":["alice","bob"]}
//	}
//
// The roster keeps its names in chunks that are replaced and not changed, so that
// taking a List takes no time, however many names there are, and two Lists share
// all chunks in which nothing changed from one to the other.
//
// What differs does take memory for as long as a List is being sent, and a client
// may read slowly on purpose. So the owner counts the senders of each long List,
// from Take to [Roster.Release], and what the Lists that are being sent keep
// beside the roster as it is now. If that would be more than [MaxOld], it gives up
// the oldest: [List.Context] is done, and the List's senders must stop.
package roster
