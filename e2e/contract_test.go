package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// idPlus returns the id that comes n events after id.
func idPlus(t testing.TB, id string, n int) string {
	t.Helper()
	epoch, seq, _ := strings.Cut(id, "-")
	number, err := strconv.Atoi(seq)
	if err != nil {
		t.Fatalf("the id %q is not EPOCH-SEQ", id)
	}
	return fmt.Sprint(epoch, "-", number+n)
}

// lastID returns the id of the server's last event.
func (s *server) lastID(t testing.TB) string {
	t.Helper()
	return s.do(t, "GET", "/users", "").header.Get("Last-Event-ID")
}

// block returns the stream's next lines as they stand, up to a blank one. It
// fails the test when they take more than 10 s.
func (st *stream) block(t testing.TB) string {
	t.Helper()
	timer := time.AfterFunc(10*time.Second, func() { st.body.Close() })
	defer timer.Stop()
	block := ""
	for !strings.HasSuffix(block, "\n\n") {
		line, err := st.r.ReadString('\n')
		if block += line; err != nil {
			t.Fatalf("a block %q and %v", block, err)
		}
	}
	return block
}

var openingBlock = regexp.MustCompile(`^retry: ([12]\d{3}|3000)\nid: ([0-9a-z]{8,}-\d+)\n(event: gap\ndata: [A-Z][^\n]*\.\n)?\n$`)

// open opens a stream, whose opening block must be none of a gap.
func (s *server) open(t testing.TB, path string, headers ...string) *stream {
	t.Helper()
	st := s.subscribe(t, path, headers...)
	block := st.block(t)
	m := openingBlock.FindStringSubmatch(block)
	if m == nil || m[3] != "" {
		t.Fatalf("the stream begins with %q", block)
	}
	st.retry, st.lastID = m[1], m[2]
	return st
}

// expectRun reads events with those data, whose ids follow without a hole.
func (st *stream) expectRun(t testing.TB, data ...string) {
	t.Helper()
	for _, d := range data {
		want := idPlus(t, st.lastID, 1)
		if e := st.expect(t, d); e.id != want {
			t.Fatalf("%q has the id %q, want %q", d, e.id, want)
		}
	}
}

// unchanged fails the test when what do does changes who is there, makes an
// event or shows on a stream.
func (s *server) unchanged(t testing.TB, do func()) {
	t.Helper()
	s.do(t, "POST", "/users/watcher", "")
	watcher := s.open(t, "/chat/watcher")
	defer watcher.body.Close()
	before, id := s.do(t, "GET", "/users", ""), s.lastID(t)
	do()
	if after := s.do(t, "GET", "/users", ""); after.body != before.body || after.header.Get("Last-Event-ID") != id {
		t.Errorf("got %q at %s, want still %q at %s", after.body, after.header.Get("Last-Event-ID"), before.body, id)
	}
	s.do(t, "POST", "/chat/watcher", "nothing happened")
	watcher.expectRun(t, "watcher: nothing happened")
}

// sentence is what the body of an error must be where the contract does not
// say it to the letter.
var sentence = regexp.MustCompile(`^[A-Z][^\n]+\.\n?$`)

// isError tells whether r is an error as the contract has it.
func (r response) isError(status int) bool {
	return r.status == status && sentence.MatchString(r.body) && r.header.Get("Location") == "" &&
		r.header.Get("Content-Type") == "text/plain; charset=utf-8" && r.header.Get("X-Content-Type-Options") == "nosniff"
}

// refuses fails the test unless the server answers a request with that error.
func (s *server) refuses(t testing.TB, status int, request, body string, headers ...string) {
	t.Helper()
	if r := s.send(t, request, body, headers...); !r.isError(status) {
		t.Errorf("%.40q with %.20q and %.40q: got %d %v %q, want the error %d", request, body, headers, r.status, r.header, r.body, status)
	}
}

