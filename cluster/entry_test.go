package cluster

// What belongs here: entries as text.

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"lobby/room"
)

// parse parses text as the entry of a node with this number.
func parse(text string, number int) (content, error) {
	if number == 1 {
		return parseFirst(text)
	}
	return parseNext(text)
}

func TestEntryIsReadAsItWasWritten(t *testing.T) {
	text := "say\x1falice\x1fhello\n\tthere: you\x1e" + "sync\x1e" + "release\x1fbob\x1f12\x1e"
	commands, err := room.ParseCommands(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		number  int
		content content
		text    string
	}{
		{1, content{registration: registration{"lost", "epoch"}}, "register\x1f2\x1flost\x1fepoch\x1e"},
		{1, content{registration: registration{"", "e"}}, "register\x1f2\x1f\x1fe\x1e"},
		{2, content{commands: []room.Command{}}, ""},
		{2, content{commands: commands}, text},
		{2, content{saved: 12, damaged: 34, removals: []removal{{"a", 1}}, commands: commands},
			"saved\x1f12\x1e" + "damaged\x1f34\x1e" + "remove\x1fa\x1f1\x1e" + text},
		{2, content{removals: []removal{{"a", 1}, {"b", 12}}, commands: commands},
			"remove\x1fa\x1f1\x1e" + "remove\x1fb\x1f12\x1e" + text},
	} {
		if got := string(test.content.appendTo(nil)); got != test.text {
			t.Errorf("the entry is written %q, want %q", got, test.text)
		}
		if got, err := parse(test.text, test.number); err != nil || !reflect.DeepEqual(got, test.content) {
			t.Errorf("%q is read as %v, %v, want %v", test.text, got, err, test.content)
		}
	}
}

// An invalid epoch would get into the ids of all streams, and into snapshots that no node could
// restore.
func TestInvalidEpochIsRejected(t *testing.T) {
	for _, epoch := range []string{
		"", "a-b", "a b", "a\ndata: User bob connected to the chat.", "A", "é", "\xff",
		strings.Repeat("e", 65),
	} {
		if _, err := parseFirst(registrationText("first", epoch)); err == nil {
			t.Errorf("a registration may have the epoch %q", epoch)
		}
		key := fmt.Sprintf(`{"version":2,"epoch":%q,"history":10,"maxUsers":20}`, epoch)
		if _, err := check(key, settings); err == nil {
			t.Errorf("the settings key may have the epoch %q", epoch)
		}
	}
}

func TestGarbageIsNotAnEntry(t *testing.T) {
	for _, text := range garbage {
		for number := 1; number <= 2; number++ {
			if c, err := parse(text, number); err == nil {
				t.Errorf("%q is read as %v", text, c)
			} else if message := err.Error(); strings.Contains(message, "\n") || len(message) > 500 {
				t.Errorf("%q: the error is not a short sentence: %q", text, message)
			}
		}
	}
}

// FuzzParse writes what it has read, and reads that.
func FuzzParse(f *testing.F) {
	for _, text := range append(garbage,
		"", registered(), registrationText("lost", "epoch"), "join\x1falice\x1eleave\x1falice\x1e",
		"saved\x1f1\x1edamaged\x1f7\x1e"+removalText("abc", 12)+said("hello\nthere")+"open\x1falice\x1erelease\x1falice\x1f12\x1esync\x1e",
	) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for number := 1; number <= 2; number++ {
			c, err := parse(text, number)
			if err != nil {
				continue
			}
			written := string(c.appendTo(nil))
			if again, err := parse(written, number); err != nil || !reflect.DeepEqual(again, c) {
				t.Errorf("%q is read as %v, and that, written as %q, as %v, %v", text, c, written, again, err)
			}
			if isFirst := number == 1; isFirst != (c.epoch != "") || isFirst && len(c.removals)+len(c.commands) > 0 {
				t.Errorf("%q is read as %v, as entry %d", text, c, number)
			}
		}
	})
}
