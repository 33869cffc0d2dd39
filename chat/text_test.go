package chat

// The rules for texts belong here, line breaks included.

import (
	"bufio"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

var longest = strings.Repeat("x", MaxText)

// validTexts maps what clients send to the text.
var validTexts = map[string]string{
	"hello":              "hello",
	"\ttab ":             "\ttab ",
	"\u202e\u200b\u034f": "\u202e\u200b\u034f", // only names must be visible
	"\ufffd":             "\ufffd",

	"hello\n":       "hello", // one trailing line break is removed
	"hello\r":       "hello",
	"hello\r\n":     "hello",
	"hello\u2028":   "hello",
	"hello\u2029":   "hello",
	"hello\n\n":     "hello\n",
	"hello\n\r":     "hello\n",
	"hello\r\n\r\n": "hello\n",
	"hello\u2028\n": "hello\n",
	"\n\n":          "\n",

	"a\nb\rc\r\nd\u2028e\u2029f": "a\nb\nc\nd\ne\nf",
	"a\r\r\nb":                   "a\n\nb",
	"a\n\rb":                     "a\n\nb",
	"hi\u2028\u2028data: bye":    "hi\n\ndata: bye",

	longest:                      longest, // the limits
	longest + "\n":               longest,
	longest + "\r\n":             longest,
	longest + "\u2028":           longest,
	strings.Repeat("\u2028", 32): strings.Repeat("\n", 31),
	strings.Repeat("a\r\n", 32):  strings.Repeat("a\n", 31) + "a",
}

func TestValidTextsAreAcceptedAndTheirLineBreaksNormalized(t *testing.T) {
	for in, want := range validTexts {
		if text, err := ParseText(in); err != nil || text.String() != want {
			t.Errorf("ParseText(%+q) = %+q, %v, want %+q", in, text, err, want)
		}
	}
}

// invalidTexts holds the errors for invalid texts.
var invalidTexts = map[string]error{
	"":       ErrTextEmpty,
	"\n":     ErrTextEmpty,
	"\r\n":   ErrTextEmpty,
	"\u2029": ErrTextEmpty,

	longest + "x":                ErrTextTooLong,
	longest + "x\n":              ErrTextTooLong,
	longest + "\n\n":             ErrTextTooLong,
	longest[1:] + "é":            ErrTextTooLong,
	longest[2:] + "\r\n\r\n\r\n": ErrTextTooLong, // counted as received, not as stored

	"\xff":         ErrTextUTF8,
	"a\xc3":        ErrTextUTF8,
	"\xed\xa0\x80": ErrTextUTF8,
	"\xe2\x80":     ErrTextUTF8,
	"\n\xff":       ErrTextUTF8,

	strings.Repeat("\n", 33):            ErrTextLines,
	strings.Repeat("a\r", 32) + "a":     ErrTextLines,
	strings.Repeat("a\u2028", 32) + "a": ErrTextLines,

	"\x00":    ErrTextControl,
	"a\x1b[m": ErrTextControl,
	"a\vb":    ErrTextControl,
	"a\fb":    ErrTextControl,
	"\x7f":    ErrTextControl,
	"\u0085":  ErrTextControl,
	"a\u0085": ErrTextControl,
	"\u009f":  ErrTextControl,
}

func TestInvalidTextsAreRejected(t *testing.T) {
	for in, want := range invalidTexts {
		if text, err := ParseText(in); err != want || text != (Text{}) {
			t.Errorf("ParseText(%+q) = %+q, %v, want the error %v", in, text, err, want)
		}
	}
}

// wantText does what ParseText does, code point by code point.
func wantText(s string) (string, error) {
	var lines []string
	var line strings.Builder
	in := bufio.NewReader(strings.NewReader(s))
	valid, controls, ended, end := true, false, false, 0
	for {
		c, size, err := in.ReadRune()
		if err != nil {
			break
		}
		ended = false
		switch {
		case c == '\r':
			ended, end = true, 1
			if next, _ := in.Peek(1); string(next) == "\n" {
				in.Discard(1)
				end = 2
			}
		case c == '\n' || c == 0x2028 || c == 0x2029:
			ended, end = true, size
		case c == utf8.RuneError && size == 1:
			valid = false
		case c < 0x20 && c != '\t' || 0x7f <= c && c < 0xa0:
			controls = true
		}
		if ended {
			lines = append(lines, line.String())
			line.Reset()
		} else {
			line.WriteRune(c)
		}
	}
	length := len(s)
	if ended {
		length -= end
	} else {
		lines = append(lines, line.String())
	}
	switch {
	case length == 0:
		return "", ErrTextEmpty
	case length > 4096:
		return "", ErrTextTooLong
	case !valid:
		return "", ErrTextUTF8
	case len(lines) > 32:
		return "", ErrTextLines
	case controls:
		return "", ErrTextControl
	}
	return strings.Join(lines, "\n"), nil
}

func FuzzParseText(f *testing.F) {
	for in := range validTexts {
		f.Add(in)
	}
	for in := range invalidTexts {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := ParseText(s)
		want, wantErr := wantText(s)
		if text.String() != want || !errors.Is(err, wantErr) {
			t.Errorf("ParseText(%+q) = %+q, %v, want %+q, %v", s, text, err, want, wantErr)
		}
	})
}