func TestRequests(t *testing.T) {
	s := start(t)
	epoch := strings.TrimSuffix(s.lastID(t), "0")
	const some = "<some>" // any sentence
	for _, c := range []struct {
		request, body string
		status        int
		want          string
		event         int // in Last-Event-ID, or -1
		header        string
	}{
		{"GET /users", "", 200, "Connected users:\n", 0, "Vary: Accept"},
		{"HEAD /users", "", 200, "", 0, "Content-Length: 17"},
		{"DELETE /users/alice", "", 404, "User alice is not connected.", 0, ""},
		{"POST /chat/alice", "hello", 404, "User alice is not connected.", 0, ""},
		{"POST /users/alice", "", 201, "User alice connected.", 1, ""},
		{"POST /users/alice", "", 200, "User alice connected.", 1, ""},
		{"POST /users/bob", "a body of no interest", 201, "User bob connected.", 2, ""},
		{"POST /users/%C3%A9ric", "", 201, "User éric connected.", 3, ""},
		{"POST /users/Zoe", "", 201, "User Zoe connected.", 4, ""},
		{"GET /users", "", 200, "Connected users:\nUser: Zoe\nUser: alice\nUser: bob\nUser: éric", 4, "Vary: Accept"},
		{"HEAD /users", "", 200, "", 4, "Content-Length: 60"},
		{"POST /chat/alice", "hello", 200, "alice: hello", 5, ""},
		{"POST /chat/alice?lastEventId=x", "one\r\ntwo\rthree\n", 200, "alice: one\ntwo\nthree", 6, ""},
		{"POST /chat/nobody", "hello", 404, "User nobody is not connected.", 6, ""},
		{"DELETE /users/alice", "", 200, "User alice disconnected.", 7, ""},
		{"DELETE /users/alice", "", 404, "User alice is not connected.", 7, ""},
		{"POST /chat/alice", "hello", 404, "User alice is not connected.", 7, ""},
		{"POST /users/alice", "", 201, "User alice connected.", 8, ""},
		{"POST /users/%3Cb%3E%26%22", "", 201, `User <b>&" connected.`, 9, ""},
		{"POST /chat/%3Cb%3E%26%22", "<i> ", 200, `<b>&": <i> `, 10, ""},

		{"OPTIONS /users", "", 200, "", -1, "Allow: GET, HEAD, OPTIONS"},
		{"OPTIONS /users/alice", "", 200, "", -1, "Allow: DELETE, OPTIONS, POST"},
		{"OPTIONS /chat", "", 200, "", -1, "Allow: GET, OPTIONS"},
		{"OPTIONS /chat/alice", "", 200, "", -1, "Allow: GET, OPTIONS, POST"},
		{"OPTIONS /", "", 200, "", -1, "Allow: GET, HEAD, OPTIONS"},
		{"PUT /users", "", 405, some, -1, "Allow: GET, HEAD, OPTIONS"},
		{"GET /users/alice", "", 405, some, -1, "Allow: DELETE, OPTIONS, POST"},
		{"HEAD /chat", "", 405, "", -1, "Allow: GET, OPTIONS"},
		{"HEAD /chat/alice", "", 405, "", -1, "Allow: GET, OPTIONS, POST"},
		{"DELETE /chat/alice", "", 405, some, -1, "Allow: GET, OPTIONS, POST"},
		{"BREW /", "", 405, some, -1, "Allow: GET, HEAD, OPTIONS"},
		{"GET /nosuch", "", 404, some, -1, ""},
		{"OPTIONS /nosuch", "", 404, some, -1, ""},
	} {
		r := s.send(t, c.request, c.body)
		if name, value, _ := strings.Cut(c.header, ": "); r.header.Get(name) != value {
			t.Errorf("%s: got %s: %q, want %q", c.request, name, r.header.Get(name), value)
		}
		if c.event >= 0 && r.header.Get("Last-Event-ID") != fmt.Sprint(epoch, c.event) {
			t.Errorf("%s: got the Last-Event-ID %q, want %s%d", c.request, r.header.Get("Last-Event-ID"), epoch, c.event)
		}
		if !strings.HasPrefix(c.request, "OPTIONS") && (r.header.Get("Content-Type") != "text/plain; charset=utf-8" || r.header.Get("X-Content-Type-Options") != "nosniff") {
			t.Errorf("%s: got %v, want plain text, not to be sniffed", c.request, r.header)
		}
		if r.status != c.status || r.body != c.want && !(c.want == some && r.isError(c.status)) {
			t.Errorf("%s: got %d %q, want %d %q", c.request, r.status, r.body, c.status, c.want)
		}
	}

	st := s.open(t, "/chat/bob?lastEventId="+epoch+"0")
	st.expectRun(t, "User alice connected to the chat.", "User bob connected to the chat.", "User éric connected to the chat.",
		"User Zoe connected to the chat.", "alice: hello", "alice: one\ntwo\nthree", "User alice disconnected from the chat.",
		"User alice connected to the chat.", `User <b>&" connected to the chat.`, `<b>&": <i> `)
}

