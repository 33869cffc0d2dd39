// Tests the response to each request: every row of the contract's table, every header, and every
// error in its order.
package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// The requests are one story.
func TestResponsesAreThoseOfTheTable(t *testing.T) {
	s := start(t)
	epoch := epochOf(s.lastID(t))
	const (
		some    = "(a sentence)"
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
		{request: "POST /chat/alice", body: "hello", status: 404, want: noAlice, seq: "0"},

		{request: "POST /users/alice", status: 201, want: "User alice connected.", seq: "1"},
		{request: "POST /users/alice", status: 200, want: "User alice connected.", seq: "1"},
		{request: "POST /users/bob", body: "a body that is ignored",
			status: 201, want: "User bob connected.", seq: "2"},
		{request: "POST /users/%C3%A9ric", status: 201, want: "User éric connected.", seq: "3"},
		{request: "POST /users/Zoe", status: 201, want: "User Zoe connected.", seq: "4"},
		{request: "GET /users", status: 200, want: listed, seq: "4", has: list},
		{request: "HEAD /users", status: 200, seq: "4",
			has: append(h{"Content-Length", "60"}, list...)},

		{request: "POST /chat/alice", body: "hello", status: 200, want: "alice: hello", seq: "5"},
		{request: "POST /chat/alice?lastEventId=x", body: "one\r\ntwo\rthree\n",
			status: 200, want: "alice: one\ntwo\nthree", seq: "6"},

		{request: "DELETE /users/alice", status: 200, want: "User alice disconnected.", seq: "7"},
		{request: "DELETE /users/alice", status: 404, want: noAlice, seq: "7"},
		{request: "POST /users/alice", status: 201, want: "User alice connected.", seq: "8"},
		{request: "POST /users/%3Cb%3E%22", status: 201, want: `User <b>" connected.`, seq: "9"},
		{request: "POST /chat/%3Cb%3E%22", body: "<i> ",
			status: 200, want: `<b>": <i> `, seq: "10"},

		{request: "OPTIONS /users", status: 200, has: getHead},
		{request: "OPTIONS /users/alice", status: 200, has: post},
		{request: "OPTIONS /chat", status: 200, has: get},
		{request: "OPTIONS /chat/alice", status: 200, has: getPost},
		{request: "OPTIONS /", status: 200, has: getHead},
		{request: "PUT /users", status: 405, want: some, has: getHead},
		{request: "GET /users/alice", status: 405, want: some, has: post},
		{request: "HEAD /chat", status: 405, has: get},
		{request: "HEAD /chat/alice", status: 405, has: getPost},
		{request: "DELETE /chat/alice", status: 405, want: some, has: getPost},
		{request: "POST /", status: 405, want: some, has: getHead},
		{request: "GET /nosuch", status: 404, want: some},
		{request: "HEAD /nosuch", status: 404},
		{request: "GET //users", status: 404, want: some},
		{request: "GET /users/", status: 404, want: some},
		{request: "GET /users/../users", status: 404, want: some},
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
	if got, want := st.header.Get("Last-Event-ID"), epoch+"-10"; got != want {
		t.Errorf("a present user's stream has the Last-Event-ID %q, want %q", got, want)
	}
	st.expectRun(t, arrives("alice"), arrives("bob"), arrives("éric"), arrives("Zoe"),
		"alice: hello", "alice: one\ntwo\nthree", leaves("alice"), arrives("alice"),
		arrives(`<b>"`), `<b>": <i> `)
}

func TestListIsJSONIfTheRequestPrefersThat(t *testing.T) {
	s := start(t)
	if r := s.send(t, "GET /users", "", "Accept", "application/json"); r.body != `{"users":[]}` {
		t.Errorf("got %q with nobody present", r.body)
	}
	for _, name := range []string{"bob", "a%22b", "%C3%A9"} {
		s.do(t, "POST", "/users/"+name, "")
	}
	const plain = "text/plain; charset=utf-8"
	bodies := map[string]string{
		plain:              "Connected users:\nUser: a\"b\nUser: bob\nUser: é",
		"application/json": `{"users":["a\"b","bob","é"]}`,
	}
	for _, c := range []struct {
		contentType string
		accept      h
	}{
		{plain, h{}}, {plain, h{"Accept", "text/html,application/xhtml+xml,*/*;q=0.8"}},
		{plain, h{"Accept", "application/json;q=0.0, */*"}},
		{plain, h{"Accept", "text/plain, application/json;q=0.5"}},
		{plain, h{"Accept", "nonsense;;,/"}},
		{"application/json", h{"Accept", "Application/JSON; charset=utf-8"}},
		{"application/json", h{"Accept", "application/json, text/plain;q=0.5, */*;q=0.1"}},
		{"application/json", h{"Accept", "text/html", "Accept", "application/json;q=0.9"}},
	} {
		body := bodies[c.contentType]
		get := s.send(t, "GET /users", "", c.accept...)
		head := s.send(t, "HEAD /users", "", c.accept...)
		if get.status != 200 || get.body != body || head.status != 200 {
			t.Errorf("%q: got %d and %d with %q, want %q",
				c.accept, head.status, get.status, get.body, body)
		}
		for _, r := range []response{get, head} {
			r.mustHave(t, fmt.Sprintf("%q", c.accept), "Content-Type", c.contentType,
				"Content-Length", strconv.Itoa(len(body)), "Vary", "Accept",
				"Cache-Control", "no-store", "Last-Event-ID", s.lastID(t),
				"X-Content-Type-Options", "nosniff")
		}
	}
}

// The body of each of these requests is announced but never sent: the response does not wait for
// it, and ends the connection.
func TestFirstFaultOfARequestIsReportedAtOnce(t *testing.T) {
	s := start(t, "-max-users", "1", "-max-streams", "1") // The watcher takes both places.
	foreign, cross := h{"Host", "evil.example"}, h{"Sec-Fetch-Site", "cross-site"}
	both := append(foreign, cross...)
	const (
		host = `this server does not answer to host "evil.example"; allow it with -host`
		site = "cross-site requests are rejected; use this server's own page"
		path = `there is nothing at "/nosuch/\n"; try /users, /chat or the page at /`
		name = "the name contains U+000A, which is white space; use \"-\" or \"_\" instead"
		size = "the body is too long: a message has at most 4096 bytes, " +
			"and no other request needs a body"
		noBody   = "a stream request must not have a body"
		prefetch = "a stream cannot be prefetched, because that would announce its user"
	)
	s.mustNotChange(t, func() {
		for _, c := range []struct {
			request string
			length  int // of the body
			headers h
			status  int
			want    string // The response has it with a capital letter and a period.
		}{
			{"PATCH /nosuch/%0A", 5000, both, 421, host},
			{"GET /", 0, both, 421, host},
			{"PATCH /nosuch/%0A", 5000, cross, 403, site},
			{"PATCH /users", 5000, cross, 403, site},
			{"POST /users/%0A", 5000, h{"Origin", "http://evil.example"}, 403, site},
			{"GET /chat/%0A", 5000, cross, 403, site},
			{"PATCH /nosuch/%0A", 5000, nil, 404, path},
			{"PATCH /chat/%0A", 5000, nil, 405,
				"method PATCH is not allowed here; use GET, OPTIONS, POST"},
			{"GET /users/%0A", 5000, nil, 405,
				"method GET is not allowed here; use DELETE, OPTIONS, POST"},
			{"POST /users/%0A", 2, nil, 400, name},
			{"DELETE /users/%0A", 5000, nil, 400, name},
			{"POST /chat/%0A", 1 << 20, nil, 400, name},
			{"POST /users/bob", 5000, nil, 413, size},
			{"DELETE /users/bob", 5000, nil, 413, size},
			{"POST /chat/bob", 1 << 20, nil, 413, size},
			{"POST /chat/bob", 0, nil, 400,
				"the message is empty; send its text as the request body"},
			{"GET /chat/bob", 0, h{"Sec-Purpose", "prefetch;prerender"}, 403, prefetch},
			{"GET /chat/bob", 2, nil, 400, noBody},
			{"POST /users/bob", 0, nil, 503, "there are too many users; try again later"},
			{"GET /chat/bob", 0, nil, 503, "there are too many open streams; try again later"},
		} {
			bodies := []h{{"Content-Length", strconv.Itoa(c.length)}}
			if c.length > 0 {
				bodies = append(bodies, append(bodies[0], "Expect", "100-continue"))
			}
			if c.length > 0 && c.status != 413 && c.want != noBody { // these depend on the length
				bodies = append(bodies, h{"Transfer-Encoding", "chunked"})
			}
			for _, body := range bodies {
				r := s.mustRefuse(t, c.status, c.request, "", append(body, c.headers...)...)
				want := strings.ToUpper(c.want[:1]) + c.want[1:] + "."
				if got := strings.TrimSuffix(r.body, "\n"); got != want {
					t.Errorf("%s: got %q, want %q", c.request, got, want)
				}
				if r.closes != (c.length > 0) {
					t.Errorf("%s with %q: the connection closes: %v", c.request, body, r.closes)
				}
			}
		}
	})
}

// What a name may be is tested beside package chat.
func TestNameIsPercentDecodedAndThenChecked(t *testing.T) {
	s := start(t)
	for path, name := range map[string]string{
		"a+b": "a+b", "%2E..": "...", "%2525": "%25", "%3Fa%23b": "?a#b", ":name": ":name",
		"127.0.0.1:80": "127.0.0.1:80", "\xc3\xa9": "é", "%F0%9F%98%80": "😀",
		strings.Repeat("%F0%9F%98%80", 64): strings.Repeat("😀", 64),
	} {
		for _, c := range []struct{ request, body, want string }{
			{request: "POST /users/", want: "User " + name + " connected."},
			{request: "POST /chat/", body: "hi", want: name + ": hi"},
			{request: "DELETE /users/", want: "User " + name + " disconnected."},
		} {
			if r := s.send(t, c.request+path, c.body); r.status >= 300 || r.body != c.want {
				t.Errorf("%s%q: got %d %q, want %q", c.request, path, r.status, r.body, c.want)
			}
		}
		s.subscribe(t, "/chat/"+path).expect(t, arrives(name))
	}
	s.mustNotChange(t, func() {
		for path, want := range map[string]struct {
			status int
			body   string // a part of it
		}{
			"":                         {404, "There is nothing at"},
			"a%2Fb":                    {404, "There is nothing at"},
			"%2e%2E":                   {400, `A name cannot be "..", because`},
			"%0D%0A%0D%0Aevent:%20gap": {400, "The name contains U+000D, which is"},
			"\xff":                     {400, "The name is not valid UTF-8"},
		} {
			for _, request := range []string{
				"POST /users/", "DELETE /users/", "GET /chat/", "POST /chat/",
			} {
				r := s.mustRefuse(t, want.status, request+path, "")
				if !strings.Contains(r.body, want.body) {
					t.Errorf("%s%q: got %q, want %q", request, path, r.body, want.body)
				}
			}
		}
	})
}

// What a message may be is tested beside package chat.
func TestMessageIsCheckedWhateverItsContentType(t *testing.T) {
	s := start(t)
	s.do(t, "POST", "/users/alice", "")
	st := s.subscribe(t, "/chat/alice")
	st.mustOpen(t)
	longest := strings.Repeat("x", 4096)
	for body, text := range map[string]string{
		"a=b&c=%41": "a=b&c=%41", " \ta ": " \ta ", longest + "\r\n": longest,
		"a\r\nb\rc\u2028\u2029data: d": "a\nb\nc\n\ndata: d",
	} {
		form := h{"Content-Type", "application/x-www-form-urlencoded"}
		r := s.send(t, "POST /chat/alice", body, form...)
		if r.status != 200 || r.body != "alice: "+text {
			t.Fatalf("%.40q: got %d %.40q, want %.40q", body, r.status, r.body, text)
		}
		st.expectRun(t, "alice: "+text)
	}
	s.mustNotChange(t, func() {
		for body, want := range map[string]struct {
			status int
			body   string
		}{
			longest + "x\n": {413, "The message is longer than 4096 bytes."},
			"a\xc3":         {400, "The message is not valid UTF-8."},
		} {
			r := s.mustRefuse(t, want.status, "POST /chat/alice", body)
			if !strings.Contains(r.body, want.body) {
				t.Errorf("%.40q: got %q, want %q", body, r.body, want.body)
			}
		}
	})
}
