// Here belongs what each request is answered with: every row of the contract's
// table, every header, and every error in its order.
package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// h is headers of a table's row, names and values in turn.
type h []string

// One story, told request by request.
func TestRequestsAreAnsweredAsTheTableSays(t *testing.T) {
	s := start(t)
	epoch := epochOf(s.lastID(t))
	const (
		some    = "(some sentence)"
		listed  = "Connected users:\nUser: Zoe\nUser: alice\nUser: bob\nUser: éric"
		noAlice = "User alice is not connected."
	)
	list := h{"Vary", "Accept", "Cache-Control", "no-store"}
	getHead, post := h{"Allow", "GET, HEAD, OPTIONS"}, h{"Allow", "DELETE, OPTIONS, POST"}
	getPost, get := h{"Allow", "GET, OPTIONS, POST"}, h{"Allow", "GET, OPTIONS"}
	for _, c := range []struct {
		request, body string
		status        int
		want          string
		seq           string // the number in Last-Event-ID; none if empty
		has           h
	}{
		{request: "GET /users", status: 200, want: "Connected users:\n", seq: "0", has: list},
		{request: "HEAD /users", status: 200, seq: "0",
			has: append(h{"Content-Length", "17"}, list...)},
		{request: "DELETE /users/alice", status: 404, want: noAlice, seq: "0"},
		{request: "POST /chat/alice", body: "hello",
			status: 404, want: noAlice, seq: "0"},

		{request: "POST /users/alice", status: 201, want: "User alice connected.", seq: "1"},
		{request: "POST /users/alice", status: 200, want: "User alice connected.", seq: "1"},
		{request: "POST /users/bob", body: "a body of no use",
			status: 201, want: "User bob connected.", seq: "2"},
		{request: "POST /users/%C3%A9ric", status: 201, want: "User éric connected.", seq: "3"},
		{request: "POST /users/Zoe", status: 201, want: "User Zoe connected.", seq: "4"},
		{request: "GET /users", status: 200, want: listed, seq: "4", has: list},
		{request: "HEAD /users", status: 200, seq: "4",
			has: append(h{"Content-Length", "60"}, list...)},

		{request: "POST /chat/alice", body: "hello", status: 200, want: "alice: hello", seq: "5"},
		{request: "POST /chat/alice?lastEventId=x", body: "one\r\ntwo\rthree\n",
			status: 200, want: "alice: one\ntwo\nthree", seq: "6"},
		{request: "POST /chat/nobody", body: "hello",
			status: 404, want: "User nobody is not connected.", seq: "6"},

		{request: "DELETE /users/alice", status: 200, want: "User alice disconnected.", seq: "7"},
		{request: "DELETE /users/alice", status: 404, want: noAlice, seq: "7"},
		{request: "POST /chat/alice", body: "hello",
			status: 404, want: noAlice, seq: "7"},
		{request: "POST /users/alice", status: 201, want: "User alice connected.", seq: "8"},
		{request: "POST /users/%3Cb%3E%22", status: 201, want: `User <b>" connected.`, seq: "9"},
		{request: "POST /chat/%3Cb%3E%22", body: "<i> ",
			status: 200, want: `<b>": <i> `, seq: "10"},

		{request: "OPTIONS /users", status: 200, has: getHead},
		{request: "OPTIONS /users/alice", status: 200, has: post},
		{request: "OPTIONS /chat", status: 200, has: get},
		{request: "OPTIONS /chat/alice", status: 200, has: getPost},
		{request: "OPTIONS /", status: 200, has: getHead},
		{request: "OPTIONS /lobby.js", status: 200, has: getHead},
		{request: "PUT /users", status: 405, want: some, has: getHead},
		{request: "GET /users/alice", status: 405, want: some, has: post},
		{request: "HEAD /users/alice", status: 405, has: post},
		{request: "PUT /users/alice", status: 405, want: some, has: post},
		{request: "HEAD /chat", status: 405, has: get},
		{request: "HEAD /chat/alice", status: 405, has: getPost},
		{request: "DELETE /chat/alice", status: 405, want: some, has: getPost},
		{request: "POST /", status: 405, want: some, has: getHead},
		{request: "BREW /", status: 405, want: some, has: getHead},
		{request: "GET /nosuch", status: 404, want: some},
		{request: "HEAD /nosuch", status: 404},
		{request: "OPTIONS /nosuch", status: 404, want: some},
	} {
		r := s.send(t, c.request, c.body)
		if r.status != c.status || r.body != c.want && !(c.want == some && r.isError(c.status)) {
			t.Errorf("%s: got %d %q, want %d %q", c.request, r.status, r.body, c.status, c.want)
		}
		id := ""
		if c.seq != "" {
			id = epoch + "-" + c.seq
		}
		has := append(h{"Last-Event-ID", id, "Location", ""}, c.has...)
		if !strings.HasPrefix(c.request, "OPTIONS") {
			has = append(has, "Content-Type", "text/plain; charset=utf-8",
				"X-Content-Type-Options", "nosniff")
		}
		r.mustHave(t, c.request, has...)
	}

	st := s.subscribe(t, "/chat/bob?lastEventId="+epoch+"-0")
	if got := st.header.Get("Last-Event-ID"); got != epoch+"-10" {
		t.Errorf("the stream of one who is there has the Last-Event-ID %q, want %s-10", got, epoch)
	}
	st.expectRun(t, arrives("alice"), arrives("bob"), arrives("éric"), arrives("Zoe"),
		"alice: hello", "alice: one\ntwo\nthree", leaves("alice"), arrives("alice"),
		arrives(`<b>"`), `<b>": <i> `)
}

