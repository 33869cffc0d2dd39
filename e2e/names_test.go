// Here belongs what names and texts may be.
package e2e

import (
	"maps"
	"strings"
	"testing"
)

func TestNamesAreTakenAsTheyStand(t *testing.T) {
	s := start(t)
	for path, name := range map[string]string{
		"a": "a", ".a": ".a", "%2E..": "...", "a%25b": "a%b", "%2525": "%25", "a+b": "a+b",
		":name": ":name", "*": "*", "%3Fa%23b": "?a#b", "127.0.0.1:80": "127.0.0.1:80",
		"\xc3\xa9": "é", "%F0%9F%98%80": "😀", "%EF%BF%BD": "\uFFFD",
		strings.Repeat("x", 64):       strings.Repeat("x", 64),
		strings.Repeat("😀", 64):       strings.Repeat("😀", 64),
		strings.Repeat("e%CC%81", 32): strings.Repeat("e\u0301", 32),
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

func TestBadNamesAreRefused(t *testing.T) {
	s := start(t)
	status := map[string]int{
		".": 400, "..": 400, "%2E": 400, "%2e%2E": 400,
		"": 404, "%2F": 404, "a%2Fb": 404, "a/b": 404, "..%2f..": 404,
		strings.Repeat("x", 65): 400, strings.Repeat("x", 3000): 400,
		strings.Repeat("%F0%9F%98%80", 65): 400,
	}
	for _, c := range []string{
		"%00", "%01", "%09", "%0A", "%0D", "%0D%0A", "%0Adata:%20x", "%0D%0A%0D%0Aevent:%20gap",
		"%1B", "%7F", "%20", "%C2%80", "%C2%85", "%C2%A0", "%C2%AD", "%E1%9A%80", "%E2%80%8B",
		"%E2%80%A8", "%E2%80%A9", "%E2%80%AE", "%E3%80%80", "%EE%80%80", "%EF%BB%BF", "%EF%BF%BE",
		"%F3%A0%80%81", "%FF", "%C3", "%C0%AF", "%ED%A0%80", "%F4%90%80%80", "\xff",
	} {
		status[c], status["a"+c], status[c+"a"], status["a"+c+"b"] = 400, 400, 400, 400
	}
	s.mustNotChange(t, func() {
		for path, status := range status {
			for _, request := range []string{
				"POST /users/", "DELETE /users/", "GET /chat/", "POST /chat/",
			} {
				s.mustRefuse(t, status, request+path, "")
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