// The page and whatever it loads can be read by all, and by HEAD too.
func TestPageIsOpenToAll(t *testing.T) {
	s := start(t)
	page := s.send(t, "GET /", "", "Sec-Fetch-Site: cross-site")
	if page.status != 200 || page.body == "" || page.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("got %d %v %q, want a page", page.status, page.header, page.body)
	}
	paths := []string{"/"}
	for _, m := range regexp.MustCompile(`(?:href|src)="/?([\w.-]+)"`).FindAllStringSubmatch(page.body, -1) {
		paths = append(paths, "/"+m[1])
	}
	for _, path := range paths {
		get, head := s.send(t, "GET "+path, "", "Origin: http://evil.example"), s.send(t, "HEAD "+path, "", "Sec-Fetch-Site: cross-site")
		for _, r := range []response{get, head} {
			if r.status != 200 || r.header.Get("Content-Length") != strconv.Itoa(len(get.body)) || r.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: got %d %v, want 200", path, r.status, r.header)
			}
		}
		s.refuses(t, 403, "POST "+path, "", "Sec-Fetch-Site: cross-site")
	}
}

func TestListAsJSON(t *testing.T) {
	s := start(t)
	if r := s.send(t, "GET /users", "", "Accept: application/json"); r.body != `{"users":[]}` {
		t.Errorf("got %q of nobody", r.body)
	}
	s.do(t, "POST", "/users/bob", "")
	s.do(t, "POST", "/users/a%22b", "")
	for _, c := range []struct {
		contentType, body string
		accepts           []string // header lines, parted by a bar
	}{
		{"text/plain; charset=utf-8", "Connected users:\nUser: a\"b\nUser: bob", []string{
			"X: y", "Accept:", "Accept: */*", "Accept: text/plain", "Accept: text/html,application/xhtml+xml,*/*;q=0.8",
			"Accept: application/json;q=0", "Accept: application/json;q=0.0, */*", "Accept: application/json;q=0.1, text/plain",
			"Accept: application/jsonp", "Accept: nonsense;;,/",
		}},
		{"application/json", `{"users":["a\"b","bob"]}`, []string{
			"Accept: application/json", "Accept: Application/JSON", "Accept: application/json; charset=utf-8",
			"Accept: application/json, text/plain, */*", "Accept: application/json, text/plain;q=0.5, */*;q=0.1", "Accept: text/html|Accept: application/json;q=0.9",
		}},
	} {
		for _, accept := range c.accepts {
			headers := strings.Split(accept, "|")
			get, head := s.send(t, "GET /users", "", headers...), s.send(t, "HEAD /users", "", headers...)
			for _, r := range []response{get, head} {
				if r.status != 200 || r.header.Get("Content-Type") != c.contentType || r.header.Get("Content-Length") != strconv.Itoa(len(c.body)) ||
					r.header.Get("Vary") != "Accept" || r.header.Get("Last-Event-ID") != s.lastID(t) || r.header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%q: got %d %v, want %s", accept, r.status, r.header, c.contentType)
				}
			}
			if get.body != c.body {
				t.Errorf("%q: got %q, want %q", accept, get.body, c.body)
			}
		}
	}
}

func TestOrderOfErrors(t *testing.T) {
	s := start(t, "-max-users", "1", "-max-streams", "2")
	const host, origin = "Host: evil.example", "Sec-Fetch-Site: cross-site"
	big := strings.Repeat("x", 5000)
	s.unchanged(t, func() {
		for _, c := range []struct {
			request, body string
			headers       []string
			status        int
		}{
			{"PATCH /nosuch/%0A", big, []string{host, origin}, 421},
			{"GET /", "", []string{host, origin}, 421},
			{"PATCH /nosuch/%0A", big, []string{origin}, 403},
			{"PATCH /users", big, []string{origin}, 403},
			{"POST /users/%0A", big, []string{origin}, 403},
			{"GET /chat/%0A", big, []string{origin}, 403},
			{"PATCH /nosuch/%0A", big, nil, 404},
			{"PATCH /chat/%0A", big, nil, 405},
			{"GET /users/%0A", big, nil, 405},
			{"POST /users/%0A", big, nil, 400},
			{"DELETE /users/%0A", big, nil, 400},
			{"POST /chat/%0A", big, nil, 400},
			{"POST /users/bob", big, nil, 413},
			{"DELETE /users/bob", big, nil, 413},
			{"POST /chat/bob", big, nil, 413},
			{"POST /chat/bob", "\n", nil, 400},
			{"GET /chat/bob", "x", nil, 400},
			{"POST /users/bob", "", nil, 503},
			{"GET /chat/bob", "", nil, 503},
		} {
			s.refuses(t, c.status, c.request, c.body, c.headers...)
		}
	})
}

