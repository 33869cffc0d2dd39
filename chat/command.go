package chat

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Command is something that one of several hubs wants to happen in the chat. A command can be sent
// to other hubs as text; see AppendTo. The zero Command is no command.
type Command struct {
	Do    Verb
	Name  Name   // the user whom it is about; zero for Look
	Text  Text   // of Say: what the user says
	Visit string // of Shut: the id of the event with which the user arrived
}

// Verb says what a Command does.
type Verb string

// The verbs.
const (
	Join  Verb = "join"  // the user is there until Leave
	Leave Verb = "leave" // the user leaves, whatever holds it
	Say   Verb = "say"   // the user says Text
	Open  Verb = "open"  // a stream has opened, which holds the user
	Shut  Verb = "shut"  // a stream no longer holds the user who came with Visit
	Look  Verb = "look"  // nothing; whoever waits for it knows what came before it
)

// What separates commands and their fields. Neither can be in a name or a text.
const (
	commandEnd = "\x1e" // ASCII: record separator
	fieldEnd   = "\x1f" // ASCII: unit separator
)

// otherBreaks is what a client could take for the end of a line, besides "\n".
const otherBreaks = "\r\v\f\u0085\u2028\u2029"

// AppendTo appends the command as text: its verb and fields, separated by U+001F, and U+001E at the
// end.
func (c Command) AppendTo(b []byte) []byte {
	b = append(b, c.Do...)
	switch c.Do {
	case Look:
	case Say:
		b = append(append(b, fieldEnd+c.Name.name+fieldEnd...), c.Text.text...)
	case Shut:
		b = append(append(b, fieldEnd+c.Name.name+fieldEnd...), c.Visit...)
	default:
		b = append(b, fieldEnd+c.Name.name...)
	}
	return append(b, commandEnd...)
}

// ParseCommands returns the commands of which s is the text. Names and texts were checked when the
// commands were made. ParseCommands does not check them by the rules of ParseName and ParseText,
// because two versions of the program may know different characters, and all hubs must read the
// same. But it refuses what could be taken for another event or another command.
func ParseCommands(s string) ([]Command, error) {
	commands := make([]Command, 0, strings.Count(s, commandEnd))
	for line := range strings.SplitAfterSeq(s, commandEnd) {
		if line == "" { // after the last separator
			continue
		}
		line, whole := strings.CutSuffix(line, commandEnd)
		fields := strings.Split(line, fieldEnd)
		if !whole || !utf8.ValidString(line) || len(fields) != fieldsOf(Verb(fields[0])) {
			return nil, fmt.Errorf("%.100q is no command", line)
		}
		c := Command{Do: Verb(fields[0])}
		if len(fields) > 1 {
			c.Name = Name{fields[1]}
		}
		if len(fields) > 2 && c.Do == Say {
			c.Text = Text{fields[2]}
		} else if len(fields) > 2 {
			c.Visit = fields[2]
		}
		if c.Do != Look && (c.Name.name == "" || strings.ContainsAny(c.Name.name, otherBreaks+"\n ")) ||
			strings.ContainsAny(c.Text.text, otherBreaks) {
			return nil, fmt.Errorf("%.100q is a command with a name or a text that nobody can have", line)
		}
		commands = append(commands, c)
	}
	return commands, nil
}

// fieldsOf returns how many fields a command has, its verb included; -1 if there is no such verb.
func fieldsOf(verb Verb) int {
	switch verb {
	case Look:
		return 1
	case Join, Leave, Open:
		return 2
	case Say, Shut:
		return 3
	}
	return -1
}
