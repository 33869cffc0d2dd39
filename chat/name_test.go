package chat

// The rules for names belong here, and the errors for names that break them.

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"
)

// validNames are names that people use, by what is special about them.
var validNames = map[string]string{
	"one letter":              "a",
	"letters":                 "alice",
	"three dots":              "...",
	"punctuation":             `-_~!"#$%&'()*+,;=?@\^{|}<b>`,
	"an address":              "127.0.0.1:53124",
	"an IPv6 address":         "[::1]:80",
	"accents":                 "Zoë",
	"an accent of its own":    "Zoe\u0308",
	"Chinese":                 "名前",
	"Persian with U+200C":     "علی\u200cرضا",
	"Sinhala with U+200D":     "ශ්\u200dරී",
	"Devanagari, Mc and Mn":   "हिन्दी",
	"a keycap, Me":            "1\ufe0f\u20e3",
	"emoji":                   "😀",
	"an emoji of several":     "👩\u200d💻",
	"an emoji with U+FE0F":    "❤\ufe0f",
	"an emoji with a color":   "👍🏽",
	"a flag of a country":     "🇫🇷",
	"the flag of Scotland":    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
	"an emoji of Unicode 16":  "\U0001fae9",
	"no character yet":        "\U0003fffd",
	"U+FFFD itself":           "\ufffd",
	"64 code points of 1":     strings.Repeat("a", 64),
	"64 code points of 4":     strings.Repeat("😀", 64),
	"nothing but one to show": "a\u200d\u0301\ufe00\U000e0020",
}

func TestValidNamesAreAccepted(t *testing.T) {
	for what, name := range validNames {
		if got, err := ParseName(name); err != nil || got.String() != name {
			t.Errorf("%s: ParseName(%+q) = %+q, %v", what, name, got, err)
		}
	}
}

// Parts of the errors for invalid names.
const (
	useDash       = `; use "-" or "_" instead`
	onlyChanges   = ", which only changes the character before it; begin with a visible character"
	isControl     = ", which is a control character; leave it out"
	isFormat      = ", which is a format character and not visible; leave it out"
	isPrivate     = ", which is for private use and looks different everywhere; leave it out"
	isNoCharacter = ", which is not a character; leave it out"
	isInvisible   = ", which is not visible; leave it out"
)

// invalidNames holds the errors for invalid names. Which other code points are invalid is tested by
// means of wantName.
var invalidNames = map[string]string{
	"":             "the name is empty",
	".":            `a name cannot be ".", because clients remove it from URLs`,
	"..":           `a name cannot be "..", because clients remove it from URLs`,
	"\xff":         "the name is not valid UTF-8",
	"a\xc3":        "the name is not valid UTF-8",
	"\xed\xa0\x80": "the name is not valid UTF-8", // the surrogate U+D800

	strings.Repeat("a", 65):       "the name has 65 code points; at most 64 are allowed",
	strings.Repeat("😀", 70):       "the name has 70 code points; at most 64 are allowed",
	strings.Repeat("a\u0301", 33): "the name has 66 code points; at most 64 are allowed",

	"a b":        "the name contains U+0020, which is white space" + useDash,
	"a\n":        "the name contains U+000A, which is white space" + useDash,
	"a\u0085":    "the name contains U+0085, which is white space" + useDash,
	"a\u2028b":   "the name contains U+2028, which is white space" + useDash,
	"a\u3000b":   "the name contains U+3000, which is white space" + useDash,
	"\x00":       "the name contains U+0000" + isControl,
	"a\x1b[m":    "the name contains U+001B" + isControl,
	"a\u009f":    "the name contains U+009F" + isControl,
	"a\u00ad":    "the name contains U+00AD" + isFormat,
	"\u202ea":    "the name contains U+202E" + isFormat,
	"\ufeffa":    "the name contains U+FEFF" + isFormat,
	"\ue000":     "the name contains U+E000" + isPrivate,
	"\ufdd0":     "the name contains U+FDD0" + isNoCharacter,
	"\U0001fffe": "the name contains U+1FFFE" + isNoCharacter,

	"a\u034f":               "the name contains U+034F" + isInvisible,
	"a\u180f":               "the name contains U+180F" + isInvisible,
	"\u2800":                "the name contains U+2800" + isInvisible,
	"\u3164":                "the name contains U+3164" + isInvisible,
	"a\U000e0001":           "the name contains U+E0001" + isFormat,
	"alice\ufe0f\U000e0100": "the name contains U+E0100" + isInvisible,

	"\u0301":     "the name begins with U+0301" + onlyChanges,
	"\u20e3":     "the name begins with U+20E3" + onlyChanges,
	"\u200d💻":    "the name begins with U+200D" + onlyChanges,
	"\ufe0fa":    "the name begins with U+FE0F" + onlyChanges,
	"\U000e0020": "the name begins with U+E0020" + onlyChanges,
}