func TestNames(t *testing.T) {
	s := start(t)
	for path, name := range map[string]string{
		"a": "a", ".a": ".a", "%2E..": "...", "a%25b": "a%b", "%2525": "%25", "a+b": "a+b", ":name": ":name", "*": "*",
		"%3Fa%23b": "?a#b", "\xc3\xa9": "é", "%F0%9F%98%80": "😀", "%EF%BF%BD": "\uFFFD", "127.0.0.1:80": "127.0.0.1:80",
		strings.Repeat("x", 64): strings.Repeat("x", 64), strings.Repeat("😀", 64): strings.Repeat("😀", 64),
		strings.Repeat("e%CC%81", 32): strings.Repeat("e\u0301", 32),
	} {
		joined, said, left := s.send(t, "POST /users/"+path, ""), s.send(t, "POST /chat/"+path, "hi"), s.send(t, "DELETE /users/"+path, "")
		s.open(t, "/chat/"+path).expect(t, "User "+name+" connected to the chat.")
		if joined.status != 201 || joined.body != "User "+name+" connected." || said.status != 200 || said.body != name+": hi" ||
			left.status != 200 || left.body != "User "+name+" disconnected." {
			t.Errorf("%q: got %+v, %+v and %+v, want the name %q", path, joined, said, left, name)
		}
	}
	bad := map[string]int{
		".": 400, "..": 400, "%2E": 400, "%2e%2E": 400, "": 404, "%2F": 404, "a%2Fb": 404, "a/b": 404, "..%2f..": 404,
		strings.Repeat("x", 65): 400, strings.Repeat("%F0%9F%98%80", 65): 400, strings.Repeat("x", 3000): 400,
	}
	for _, c := range []string{
		"%00", "%01", "%09", "%0A", "%0D", "%0D%0A", "%0Adata:%20x", "%1B", "%7F", "%20", "%C2%80", "%C2%85", "%C2%A0", "%C2%AD",
		"%E1%9A%80", "%E2%80%8B", "%E2%80%A8", "%E2%80%A9", "%E2%80%AE", "%E3%80%80", "%EE%80%80", "%EF%BB%BF", "%EF%BF%BE", "%F3%A0%80%81",
		"%FF", "%C3", "%C0%AF", "%ED%A0%80", "%F4%90%80%80", "\xff",
	} {
		bad[c], bad["a"+c], bad[c+"a"], bad["a"+c+"b"] = 400, 400, 400, 400
	}
	s.unchanged(t, func() {
		for path, status := range bad {
			for _, request := range []string{"POST /users/", "DELETE /users/", "GET /chat/", "POST /chat/"} {
				s.refuses(t, status, request+path, "")
			}
		}
	})
}

