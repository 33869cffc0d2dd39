package room

// Commands as text.

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"lobby/chat"
)

func TestCommandsAreReadAsTheyWereWritten(t *testing.T) {
	alice := chat.UncheckedName("álicé-😀")
	hello := chat.UncheckedText("hello\n\tthere: you\nthere\n")
	var all []Command
	var written, want string
	for _, test := range []struct {
		command Command
		text    string
	}{
		{Command{Verb: Join, Name: alice}, "join\x1fálicé-😀\x1e"},
		{Command{Verb: Leave, Name: alice}, "leave\x1fálicé-😀\x1e"},
		{Command{Verb: Say, Name: alice, Text: hello},
			"say\x1fálicé-😀\x1fhello\n\tthere: you\nthere\n\x1e"},
		{Command{Verb: Open, Name: alice}, "open\x1fálicé-😀\x1e"},
		{Command{Verb: Release, Name: alice, Arrival: 12}, "release\x1fálicé-😀\x1f12\x1e"},
		{Command{Verb: Sync}, "sync\x1e"},
	} {
		all, want = append(all, test.command), want+test.text
		if written = string(test.command.AppendTo([]byte(written))); written != want {
			t.Fatalf("AppendTo of %s makes %q, want %q", test.command.Verb, written, want)
		}
		if got, err := ParseCommands(written); err != nil || !slices.Equal(got, all) {
			t.Errorf("ParseCommands(%q) = %v, %v, want %v", written, got, err, all)
		}
	}
	for _, verb := range []Verb{Watch, List} {
		if text := string(Command{Verb: verb, LastEventID: "a-1"}.AppendTo(nil)); text != "sync\x1e" {
			t.Errorf("in the log, %s is %q, want a sync", verb, text)
		}
	}
	if none, err := ParseCommands(""); err != nil || len(none) > 0 {
		t.Errorf("ParseCommands of nothing = %v, %v", none, err)
	}
}

// Names and messages that this version rejects, but that no client can take for something else.
func TestParseCommandsAcceptsWhatAnotherVersionMayKnow(t *testing.T) {
	for _, s := range []string{
		"join\x1f\u3164\x1e",
		"join\x1f" + strings.Repeat("x", chat.MaxName+1) + "\x1e",
		"say\x1falice\x1f" + strings.Repeat("x\n", chat.MaxText) + "\x1e",
		"say\x1falice\x1f\x1b[1m\x1e",
	} {
		if c, err := ParseCommands(s); err != nil || len(c) != 1 {
			t.Errorf("ParseCommands(%.50q) = %.50v, %v", s, c, err)
		}
	}
}

func TestParseCommandsRejectsWhatCouldBeTakenForSomethingElse(t *testing.T) {
	rejected := []string{
		"sync", "sync\x1esync", "\x1e", "sync\x1e\x1e", "\x1f\x1e", "sync\x1f\x1e", "SYNC\x1e", "shout\x1falice\x1e",
		"join\x1e", "join\x1f\x1e", "join\x1falice\x1fbob\x1e", "say\x1falice\x1e", "say\x1f\x1fhello\x1e",
		"say\x1falice\x1fhello\x1fbob\x1e", "open\x1f\x1e", "leave\x1f\x1e", "release\x1falice\x1e", "release\x1f\x1f1\x1e",
		"release\x1falice\x1f1\x1f\x1e", "release\x1falice\x1f01\x1e", "release\x1falice\x1f-1\x1e",
		"release\x1falice\x1f\x1e", "join\x1f\xff\x1e", "say\x1falice\x1f\xff\x1e", "release\x1falice\x1f\xff\x1e",
		" sync\x1e", "sync \x1e", "sync\n\x1e", "join\x1fbob disconnected\x1e",
	}
	for _, end := range []string{"\n", "\r", "\r\n", "\v", "\f", "\u0085", "\u2028", "\u2029"} {
		for _, name := range []string{end, end + "alice", "al" + end + "ice", "alice" + end} {
			for _, verb := range []Verb{Join, Leave, Open} {
				rejected = append(rejected, string(verb)+"\x1f"+name+"\x1e")
			}
			rejected = append(rejected, "say\x1f"+name+"\x1fhello\x1e", "release\x1f"+name+"\x1f1\x1e")
			if end != "\n" { // it separates the lines of a text
				rejected = append(rejected, "say\x1falice\x1f"+name+"\x1e")
			}
		}
	}
	for _, s := range rejected {
		for _, s := range []string{s, "sync\x1e" + s} {
			c, err := ParseCommands(s)
			if err == nil {
				t.Errorf("ParseCommands(%q) = %v, and no error", s, c)
			} else if message := err.Error(); len(c) > 0 || !utf8.ValidString(message) ||
				strings.ContainsAny(message, "\n\r\x1e\x1f") {
				t.Errorf("ParseCommands(%q) = %v, %v", s, c, err)
			}
		}
	}
	_, err := ParseCommands(strings.Repeat("long", 100_000))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("ParseCommands of a long text: the error is not a short sentence: %.300v", err)
	}
}

// FuzzParseCommands writes what it has read, which must be the same text, and looks for a name or a
// text that a client could take for several lines.
func FuzzParseCommands(f *testing.F) {
	for _, s := range []string{
		"", "sync\x1e", "join\x1falice\x1eleave\x1falice\x1e", "say\x1falice\x1fhello\nthere\x1e", "open\x1falice\x1e",
		"release\x1falice\x1f12\x1e", "say\x1fal\nice\x1fhello\x1e", "say\x1falice\x1fhello\r\x1e", "join\x1f\xff\x1e",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		commands, err := ParseCommands(s)
		if err != nil {
			if len(commands) > 0 || !utf8.ValidString(err.Error()) {
				t.Errorf("ParseCommands(%q) = %v, %q", s, commands, err)
			}
			return
		}
		var written []byte
		for _, c := range commands {
			written = c.AppendTo(written)
			name, text := c.Name.String(), c.Text.String()
			isNamed := c.Verb != Sync
			if isNamed != (name != "") || c.Verb != Say && text != "" || c.Verb != Release && c.Arrival != 0 {
				t.Errorf("ParseCommands(%q) has %v", s, c)
			}
			if !utf8.ValidString(name + text) {
				t.Errorf("ParseCommands(%q) has %v, which is not UTF-8", s, c)
			}
			if strings.ContainsAny(name, "\n\r\v\f\u0085\u2028\u2029\x1e\x1f") ||
				strings.ContainsAny(text, "\r\v\f\u0085\u2028\u2029\x1e\x1f") {
				t.Errorf("ParseCommands(%q) has %v, which could be taken for several lines", s, c)
			}
		}
		if string(written) != s {
			t.Errorf("ParseCommands(%q) was written as %q", s, written)
		}
	})
}