// mustHave fails the test unless the answer has those headers. One that is to be
// empty must not be there.
func (r response) mustHave(t testing.TB, request string, headers ...string) {
	t.Helper()
	for i := 0; i < len(headers); i += 2 {
		name, want := headers[i], headers[i+1]
		if got := strings.Join(r.header.Values(name), ", "); got != want {
			t.Errorf("%s: got %s: %q, want %q", request, name, got, want)
		}
	}
}

// The page and whatever it loads can be read by all, and by HEAD too.
func TestPageIsOpenToAll(t *testing.T) {
	s := start(t)
	page := s.send(t, "GET /", "", "Sec-Fetch-Site", "cross-site")
	if page.status != 200 || page.body == "" {
		t.Fatalf("got %d %q, want a page", page.status, page.body)
	}
	paths := []string{"/"}
	link := regexp.MustCompile(`(?:href|src)="/?([\w.-]+)"`)
	for _, m := range link.FindAllStringSubmatch(page.body, -1) {
		paths = append(paths, "/"+m[1])
	}
	contentTypes := map[string]string{
		"/": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	}
	for _, path := range paths {
		get := s.send(t, "GET "+path, "", "Origin", "http://evil.example")
		head := s.send(t, "HEAD "+path, "", "Sec-Fetch-Site", "cross-site")
		contentType := contentTypes[path[strings.LastIndexAny(path, "./"):]]
		for _, r := range []response{get, head} {
			if r.status != 200 {
				t.Errorf("%s: got %d, want 200", path, r.status)
			}
			r.mustHave(t, path,
				"Content-Type", contentType, "Content-Length", strconv.Itoa(len(get.body)),
				"X-Content-Type-Options", "nosniff", "Last-Event-ID", "")
		}
		s.mustRefuse(t, 403, "POST "+path, "", "Sec-Fetch-Site", "cross-site")
	}
}