func TestTexts(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	st := s.open(t, "/chat/alice")
	x, lines := strings.Repeat("x", 4096), strings.Repeat("x\n", 32)
	for _, c := range []struct{ body, text string }{
		{"x", "x"}, {x, x}, {x + "\n", x}, {x + "\r\n", x}, {x + "\r", x}, {strings.Repeat("é", 2048), strings.Repeat("é", 2048)},
		{lines, lines[:63]}, {lines[:63], lines[:63]}, {strings.Repeat("x\r\n", 32), lines[:63]}, {strings.Repeat("\r", 32), strings.Repeat("\n", 31)},
		{"a\r\nb\rc\nd\n\re", "a\nb\nc\nd\n\ne"}, {"\n\n", "\n"}, {"\na\n\n", "\na\n"}, {"a\n\r", "a\n"}, {"a\r\r\n", "a\n"},
		{"\ta\t", "\ta\t"}, {" ", " "}, {"  a  ", "  a  "}, {"a=b&c=%41", "a=b&c=%41"}, {`{"a":"\u0000"}`, `{"a":"\u0000"}`},
		{"data: x\nid: 7\nevent: y\n:z\nretry: 1", "data: x\nid: 7\nevent: y\n:z\nretry: 1"},
		{"é😀\u202E\u2028\uFEFF\u00A0", "é😀\u202E\u2028\uFEFF\u00A0"},
	} {
		r := s.send(t, "POST /chat/alice", c.body, "Content-Type: application/x-www-form-urlencoded")
		if r.status != 200 || r.body != "alice: "+c.text {
			t.Fatalf("%.40q: got %d %.40q, want %.40q", c.body, r.status, r.body, c.text)
		}
		st.expectRun(t, "alice: "+c.text)
	}
	bad := map[string]int{
		"": 400, "\n": 400, "\r": 400, "\r\n": 400,
		x + "x": 413, x + "x\n": 413, x + "\n\n": 413, strings.Repeat("é", 2048) + "x": 413, strings.Repeat("x", 1<<20): 413,
		lines + "x": 400, strings.Repeat("\n", 33): 400, strings.Repeat("\r\n", 33): 400, strings.Repeat("x\r", 32) + "x": 400,
	}
	for _, c := range []string{
		"\x00", "\x01", "\b", "\v", "\f", "\x1b", "\x1f", "\x7f", "\u0080", "\u0085", "\u009f",
		"\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x85", "\xa0",
	} {
		bad[c], bad["a"+c], bad[c+"a"], bad["a\n"+c+"\n"] = 400, 400, 400, 400
	}
	s.unchanged(t, func() {
		for body, status := range bad {
			s.refuses(t, status, "POST /chat/alice", body, "Content-Type: text/plain; charset=latin1")
		}
	})
}

func TestStreamFormat(t *testing.T) {
	s := start(t, "-keepalive", "200ms")
	id := s.lastID(t)
	st := s.subscribe(t, "/chat/alice")
	for name, value := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no",
		"X-Content-Type-Options": "nosniff", "Last-Event-ID": idPlus(t, id, 1),
	} {
		if got := st.header.Get(name); got != value {
			t.Errorf("got %s: %q, want %q", name, got, value)
		}
	}
	if b := st.block(t); !openingBlock.MatchString(b) || !strings.HasSuffix(b, "\nid: "+id+"\n\n") {
		t.Errorf("got the opening block %q, want the id %s", b, id)
	}
	event := func(n int, data string) string {
		return fmt.Sprintf("id: %s\nevent: message\ndata: %s\n\n", idPlus(t, id, n), data)
	}
	const comment = ": keep-alive\n\n"
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/users", "", event(1, "User alice connected to the chat.")},
		{"GET", "/users", "", comment},
		{"GET", "/users", "", comment},
		{"POST", "/users/alice", "", comment},
		{"POST", "/chat/alice", "hello", event(2, "alice: hello")},
		{"POST", "/chat/alice", "\na\r\n b\n", event(3, "alice: \ndata: a\ndata:  b")},
		{"POST", "/users/bob", "", event(4, "User bob connected to the chat.")},
		{"DELETE", "/users/bob", "", event(5, "User bob disconnected from the chat.")},
	} {
		s.do(t, c.method, c.path, c.body)
		got := st.block(t)
		for n := 0; n < 50 && got == comment && c.want != comment; n++ { // they may come before on a slow machine
			got = st.block(t)
		}
		if got != c.want {
			t.Errorf("after %s %s: got %q, want %q", c.method, c.path, got, c.want)
		}
	}
	retries := map[string]bool{}
	for range 10 {
		retries[s.open(t, "/chat/alice").retry] = true
	}
	if len(retries) < 2 {
		t.Errorf("10 streams got the retry %v, want it drawn for each", retries)
	}
}

// A stream without a name is the user's whose name is where it calls from.
func TestStreamWithoutName(t *testing.T) {
	s := start(t)
	st, conn := s.dialStream(t, "/chat")
	name := conn.LocalAddr().String()
	st.expect(t, "User "+name+" connected to the chat.")
	s.do(t, "POST", "/chat/"+name, "hi")
	st.expect(t, name+": hi")
	if r := s.do(t, "GET", "/users", ""); r.body != "Connected users:\nUser: "+name {
		t.Errorf("got %q, want %s alone", r.body, name)
	}
}

// resumption is a way to ask for what came after an event, where EPOCH stands
// for the server's.
type resumption struct{ header, query string }

