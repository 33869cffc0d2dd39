package chat

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of a text.
const (
	MaxText    = 4 << 10       // bytes, excluding one trailing line break
	MaxLines   = 32            // lines
	MaxLineEnd = len("\u2028") // bytes of the longest line break
)

// The errors of ParseText.
var (
	ErrTextEmpty   = errors.New("the message is empty; send its text as the request body")
	ErrTextTooLong = fmt.Errorf("the message is longer than %d bytes", MaxText)
	ErrTextUTF8    = errors.New("the message is not valid UTF-8")
	ErrTextLines   = fmt.Errorf("the message has more than %d lines", MaxLines)
	ErrTextControl = errors.New("the message contains a control character " +
		"other than a tab or a line break")
)

// Text is the text of a message: lines separated by "\n" that contain nothing else a client could
// take for a line break. The zero Text is empty.
type Text struct{ text string }

// lineEnds are the line breaks of Unicode and of clients. CR LF comes first, because it is one
// break and not two. (U+000B, U+000C and U+0085 are missing, because control characters are
// rejected.)
var lineEnds = []string{"\r\n", "\n", "\r", "\u2028", "\u2029"}

var toNewlines = strings.NewReplacer(
	"\r\n", "\n", "\r", "\n", "\u2028", "\n", "\u2029", "\n")

// ParseText returns s as a Text, with one trailing line break removed and all others normalized to
// "\n". A line break is CR LF, CR, LF, U+2028 or U+2029. The error is one of those above.
func ParseText(s string) (Text, error) {
	s = withoutLineEnd(s)
	switch {
	case s == "":
		return Text{}, ErrTextEmpty
	case len(s) > MaxText:
		return Text{}, ErrTextTooLong
	case !utf8.ValidString(s):
		return Text{}, ErrTextUTF8
	}
	s = toNewlines.Replace(s)
	switch {
	case strings.Count(s, "\n") >= MaxLines:
		return Text{}, ErrTextLines
	case strings.ContainsFunc(s, isForbidden):
		return Text{}, ErrTextControl
	}
	return Text{s}, nil
}

// String returns the text, its lines separated by "\n".
func (t Text) String() string { return t.text }

// UncheckedText returns s as a Text without checking it. It is for texts that ParseText returned
// earlier, perhaps in another version of the program.
func UncheckedText(s string) Text { return Text{s} }

func withoutLineEnd(s string) string {
	for _, end := range lineEnds {
		if before, found := strings.CutSuffix(s, end); found {
			return before
		}
	}
	return s
}

func isForbidden(c rune) bool { return unicode.IsControl(c) && c != '\t' && c != '\n' }
