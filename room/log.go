package room

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"lobby/chat"
)

// In the text of commands, RecordEnd ends each record, and FieldSeparator separates its fields. No
// name and no message contains either.
const (
	RecordEnd      = "\x1e" // ASCII: record separator
	FieldSeparator = "\x1f" // ASCII: unit separator
)

// lineBreaks are the characters that a client could take for the end of a line. A message may
// contain the first.
const lineBreaks = "\n\r\v\f\u0085\u2028\u2029"

// AppendTo appends the command as text: its verb and fields, separated by FieldSeparator, and
// RecordEnd.
func (c Command) AppendTo(b []byte) []byte {
	switch c.Verb {
	case Watch, List, Sync:
		b = append(b, Sync...)
	default:
		b = append(append(b, c.Verb+FieldSeparator...), c.Name.String()...)
	}
	switch c.Verb {
	case Say:
		b = append(append(b, FieldSeparator...), c.Text.String()...)
	case Release:
		b = strconv.AppendUint(append(b, FieldSeparator...), c.Arrival, 10)
	}
	return append(b, RecordEnd...)
}

// ParseCommands parses the text of any number of commands. It does not apply the rules of
// chat.ParseName and chat.ParseText once more: two versions of this program may know different
// characters, and all nodes must read the same. It rejects only what could be taken for another
// event or another command.
func ParseCommands(s string) ([]Command, error) {
	commands := make([]Command, 0, strings.Count(s, RecordEnd))
	for len(s) > 0 {
		record, rest, isWhole := strings.Cut(s, RecordEnd)
		c, ok := parseCommand(record)
		if !isWhole || !ok {
			return nil, fmt.Errorf("%.100q is not a valid command", record)
		}
		commands = append(commands, c)
		s = rest
	}
	return commands, nil
}

func parseCommand(record string) (c Command, ok bool) {
	if !utf8.ValidString(record) {
		return c, false
	}
	fields := strings.Split(record, FieldSeparator)
	c.Verb, fields = Verb(fields[0]), fields[1:]
	if c.Verb == Sync {
		return c, len(fields) == 0
	}
	if len(fields) == 0 || !isName(fields[0]) {
		return c, false
	}
	c.Name, fields = chat.UncheckedName(fields[0]), fields[1:]
	switch c.Verb {
	case Join, Leave, Open:
		return c, len(fields) == 0
	case Say:
		if len(fields) != 1 || strings.ContainsAny(fields[0], lineBreaks[1:]) {
			return c, false
		}
		c.Text = chat.UncheckedText(fields[0])
		return c, true
	case Release:
		if len(fields) != 1 {
			return c, false
		}
		arrival, err := strconv.ParseUint(fields[0], 10, 64)
		c.Arrival = arrival
		// Only the canonical form is valid, so no leading zeros.
		return c, err == nil && strconv.FormatUint(arrival, 10) == fields[0]
	}
	return c, false
}

// isName reports whether s can be a user's name, at least for another version of this program.
func isName(s string) bool {
	isControlOrSpace := func(c rune) bool { return c <= ' ' }
	return s != "" && utf8.ValidString(s) && !strings.ContainsAny(s, lineBreaks) &&
		!strings.ContainsFunc(s, isControlOrSpace)
}