// The server has the last 3 of 6 events. Who asks for nothing begins after
// these.
func TestResume(t *testing.T) {
	for after, resumptions := range map[int][]resumption{
		3: {{"EPOCH-3", ""}, {"", "EPOCH-3"}},
		4: {{"", "EPOCH%2D4"}},
		5: {{"EPOCH-5", ""}, {"EPOCH-5", "EPOCH-3"}, {"EPOCH-5", "nonsense"}},
		6: {{"EPOCH-6", ""}, {"", "EPOCH-6"}, {"", ""}},
	} {
		for _, r := range resumptions {
			t.Run(fmt.Sprint("none missed: ", r), func(t *testing.T) { r.check(t, after, false) })
		}
	}
	gaps := []resumption{
		{"nonsense", "EPOCH-5"}, {"", "EPOCH-2"}, {"", "EPOCH-4%0A"}, {"", "%00"}, {"", "EPOCH-4%zz"}, {"", "EPOCH-4;"},
	}
	for _, id := range []string{
		"EPOCH-2", "EPOCH-0", "EPOCH-7", "EPOCH-18446744073709551615", "EPOCH-18446744073709551620", "otherepoch-4", "EPOCH", "EPOCH-", "EPOCH-04",
		"EPOCH-+4", "EPOCH--4", "EPOCH-4-", "EPOCH-4.0", "EPOCH-0x4", "EPOCH-4 x", "-", "-4", "4", "\xff\xfe", strings.Repeat("9", 8000),
	} {
		gaps = append(gaps, resumption{header: id})
	}
	for _, r := range gaps {
		t.Run(fmt.Sprintf("gap: %.30q", r), func(t *testing.T) { r.check(t, 6, true) })
	}
}

// check opens a stream, which must go on after that event, with a gap or not.
func (r resumption) check(t *testing.T, after int, gap bool) {
	s := start(t, "-history", "3")
	users := []string{"a", "b", "c", "d", "e", "f", "new"}
	for _, name := range users[:6] {
		s.do(t, "POST", "/users/"+name, "")
	}
	epoch := strings.TrimSuffix(s.lastID(t), "6")
	inEpoch := strings.NewReplacer("EPOCH-", epoch, "EPOCH", strings.Trim(epoch, "-"))
	st := s.subscribe(t, "/chat/new?lastEventId="+inEpoch.Replace(r.query), "Last-Event-ID", inEpoch.Replace(r.header))
	if got, want := st.header.Get("Last-Event-ID"), epoch+"7"; got != want {
		t.Errorf("got the Last-Event-ID %q, want %q", got, want)
	}
	block := st.block(t)
	m := openingBlock.FindStringSubmatch(block)
	if m == nil || m[2] != fmt.Sprint(epoch, after) || (m[3] != "") != gap {
		t.Fatalf("the stream begins with %q, want the id %s%d, a gap: %v", block, epoch, after, gap)
	}
	st.lastID = m[2]
	for _, name := range users[after:] {
		st.expectRun(t, "User "+name+" connected to the chat.")
	}
	s.do(t, "POST", "/chat/a", "on it goes")
	st.expectRun(t, "a: on it goes")
}

// Unless told otherwise, the server keeps 4,096 events.
func TestDefaultHistory(t *testing.T) {
	s := start(t)
	first := s.lastID(t)
	s.do(t, "POST", "/users/alice", "")
	s.flood(t, "alice", 4096)
	st := s.open(t, "/chat/alice?lastEventId="+idPlus(t, first, 1))
	st.expectRun(t, slices.Repeat([]string{"alice: " + strings.Repeat("x", 4096)}, 4096)...)
	if b := s.subscribe(t, "/chat/alice?lastEventId="+first).block(t); !strings.Contains(b, "\nevent: gap\n") {
		t.Errorf("got %q, want a gap", b)
	}
}

// Unless told otherwise, a user is gone 5 s after its last stream, and a stream
// gets a comment 15 s after the last event.
func TestDefaultTimes(t *testing.T) {
	t.Parallel()
	s := start(t)
	watcher, alice := s.open(t, "/chat/watcher"), s.open(t, "/chat/alice")
	begin := time.Now()
	alice.body.Close()
	watcher.expectRun(t, arrives("watcher"), arrives("alice"), leaves("alice"))
	left := time.Now()
	if grace := left.Sub(begin); grace < 4500*time.Millisecond {
		t.Errorf("alice left after %v, want 5 s", grace)
	}
	timer := time.AfterFunc(25*time.Second, func() { watcher.body.Close() })
	defer timer.Stop()
	line, err := watcher.line()
	if quiet := time.Since(left); line != ": keep-alive" || quiet < 13*time.Second {
		t.Errorf("after %v got %q and %v, want a comment after 15 s", quiet, line, err)
	}
}

