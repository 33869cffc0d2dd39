// Package chat holds the words of a chat: the names of its users, the texts
// that they say, and the sorted list of who is here.
//
// A [Name] and a [Text] exist only if they follow the rules. [ParseName] and
// [ParseText] are the only ways to make them, so whoever is given one need not
// check it again: it is valid UTF-8, no name hides in white space or looks like
// nothing, and no text can forge a line.
package chat
