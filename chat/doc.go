// Package chat holds the words of a chat: the names of its users, the texts
// that they say, the sorted list of who is there, and the commands that make
// several hubs one chat.
//
// # Names and texts
//
// Only [ParseName] and [ParseText] make a [Name] or a [Text], so whoever is given
// one need not check it. A name can be seen, has no white space and stands on one
// line. A text has at most [MaxLines] lines, and none of its characters can make
// a client see another line. What is refused is refused with a sentence for the
// user.
//
//	alice, err := chat.ParseName("alice")
//	hello, err := chat.ParseText("hello\r\nthere\r\n") // "hello\nthere"
//	_, err = chat.ParseName("Alice A.") // the name contains U+0020, which is white space; …
//
// # Commands and turns
//
// What somebody wants to happen in a chat is a [Command]. A hub that is alone
// carries it out at once. Several hubs first agree on one order of all commands,
// and each of them is given what happens in that order, [Turn] by turn. They get
// the same turns, so they come to the same state. This package knows how a command
// is written as text, and what a [State] is made of; package cluster knows how the
// order comes about.
package chat
