// Package chat defines the names of a chat's users and the messages that they send.
//
// [ParseName] and [ParseText] check what arrives, so code that is given a [Name] or a [Text] need
// not check it again. A name is visible, has no white space and fits on one line. A text has at
// most [MaxLines] lines, separated by "\n", and nothing else in it could be taken for a line break.
// Errors are sentences for the user.
//
//	alice, err := chat.ParseName("alice")
//	hello, err := chat.ParseText("hello\r\nthere\r\n") // "hello\nthere"
//	_, err = chat.ParseName("Alice A.") // the name contains U+0020, which is white space; …
package chat
