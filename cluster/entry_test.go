package cluster

// What belongs here: entries as text.

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lobby/chat"
)

// textOf returns the text of an entry that says this.
func textOf(all []news, commands []chat.Command) string {
	var b []byte
	for _, n := range all {
		b = n.appendTo(b)
	}
	for _, c := range commands {
		b = c.AppendTo(b)
	}
	return string(b)
}

func TestEntryIsReadAsItWasWritten(t *testing.T) {
	hello, text := news{version: version, lost: "lost", epoch: "epoch"}, "hello\n\tthere: you"
	say, err := chat.ParseCommands(said(text) + "look\x1e" + "shut\x1fbob\x1fepoch-12\x1e")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		news     []news
		commands []chat.Command
		text     string
	}{
		{text: ""},
		{news: []news{hello}, text: "hello\x1f1\x1flost\x1fepoch\x1e"},
		{news: []news{{version: version, epoch: "e"}}, text: "hello\x1f1\x1f\x1fe\x1e"},
		{news: []news{{burial: "abc", last: 12}}, text: "bury\x1fabc\x1f12\x1e"},
		{commands: say, text: "say\x1falice\x1f" + text + "\x1elook\x1eshut\x1fbob\x1fepoch-12\x1e"},
		{news: []news{{burial: "a", last: 1}, {burial: "b", last: 2}, hello}, commands: say,
			text: "bury\x1fa\x1f1\x1ebury\x1fb\x1f2\x1ehello\x1f1\x1flost\x1fepoch\x1e" +
				"say\x1falice\x1f" + text + "\x1elook\x1eshut\x1fbob\x1fepoch-12\x1e"},
	} {
		if got := textOf(test.news, test.commands); got != test.text {
			t.Errorf("the entry is written %q, want %q", got, test.text)
		}
		all, commands, err := parse(test.text)
		if err != nil || !slices.Equal(all, test.news) || !slices.Equal(commands, test.commands) {
			t.Errorf("%q is read as %v and %v, %v, want %v and %v",
				test.text, all, commands, err, test.news, test.commands)
		}
	}
}

func TestHelloOfALaterVersionMaySayMore(t *testing.T) {
	all, commands, err := parse("hello\x1f2\x1flost\x1fepoch\x1fmore\x1fand more\x1e")
	want := []news{{version: 2, lost: "lost", epoch: "epoch"}}
	if err != nil || !slices.Equal(all, want) || len(commands) > 0 {
		t.Errorf("it is read as %v and %v, %v, want %v", all, commands, err, want)
	}
}

func TestGarbageIsNoEntry(t *testing.T) {
	for _, text := range garbage {
		if all, commands, err := parse(text); err == nil {
			t.Errorf("%q is read as %v and %v", text, all, commands)
		} else if message := err.Error(); strings.Contains(message, "\n") || len(message) > 500 {
			t.Errorf("%q: the error is no short sentence: %q", text, message)
		}
	}
}

// FuzzParse writes what it has read, and reads that.
func FuzzParse(f *testing.F) {
	for _, text := range garbage {
		f.Add(text)
	}
	f.Add("")
	f.Add(greeting() + buryText("abc", 12) + said("hello\nthere"))
	f.Add(helloText(2, "lost", "epoch") + "join\x1falice\x1eleave\x1falice\x1e")
	f.Add("open\x1falice\x1eshut\x1falice\x1fepoch-12\x1elook\x1e")
	f.Fuzz(func(t *testing.T, text string) {
		all, commands, err := parse(text)
		if err != nil {
			return
		}
		written := textOf(all, commands)
		again, commandsAgain, err := parse(written)
		if err != nil || !slices.Equal(again, all) || !slices.Equal(commandsAgain, commands) {
			t.Errorf("%q is read as %v and %v, and that, written as %q, as %v and %v, %v",
				text, all, commands, written, again, commandsAgain, err)
		}
		for _, n := range all {
			if n.burial == "" && n.version < 1 || n.burial != "" && n.version != 0 {
				t.Errorf("%q is read as %v, which is neither a hello nor a burial", text, n)
			}
		}
		// A hub has every message of an entry stand as one event.
		for _, c := range commands {
			if reflect.ValueOf(c).IsZero() || strings.Contains(c.Name.String(), "\n") {
				t.Errorf("%q is read as the command %v", text, fmt.Sprintf("%q", c))
			}
		}
	})
}
