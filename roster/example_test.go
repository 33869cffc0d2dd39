// Here belongs the program of the package comment.
package roster_test

import (
	"os"

	"lobby/roster"
)

func Example() {
	var here roster.Roster
	here.Add("bob")
	here.Add("alice")
	list := here.Take()
	here.Add("carol") // list does not change
	for piece := range list.Pieces(roster.FormJSON) {
		os.Stdout.Write(piece)
	}
	if list.Long() {
		here.Release(list)
	}
	// Output:
	// {"users":["alice","bob"]}
}
