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
	MaxText    = 4 << 10       // bytes, without a line end at the end
	MaxLines   = 32            // lines
	MaxLineEnd = len("\u2028") // bytes of the longest line end
)

// The errors of ParseText.
var (
	ErrTextEmpty   = errors.New("the text is empty; send what the user says as the body")
	ErrTextTooLong = fmt.Errorf("the text is longer than %d bytes", MaxText)
	ErrTextUTF8    = errors.New("the text is not valid UTF-8")
	ErrTextLines   = fmt.Errorf("the text has more than %d lines", MaxLines)
	ErrTextControl = errors.New("the text contains a control character that is no tab or line end")
)

// Text is what a user says: lines separated by "\n", with nothing in them that
// a client could take for the end of a line. The zero Text says nothing.
type Text struct{ text string }

// lineEnds are all that Unicode and clients take as the end of a line. CR LF
// comes first, because it is one end and not two. (U+0085 is one too, but it is
// a control character, and so are U+000B and U+000C.)
var lineEnds = []string{"\r\n", "\n", "\r", "\u2028", "\u2029"}

var toNewlines = strings.NewReplacer(
	"\r\n", "\n", "\r", "\n", "\u2028", "\n", "\u2029", "\n")

// ParseText returns s as a Text, without one line end at its end. Lines may end
// in CR LF, CR, LF, U+2028 or U+2029. The error is one of those above.
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

func withoutLineEnd(s string) string {
	for _, end := range lineEnds {
		if before, found := strings.CutSuffix(s, end); found {
			return before
		}
	}
	return s
}

func isForbidden(c rune) bool { return unicode.IsControl(c) && c != '\t' && c != '\n' }

// UncheckedText returns s as a Text without checking it. It is for texts that ParseText returned
// earlier, perhaps in another version of the program.
func UncheckedText(s string) Text { return Text{s} }
