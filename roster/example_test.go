package roster_test

// The program of the package comment belongs here.

import (
	"os"

	"lobby/roster"
)

func Example() {
	var present roster.Roster
	present.Add("bob")
	present.Add("alice")
	list := present.Take(roster.JSON)
	present.Add("carol") // list does not change
	for piece := range list.Pieces() {
		os.Stdout.Write(piece)
	}
	list.Return()
	// Output:
	// {"users":["alice","bob"]}
}