func TestListIsJSONForThoseWhoAcceptIt(t *testing.T) {
	s := start(t)
	if r := s.send(t, "GET /users", "", "Accept", "application/json"); r.body != `{"users":[]}` {
		t.Errorf("got %q of nobody", r.body)
	}
	for _, name := range []string{"bob", "a%22b", "%C3%A9"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	for _, c := range []struct {
		contentType, body string
		accepts           []h
	}{
		{
			contentType: "text/plain; charset=utf-8",
			body:        "Connected users:\nUser: a\"b\nUser: bob\nUser: é",
			accepts: []h{
				{}, {"Accept", ""}, {"Accept", "*/*"}, {"Accept", "text/plain"},
				{"Accept", "text/html,application/xhtml+xml,*/*;q=0.8"},
				{"Accept", "application/json;q=0"}, {"Accept", "application/json;q=0.0, */*"},
				{"Accept", "application/json;q=0.1, text/plain"},
				{"Accept", "text/plain, application/json;q=0.5"},
				{"Accept", "application/jsonp"}, {"Accept", "nonsense;;,/"},
			},
		},
		{
			contentType: "application/json",
			body:        `{"users":["a\"b","bob","é"]}`,
			accepts: []h{
				{"Accept", "application/json"}, {"Accept", "Application/JSON"},
				{"Accept", "application/json; charset=utf-8"},
				{"Accept", "application/json, text/plain, */*"},
				{"Accept", "application/json, text/plain;q=0.5, */*;q=0.1"},
				{"Accept", "text/html, Application/JSON;q=0.9"},
				{"Accept", "text/html", "Accept", "application/json;q=0.9"},
			},
		},
	} {
		for _, accept := range c.accepts {
			get := s.send(t, "GET /users", "", accept...)
			head := s.send(t, "HEAD /users", "", accept...)
			for _, r := range []response{get, head} {
				if r.status != 200 {
					t.Errorf("%q: got %d, want 200", accept, r.status)
				}
				r.mustHave(t, fmt.Sprintf("%q", accept), "Content-Type", c.contentType,
					"Content-Length", strconv.Itoa(len(c.body)), "Vary", "Accept",
					"Cache-Control", "no-store", "Last-Event-ID", s.lastID(t),
					"X-Content-Type-Options", "nosniff")
			}
			if get.body != c.body {
				t.Errorf("%q: got %q, want %q", accept, get.body, c.body)
			}
		}
	}
}

// A request that is wrong in several ways is answered for the first of them. If
// it has a body that was not read, the connection ends with the answer.
func TestTheFirstErrorIsAnswered(t *testing.T) {
	s := start(t, "-max-users", "1", "-max-streams", "1") // which the watcher takes
	foreign, cross := h{"Host", "evil.example"}, h{"Sec-Fetch-Site", "cross-site"}
	both := append(foreign, cross...)
	big := strings.Repeat("x", 5000)
	s.mustNotChange(t, func() {
		for _, c := range []struct {
			request, body string
			headers       h
			status        int
		}{
			{request: "PATCH /nosuch/%0A", body: big, headers: both, status: 421},
			{request: "PUT /nosuch", headers: both, status: 421},
			{request: "GET /", headers: both, status: 421},
			{request: "PATCH /nosuch/%0A", body: big, headers: cross, status: 403},
			{request: "PATCH /users", body: big, headers: cross, status: 403},
			{request: "POST /users/%0A", body: big, headers: cross, status: 403},
			{request: "GET /chat/%0A", body: big, headers: cross, status: 403},
			{request: "PATCH /nosuch/%0A", body: big, status: 404},
			{request: "PATCH /chat/%0A", body: big, status: 405},
			{request: "GET /users/%0A", body: big, status: 405},
			{request: "PUT /users/%0A", status: 405},
			{request: "POST /users/%0A", body: big, status: 400},
			{request: "DELETE /users/%0A", body: big, status: 400},
			{request: "POST /chat/%0A", body: big, status: 400},
			{request: "POST /chat/%0A", body: strings.Repeat("x", 1<<20), status: 400},
			{request: "POST /users/bob", body: big, status: 413},
			{request: "DELETE /users/bob", body: big, status: 413},
			{request: "POST /chat/bob", body: big, status: 413},
			{request: "POST /chat/bob", body: "\n", status: 400},
			{request: "POST /chat/bob", status: 400},
			{request: "GET /chat/bob", body: "x", status: 400},
			{request: "POST /users/bob", status: 503},
			{request: "GET /chat/bob", status: 503},
		} {
			r := s.mustRefuse(t, c.status, c.request, c.body, c.headers...)
			if wasRead := c.body == "\n"; c.body != "" && !wasRead && !r.closes {
				t.Errorf("%s with a body: the %d does not end the connection", c.request, c.status)
			}
		}
	})
}
