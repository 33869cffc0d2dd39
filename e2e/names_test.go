// Here belongs what names and texts may be.
package e2e

import (
	"maps"
	"net/url"
	"strings"
	"testing"
)

func TestNamesAreTakenAsTheyStand(t *testing.T) {
	s := start(t)
	const scotland = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
	for path, name := range map[string]string{
		"a": "a", ".a": ".a", "%2E..": "...", "a%25b": "a%b", "%2525": "%25", "a+b": "a+b",
		":name": ":name", "*": "*", "%3Fa%23b": "?a#b", "127.0.0.1:80": "127.0.0.1:80",
		"\xc3\xa9": "é", "%F0%9F%98%80": "😀", "%EF%BF%BD": "\uFFFD",
		strings.Repeat("x", 64):         strings.Repeat("x", 64),
		strings.Repeat("😀", 64):         strings.Repeat("😀", 64),
		strings.Repeat("e%CC%81", 32):   strings.Repeat("e\u0301", 32),
		url.PathEscape("علی\u200cرضا"):  "علی\u200cرضا",
		url.PathEscape("ශ්\u200dරී"):    "ශ්\u200dරී",
		url.PathEscape("👩\u200d💻"):      "👩\u200d💻",
		url.PathEscape("❤\ufe0f"):       "❤\ufe0f",
		url.PathEscape("1\ufe0f\u20e3"): "1\ufe0f\u20e3",
		url.PathEscape("🇫🇷"):            "🇫🇷",
		url.PathEscape(scotland):        scotland,
		url.PathEscape("\U0001fae9"):    "\U0001fae9", // an emoji that Go 1.26 does not know
		url.PathEscape("\U0003fffd"):    "\U0003fffd", // which means nothing yet
	} {
		s.mustTakeName(t, path, name)
	}
}

// mustTakeName fails the test unless a user whose name is written like that in a
// path can do everything under that name.
func (s *server) mustTakeName(t *testing.T, path, name string) {
	t.Helper()
	for _, c := range []struct {
		request, body string
		status        int
		want          string
	}{
		{request: "POST /users/", status: 201, want: "User " + name + " connected."},
		{request: "POST /chat/", body: "hi", status: 200, want: name + ": hi"},
		{request: "DELETE /users/", status: 200, want: "User " + name + " disconnected."},
	} {
		if r := s.send(t, c.request+path, c.body); r.status != c.status || r.body != c.want {
			t.Errorf("%s%q: got %d %q, want %d %q",
				c.request, path, r.status, r.body, c.status, c.want)
			return
		}
	}
	st := s.subscribe(t, "/chat/"+path)
	defer st.body.Close()
	st.expect(t, arrives(name))
}

// A name that is refused changes nothing, wherever it stands. The error says what
// is wrong with it.
func TestBadNamesAreRefused(t *testing.T) {
	s := start(t)
	type refusal struct {
		status int
		names  string // what the sentence must name
	}
	refusals := map[string]refusal{
		".": {status: 400}, "..": {status: 400}, "%2E": {status: 400}, "%2e%2E": {status: 400},
		"": {status: 404}, "%2F": {status: 404}, "a%2Fb": {status: 404}, "a/b": {status: 404},
		"..%2f..":                             {status: 404},
		strings.Repeat("x", 65):               {status: 400, names: "64"},
		strings.Repeat("x", 3000):             {status: 400, names: "64"},
		strings.Repeat("%F0%9F%98%80", 65):    {status: 400, names: "64"},
		strings.Repeat("e%CC%81", 32) + "%41": {status: 400, names: "64"},
	}
	for path, names := range map[string]string{
		"%00": "U+0000", "%01": "U+0001", "%09": "U+0009", "%0A": "U+000A", "%0D": "U+000D",
		"%0D%0A": "U+000D", "%0Adata:%20x": "U+000A", "%0D%0A%0D%0Aevent:%20gap": "U+000D",
		"%1B": "U+001B", "%7F": "U+007F", "%20": "U+0020",
		"%C2%80": "U+0080", "%C2%85": "U+0085", "%C2%A0": "U+00A0", "%C2%AD": "U+00AD",
		"%E1%9A%80":    "U+1680", // a white space
		"%E2%80%8B":    "U+200B", // a format character
		"%E2%80%8E":    "U+200E",
		"%E2%80%A8":    "U+2028",
		"%E2%80%A9":    "U+2029",
		"%E2%80%AE":    "U+202E",
		"%E2%81%A5":    "U+2065", // not assigned, but never to be seen
		"%E2%A0%80":    "U+2800", // a blank
		"%E3%80%80":    "U+3000",
		"%E3%85%A4":    "U+3164", // a filler
		"%EE%80%80":    "U+E000", // private use
		"%EF%BB%BF":    "U+FEFF",
		"%EF%BE%A0":    "U+FFA0",
		"%EF%B7%90":    "U+FDD0", // not a character
		"%EF%BF%BE":    "U+FFFE",
		"%F0%9F%BF%BF": "U+1FFFF",
		"%F3%A0%80%81": "U+E0001",
		"%F3%A0%84%80": "U+E0100", // a variation selector that has no use in names
		"%F3%B0%80%80": "U+F0000",
		"%FF":          "UTF-8", "%C3": "UTF-8", "%C0%AF": "UTF-8", "%ED%A0%80": "UTF-8",
		"%F4%90%80%80": "UTF-8", "\xff": "UTF-8",
	} {
		for _, place := range []string{path, "a" + path, path + "a", "a" + path + "b"} {
			refusals[place] = refusal{400, names}
		}
	}
	for path, names := range map[string]string{ // none of which can be the first
		"%E2%80%8C": "U+200C", "%E2%80%8D": "U+200D", "%CC%81": "U+0301", "%E2%83%A3": "U+20E3",
		"%E0%A4%BE": "U+093E", "%EF%B8%80": "U+FE00", "%EF%B8%8F": "U+FE0F",
		"%F3%A0%80%A0": "U+E0020", "%F3%A0%81%BF": "U+E007F",
	} {
		refusals[path], refusals[path+"a"] = refusal{400, names}, refusal{400, names}
	}
	s.mustNotChange(t, func() {
		for path, want := range refusals {
			for _, request := range []string{
				"POST /users/", "DELETE /users/", "GET /chat/", "POST /chat/",
			} {
				r := s.mustRefuse(t, want.status, request+path, "")
				if !strings.Contains(r.body, want.names) {
					t.Errorf("%s%q: got %q, want it to name %s", request, path, r.body, want.names)
				}
			}
		}
	})
}