func TestInvalidNamesAreRejected(t *testing.T) {
	for name, want := range invalidNames {
		got, err := ParseName(name)
		if err == nil || err.Error() != want || got != (Name{}) {
			t.Errorf("ParseName(%+q) = %+q, %v\nwant the error %s", name, got, err, want)
		}
	}
}

// wantName matches valid names, apart from ".", "..", names that are too long and invalid UTF-8. It
// has the same rules as name.go, but from another source: the default-ignorable code points are
// those that DerivedCoreProperties.txt of Unicode 15 lists in addition to the category Cf.
var wantName = func() *regexp.Regexp {
	const (
		ignorable = `\x{34F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{2065}\x{3164}` +
			`\x{FE00}-\x{FE0F}\x{FFA0}\x{FFF0}-\x{FFF8}\x{E0000}-\x{E0FFF}`
		noncharacters = `\x{FDD0}-\x{FDEF}\x{FFFE}\x{FFFF}\x{1FFFE}\x{1FFFF}\x{2FFFE}\x{2FFFF}` +
			`\x{3FFFE}\x{3FFFF}\x{4FFFE}\x{4FFFF}\x{5FFFE}\x{5FFFF}\x{6FFFE}\x{6FFFF}` +
			`\x{7FFFE}\x{7FFFF}\x{8FFFE}\x{8FFFF}\x{9FFFE}\x{9FFFF}\x{AFFFE}\x{AFFFF}` +
			`\x{BFFFE}\x{BFFFF}\x{CFFFE}\x{CFFFF}\x{DFFFE}\x{DFFFF}\x{EFFFE}\x{EFFFF}` +
			`\x{FFFFE}\x{FFFFF}\x{10FFFE}\x{10FFFF}`
		hidden = `\p{Z}\p{Cc}\p{Cf}\p{Cs}\p{Co}\x{2800}` + ignorable + noncharacters
		shapes = `[\x{200C}\x{200D}\x{FE00}-\x{FE0F}\x{E0020}-\x{E007F}]`
	)
	return regexp.MustCompile(`\A[^\p{M}` + hidden + `](?:[^` + hidden + `]|` + shapes + `)*\z`)
}()

func isName(s string) bool {
	codePoints := []rune(s)
	return string(codePoints) == s && len(codePoints) <= 64 &&
		s != "." && s != ".." && wantName.MatchString(s)
}

// It omits most code points in ranges where all are of one kind, and surrogates, which UTF-8 cannot
// represent.
func TestEveryCodePointIsAcceptedOrRejectedInNames(t *testing.T) {
	for c := rune(0); c <= utf8.MaxRune; c++ {
		at := c & 0xffff // in its plane
		mixed := c < 0x20000 || 0xe0000 <= c && c < 0xe1004 || at < 4 || 0xfffa < at
		if !mixed || !utf8.ValidRune(c) {
			continue
		}
		for _, s := range []string{string(c), "a" + string(c)} {
			_, err := ParseName(s)
			if want := isName(s); (err == nil) != want {
				t.Errorf("ParseName(%+q): got the error %v; is it a name? %v", s, err, want)
			}
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, name := range validNames {
		f.Add(name)
	}
	for name := range invalidNames {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := ParseName(s)
		if want := isName(s); (err == nil) != want {
			t.Fatalf("ParseName(%+q): got the error %v; is it a name? %v", s, err, want)
		}
		if err == nil && name.String() != s {
			t.Errorf("ParseName(%+q) = %+q", s, name)
		}
		if err != nil && (!utf8.ValidString(err.Error()) || len(err.Error()) > 120) {
			t.Errorf("ParseName(%+q): the error is not a short sentence: %q", s, err)
		}
	})
}

func TestNameDoesNotRetainTheRequest(t *testing.T) {
	request := strings.Repeat("alice", 1000)
	name, err := ParseName(request[:5])
	if err != nil {
		t.Fatal(err)
	}
	if unsafe.StringData(name.String()) == unsafe.StringData(request) {
		t.Error("the name is a part of the request")
	}
}
