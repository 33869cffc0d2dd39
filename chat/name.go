package chat

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the maximum number of code points in a name.
const MaxName = 64

// Name is the name of a user: 1 to MaxName code points, each of which is visible or shapes the one
// before it. Names are compared byte by byte. The zero Name is not a valid name.
type Name struct{ name string }

// ParseName returns s as a Name. The error says what is wrong with s.
func ParseName(s string) (Name, error) {
	switch {
	case s == "":
		return Name{}, errors.New("the name is empty")
	case s == "." || s == "..":
		return Name{}, fmt.Errorf("a name cannot be %q, because clients remove it from URLs", s)
	case !utf8.ValidString(s):
		return Name{}, errors.New("the name is not valid UTF-8")
	case utf8.RuneCountInString(s) > MaxName:
		return Name{}, fmt.Errorf("the name has %d code points; at most %d are allowed",
			utf8.RuneCountInString(s), MaxName)
	}
	for i, c := range s {
		if '!' <= c && c <= '~' {
			continue
		}
		if onlyShapes(c) {
			if i == 0 {
				return Name{}, fmt.Errorf("the name begins with %U, which only changes "+
					"the character before it; begin with a visible character", c)
			}
			continue
		}
		for _, kind := range invisible {
			if unicode.Is(kind.table, c) {
				return Name{}, fmt.Errorf("the name contains %U, which is %s", c, kind.is)
			}
		}
	}
	return Name{strings.Clone(s)}, nil // a substring would keep the whole request in memory
}

// String returns the name as it was given to ParseName.
func (n Name) String() string { return n.name }

// UncheckedName returns s as a Name without checking it. It is for names that ParseName accepted
// earlier, perhaps in another version of the program.
func UncheckedName(s string) Name { return Name{s} }

// invisible lists the kinds of invisible code points, with the wording for the error. Unassigned
// code points count as visible, so that new emoji are accepted before Go's tables know them.
var invisible = []struct {
	table *unicode.RangeTable
	is    string
}{
	{unicode.White_Space, `white space; use "-" or "_" instead`},
	{unicode.Cc, "a control character; leave it out"},
	{unicode.Cf, "a format character and not visible; leave it out"},
	{unicode.Co, "for private use and looks different everywhere; leave it out"},
	{unicode.Noncharacter_Code_Point, "not a character; leave it out"},
	{unicode.Other_Default_Ignorable_Code_Point, "not visible; leave it out"},
	{unicode.Variation_Selector, "not visible; leave it out"},
	{brailleBlank, "not visible; leave it out"},
}

// brailleBlank is the empty braille cell, which Unicode classifies as a symbol.
var brailleBlank = &unicode.RangeTable{R16: []unicode.Range16{{0x2800, 0x2800, 1}}}

// onlyShapes reports whether c only changes the code point before it, and so cannot begin a name: a
// joiner (Persian, Indic scripts, emoji), a variation selector (emoji), a tag (regional flags), or
// a combining mark.
func onlyShapes(c rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	switch {
	case c == nonJoiner, c == joiner,
		'\ufe00' <= c && c <= '\ufe0f',         // variation selectors
		'\U000e0020' <= c && c <= '\U000e007f': // tags
		return true
	}
	return unicode.IsMark(c) &&
		!unicode.In(c, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