func arrives(name string) string { return "User " + name + " connected to the chat." }
func leaves(name string) string  { return "User " + name + " disconnected from the chat." }

// Every event that presence makes is compared, so that none more can hide. Of
// two users who leave, the one whose last stream ended first goes first.
func TestPresence(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, grace, steps string }{
		{"two tabs are one user", "0", "a=alice b=alice close:a c=bob close:c +alice +bob -bob close:b -alice"},
		{"back within the grace", "2s", "a=alice b=carol close:a c=alice close:b d=bob 200:POST:carol close:d +alice +carol +bob -bob"},
		{"back after the grace", "300ms", "a=alice close:a +alice -alice b=alice +alice"},
		{"POST keeps", "0", "a=alice 200:POST:alice b=bob close:a c=carol close:b +alice +bob +carol -bob 200:DELETE:alice -alice"},
		{"POST comes first", "0", "201:POST:alice a=alice b=bob close:a c=carol close:b +alice +bob +carol -bob 200:POST:alice"},
		{"DELETE with streams", "0", "a=alice 200:DELETE:alice b=alice close:a c=bob close:c +alice -alice +alice +bob -bob close:b -alice"},
		{"DELETE within the grace", "2s", "a=alice b=dave close:a c=bob 200:DELETE:alice 201:POST:alice close:c +alice +dave +bob -alice +alice -bob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// When a third stream beside the watcher's is let in, the server has seen the end of one.
			s := start(t, "-grace", c.grace, "-max-streams", "3")
			s.do(t, "POST", "/users/watcher", "")
			watcher, streams := s.open(t, "/chat/watcher"), map[string]*stream{}
			for step := range strings.FieldsSeq(c.steps) {
				stream, name, isOpen := strings.Cut(step, "=")
				if isOpen {
					streams[stream] = s.openWhenFree(t, "/chat/"+name)
				} else if stream, isClose := strings.CutPrefix(step, "close:"); isClose {
					streams[stream].body.Close()
				} else if name, isArrival := strings.CutPrefix(step, "+"); isArrival {
					watcher.expectRun(t, arrives(name))
				} else if name, isLeave := strings.CutPrefix(step, "-"); isLeave {
					watcher.expectRun(t, leaves(name))
				} else if p := strings.Split(step, ":"); fmt.Sprint(s.do(t, p[1], "/users/"+p[2], "").status) != p[0] {
					t.Errorf("%s of %s is not answered with %s", p[1], p[2], p[0])
				}
			}
		})
	}
}

// openWhenFree opens a stream as soon as the server has a place for it.
func (s *server) openWhenFree(t testing.TB, path string) (st *stream) {
	t.Helper()
	eventually(t, "a place for "+path, func() bool {
		var err error
		st, err = s.trySubscribe(path)
		return err == nil
	})
	t.Cleanup(func() { st.body.Close() })
	return st
}

// A user who is removed has streams no longer, but they read on.
func TestStreamOfNobody(t *testing.T) {
	s := start(t)
	old := s.open(t, "/chat/alice")
	s.do(t, "DELETE", "/users/alice", "")
	if r := s.do(t, "POST", "/chat/alice", "hi"); r.status != 404 {
		t.Errorf("got %d %q, want 404", r.status, r.body)
	}
	s.do(t, "POST", "/users/alice", "")
	s.do(t, "POST", "/chat/alice", "back")
	old.expectRun(t, arrives("alice"), leaves("alice"), arrives("alice"), "alice: back")
}

