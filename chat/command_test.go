package chat

// What belongs here: commands as text.

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCommandsAreReadAsTheyWereWritten(t *testing.T) {
	alice, err := ParseName("álicé-😀")
	if err != nil {
		t.Fatal(err)
	}
	hello, err := ParseText("hello\r\n\tthere: you\u2028there\n\n")
	if err != nil {
		t.Fatal(err)
	}
	all := []Command{
		{Do: Join, Name: alice},
		{Do: Leave, Name: alice},
		{Do: Say, Name: alice, Text: hello},
		{Do: Open, Name: alice},
		{Do: Shut, Name: alice, Visit: "epoch-12"},
		{Do: Look},
	}
	texts := []string{
		"join\x1fálicé-😀\x1e",
		"leave\x1fálicé-😀\x1e",
		"say\x1fálicé-😀\x1fhello\n\tthere: you\nthere\n\x1e",
		"open\x1fálicé-😀\x1e",
		"shut\x1fálicé-😀\x1fepoch-12\x1e",
		"look\x1e",
	}
	var text []byte
	for i, c := range all {
		before := bytes.Clone(text)
		text = c.AppendTo(text)
		if want := string(before) + texts[i]; string(text) != want {
			t.Fatalf("AppendTo of a command to %s makes %q, want %q", c.Do, text, want)
		}
		if got, err := ParseCommands(string(text)); err != nil || !slices.Equal(got, all[:i+1]) {
			t.Errorf("ParseCommands(%q) = %v, %v, want %v", text, got, err, all[:i+1])
		}
	}
	if none, err := ParseCommands(""); err != nil || len(none) > 0 {
		t.Errorf("ParseCommands of nothing = %v, %v", none, err)
	}
}

// TestParseCommandsTakesWhatAnotherVersionKnows gives it what ParseName and ParseText refuse, but
// what no client can take for anything else.
func TestParseCommandsTakesWhatAnotherVersionKnows(t *testing.T) {
	for _, s := range []string{
		"join\x1f\u3164\x1e",
		"join\x1f" + strings.Repeat("x", MaxName+1) + "\x1e",
		"say\x1falice\x1f" + strings.Repeat("x\n", MaxText) + "\x1e",
		"say\x1falice\x1f\x1b[1m\x1e",
		"shut\x1falice\x1fno id\x1e",
	} {
		if c, err := ParseCommands(s); err != nil || len(c) != 1 {
			t.Errorf("ParseCommands(%.50q) = %.50v, %v", s, c, err)
		}
	}
}

func TestParseCommandsRefusesWhatCouldBeTakenForSomethingElse(t *testing.T) {
	refused := []string{
		"look", "look\x1elook", "\x1e", "look\x1e\x1e", "\x1f\x1e", "look\x1f\x1e", "LOOK\x1e", "shout\x1falice\x1e",
		"join\x1e", "join\x1f\x1e", "join\x1falice\x1fbob\x1e", "say\x1falice\x1e", "say\x1f\x1fhello\x1e",
		"say\x1falice\x1fhello\x1fbob\x1e", "open\x1f\x1e", "leave\x1f\x1e", "shut\x1falice\x1e", "shut\x1f\x1fepoch-1\x1e",
		"shut\x1falice\x1fepoch-1\x1f\x1e", "join\x1f\xff\x1e", "say\x1falice\x1f\xff\x1e", "shut\x1falice\x1f\xff\x1e",
		" look\x1e", "look \x1e", "look\n\x1e", "join\x1fbob disconnected\x1e",
	}
	for _, end := range []string{"\n", "\r", "\r\n", "\v", "\f", "\u0085", "\u2028", "\u2029"} {
		for _, name := range []string{end, end + "alice", "al" + end + "ice", "alice" + end} {
			for _, verb := range []Verb{Join, Leave, Open} {
				refused = append(refused, string(verb)+"\x1f"+name+"\x1e")
			}
			refused = append(refused, "say\x1f"+name+"\x1fhello\x1e", "shut\x1f"+name+"\x1fepoch-1\x1e")
			if end != "\n" { // which separates the lines of a text
				refused = append(refused, "say\x1falice\x1f"+name+"\x1e")
			}
		}
	}
	for _, s := range refused {
		for _, s := range []string{s, "look\x1e" + s} {
			c, err := ParseCommands(s)
			if err == nil {
				t.Errorf("ParseCommands(%q) = %q, and no error", s, c)
			} else if message := err.Error(); len(c) > 0 || !utf8.ValidString(message) ||
				strings.ContainsAny(message, "\n\r\x1e\x1f") {
				t.Errorf("ParseCommands(%q) = %q, %v", s, c, err)
			}
		}
	}
	_, err := ParseCommands(strings.Repeat("long", 100_000))
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("ParseCommands of a long text: the error is no short sentence: %.300v", err)
	}
}

// FuzzParseCommands writes what it has read, which must be the same, and looks for a name or a text
// that a client could take for several lines.
func FuzzParseCommands(f *testing.F) {
	for _, s := range []string{
		"", "look\x1e", "join\x1falice\x1eleave\x1falice\x1e", "say\x1falice\x1fhello\nthere\x1e", "open\x1falice\x1e",
		"shut\x1falice\x1fepoch-12\x1e", "say\x1fal\nice\x1fhello\x1e", "say\x1falice\x1fhello\r\x1e", "join\x1f\xff\x1e",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		commands, err := ParseCommands(s)
		if err != nil {
			if len(commands) > 0 || !utf8.ValidString(err.Error()) {
				t.Errorf("ParseCommands(%q) = %q, %q", s, commands, err)
			}
			return
		}
		var written []byte
		for _, c := range commands {
			written = c.AppendTo(written)
			name, text := c.Name.String(), c.Text.String()
			isNamed := c.Do != Look
			if isNamed != (name != "") || c.Do != Say && text != "" || c.Do != Shut && c.Visit != "" {
				t.Errorf("ParseCommands(%q) has %q", s, c)
			}
			if !utf8.ValidString(name + text) {
				t.Errorf("ParseCommands(%q) has %q, which is not UTF-8", s, c)
			}
			if strings.ContainsAny(name, "\n\r\v\f\u0085\u2028\u2029\x1e\x1f") ||
				strings.ContainsAny(text, "\r\v\f\u0085\u2028\u2029\x1e\x1f") {
				t.Errorf("ParseCommands(%q) has %q, which could be taken for several lines", s, c)
			}
		}
		if string(written) != s {
			t.Errorf("ParseCommands(%q) was written as %q", s, written)
		}
	})
}
