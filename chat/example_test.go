package chat_test

// The code of the package comment belongs here, as a program.

import (
	"fmt"

	"lobby/chat"
)

func Example() {
	for _, s := range []string{"alice", "bob", "Alice A."} {
		name, err := chat.ParseName(s)
		fmt.Println(name, err)
	}
	text, err := chat.ParseText("hello\r\nthere\r\n")
	fmt.Printf("%q %v\n", text, err)
	// Output:
	// alice <nil>
	// bob <nil>
	//  the name contains U+0020, which is white space; use "-" or "_" instead
	// "hello\nthere" <nil>
}