func TestLimits(t *testing.T) {
	s := start(t, "-max-users", "3", "-max-streams", "3", "-grace", "0")
	full := func(request string) {
		t.Helper()
		r := s.send(t, request, "")
		if _, err := strconv.ParseUint(r.header.Get("Retry-After"), 10, 31); !r.isError(503) || err != nil || r.header.Get("Last-Event-ID") != s.lastID(t) {
			t.Errorf("%s: got %d %v %q, want 503 at %s", request, r.status, r.header, r.body, s.lastID(t))
		}
	}
	s.do(t, "POST", "/users/alice", "")
	bob := s.open(t, "/chat/bob")
	s.unchanged(t, func() {
		full("POST /users/carol")
		full("GET /chat/carol")
		full("GET /chat")
		s.open(t, "/chat/alice") // the third, with the watcher's
		full("GET /chat/bob")
		if r := s.do(t, "POST", "/users/alice", ""); r.status != 200 {
			t.Errorf("got %d for one who is there, want 200", r.status)
		}
	})
	s.openWhenFree(t, "/chat/bob") // in the watcher's place
	full("GET /chat/bob")
	s.do(t, "DELETE", "/users/watcher", "")
	if r := s.do(t, "POST", "/users/carol", ""); r.status != 201 {
		t.Errorf("got %d in a place that is free, want 201", r.status)
	}
	full("POST /users/watcher")
	bob.expectRun(t, arrives("bob"), arrives("watcher"), "watcher: nothing happened", leaves("watcher"), arrives("carol"))
}

func TestOrigins(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	_, port, _ := strings.Cut(s.addr, ":")
	everything := []string{
		"GET /users", "POST /users/bob", "DELETE /users/alice", "OPTIONS /users/alice",
		"GET /chat", "GET /chat/bob", "POST /chat/alice", "GET /nosuch", "POST /",
	}
	for status, headers := range map[int][]string{ // parted by a bar
		200: {
			"X: y", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin|Origin: http://evil.example",
			"Origin: http://" + s.addr, "Host: localhost:" + port + "|Origin: http://localhost:" + port,
			"Host: LOCALHOST|Origin: http://localhost", "Host: [::1]:" + port + "|Origin: http://[::1]:" + port,
		},
		403: {
			"Sec-Fetch-Site: same-site", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: cross-site|Origin: http://" + s.addr,
			"Sec-Fetch-Site:", "Sec-Fetch-Site: nonsense", "Origin:", "Origin: null", "Origin: http://evil.example",
			"Origin: http://127.0.0.1", "Origin: http://127.0.0.1:1", "Origin: http://localhost:" + port,
			"Origin: http://" + s.addr + ".evil.example", "Origin: http://" + s.addr + "@evil.example",
			"Host: localhost|Origin: http://localhost:" + port,
		},
	} {
		for _, h := range headers {
			headers := strings.Split(h, "|")
			s.unchanged(t, func() {
				for _, request := range everything {
					if status == 403 {
						s.refuses(t, 403, request, "", headers...)
					}
				}
				for request, status := range map[string]int{"GET /users": status, "HEAD /users": status, "POST /users/alice": status, "GET /": 200, "HEAD /": 200} {
					if r := s.send(t, request, "", headers...); r.status != status {
						t.Errorf("%s with %q: got %d %q, want %d", request, h, r.status, r.body, status)
					}
				}
			})
		}
	}
}

func TestHosts(t *testing.T) {
	loopback := []string{"localhost", "LocalHost:1", "lobby.localhost", "a.b.localhost:80", "127.0.0.1", "127.255.0.3:99", "[::1]", "[::1]:8080"}
	foreign := []string{
		"evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost", "localhost.", "10.0.0.1", "0.0.0.0",
		"[::]", "[::ffff:10.0.0.1]", "[fe80::1]", "128.0.0.1", "2130706433", "127.1", "", ":8080",
	}
	for _, c := range []struct {
		args           []string
		allowed, other []string
	}{
		{nil, loopback, foreign},
		{[]string{"-addr", "localhost:0"}, loopback, foreign},
		{[]string{"-host", "chat.example", "-host", "Chat2.Example:8080"},
			append(loopback, "chat.example", "CHAT.example:123", "chat2.example"), append(foreign, "a.chat.example", "chat3.example")},
		{[]string{"-addr", "0.0.0.0:0"}, append(loopback, foreign...), nil},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			s := start(t, c.args...)
			for _, host := range c.allowed {
				for _, request := range []string{"GET /", "GET /users"} {
					if r := s.send(t, request, "", "Host: "+host); r.status != 200 {
						t.Errorf("%s of %q: got %d %q, want 200", request, host, r.status, r.body)
					}
				}
			}
			s.unchanged(t, func() {
				for _, host := range c.other {
					for _, request := range []string{"GET /", "GET /users", "GET /chat/bob", "POST /users/bob", "OPTIONS /users", "GET /nosuch"} {
						s.refuses(t, 421, request, "", "Host: "+host)
					}
				}
			})
		})
	}
}
