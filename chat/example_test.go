// Here belongs the program of the package comment.
package chat_test

import (
	"fmt"
	"os"

	"lobby/chat"
)

func Example() {
	for _, s := range []string{"alice", "bob", "Alice A."} {
		name, err := chat.ParseName(s)
		fmt.Println(name, err)
	}
	text, err := chat.ParseText("hello\r\nthere\r\n")
	fmt.Printf("%q %v\n", text, err)

	var here chat.Roster
	here.Add("bob")
	here.Add("alice")
	list := here.Take()
	here.Add("carol") // list does not change
	for piece := range list.Pieces(chat.FormJSON) {
		os.Stdout.Write(piece)
	}
	if list.Long() {
		here.Release(list)
	}
	// Output:
	// alice <nil>
	// bob <nil>
	//  the name contains U+0020, which is white space; use "-" or "_" instead
	// "hello\nthere" <nil>
	// {"users":["alice","bob"]}
}