func TestTextsAreHeardLineByLine(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	st := s.subscribe(t, "/chat/alice")
	st.mustOpen(t)
	longest := strings.Repeat("x", 4096)
	lines := strings.Repeat("x\n", 31) + "x"
	for body, text := range map[string]string{
		"x": "x", " ": " ", "  a  ": "  a  ", "\ta\t": "\ta\t", "a=b&c=%41": "a=b&c=%41",
		`{"a":"\u0000"}`:                  `{"a":"\u0000"}`,
		"é😀\u202E\uFEFF\u00A0":            "é😀\u202E\uFEFF\u00A0",
		longest:                           longest,
		longest + "\n":                    longest,
		longest + "\r\n":                  longest,
		longest + "\r":                    longest,
		strings.Repeat("é", 2048):         strings.Repeat("é", 2048),
		lines:                             lines,
		lines + "\n":                      lines,
		strings.Repeat("x\r\n", 31) + "x": lines,
		strings.Repeat("x\r\n", 32):       lines,
		strings.Repeat("\r", 32):          strings.Repeat("\n", 31),
		"a\r\nb\rc\nd\n\re":               "a\nb\nc\nd\n\ne",
		"\n\n":                            "\n",
		"\na\n\n":                         "\na\n",
		"a\n\r":                           "a\n",
		"a\r\r\n":                         "a\n",
		"a\u2028b\u2029c\u2028\u2029d":    "a\nb\nc\n\nd",
		"a\u2028":                         "a",
		"a\n\u2029":                       "a\n",
		"\u2028\u2028":                    "\n",
		longest + "\u2028":                longest,
		strings.Repeat("x\u2029", 32):     lines,
		"a\u2028\u2028data: b":            "a\n\ndata: b",
	} {
		form := h{"Content-Type", "application/x-www-form-urlencoded"} // which is of no matter
		r := s.send(t, "POST /chat/alice", body, form...)
		if r.status != 200 || r.body != "alice: "+text {
			t.Fatalf("%.40q: got %d %.40q, want %.40q", body, r.status, r.body, text)
		}
		st.expectRun(t, "alice: "+text)
	}
}

func TestBadTextsAreRefused(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	longest := strings.Repeat("x", 4096)
	status := map[string]int{
		"": 400, "\n": 400, "\r": 400, "\r\n": 400, "\u2028": 400, "\u2029": 400,
		longest + "x":                   413,
		longest + "x\n":                 413,
		longest + "\n\n":                413,
		strings.Repeat("é", 2048) + "x": 413,
		strings.Repeat("x", 1<<20):      413,
		longest + "\u2028\n":            413,
		strings.Repeat("x\n", 32) + "x": 400,
		strings.Repeat("\u2028", 33):    400,
		strings.Repeat("x\u2029", 33):   400,
		strings.Repeat("\n", 33):        400,
		strings.Repeat("\r\n", 33):      400,
		strings.Repeat("x\r", 32) + "x": 400,
	}
	for _, c := range []string{
		"\x00", "\x01", "\b", "\v", "\f", "\x1b", "\x1f", "\x7f", "\u0080", "\u0085", "\u009f",
		"\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x85", "\xa0",
	} {
		maps.Copy(status, map[string]int{c: 400, "a" + c: 400, c + "a": 400, "a\n" + c + "\n": 400})
	}
	s.mustNotChange(t, func() {
		for body, status := range status {
			latin1 := h{"Content-Type", "text/plain; charset=latin1"} // which is of no matter
			s.mustRefuse(t, status, "POST /chat/alice", body, latin1...)
		}
	})
}

// What a text holds never reads as a part of the stream other than its data.
func TestNothingCanBeInjectedIntoAStream(t *testing.T) {
	s := start(t)
	st := s.subscribe(t, "/chat/eve")
	st.expectRun(t, arrives("eve"))
	retry := st.retry
	for _, text := range []string{
		"a\n\nid: 7\nevent: gap\ndata: b\n\n: c\nretry: 1",
		"data: x\nid: 7\nevent: y\n:z\nretry: 1",
		"id \nid:\nid\n\n",
	} {
		for _, lineEnd := range []string{"\n", "\r", "\r\n", "\u2028", "\u2029"} {
			s.do(t, "POST", "/chat/eve", strings.ReplaceAll(text, "\n", lineEnd)+lineEnd)
			st.expectRun(t, "eve: "+text)
		}
	}
	if st.retry != retry || len(st.comments) > 0 {
		t.Errorf("the stream's retry is %q, its comments are %q", st.retry, st.comments)
	}
}
