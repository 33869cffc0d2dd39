package metrics

// What belongs here: which responses are counted, and when.

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// wrapped is a middleware's ResponseWriter.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestEachResponseIsCountedByTheTimeItsClientHasIt(t *testing.T) {
	m := NewMonitor("users", "streams")
	m.Watch(func(text *Text) { text.Gauge("more", "From the source.", Sample{Value: 7}) })
	counting := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/implicit":
		case "/abort":
			w.WriteHeader(404)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/users":
			NoteLimit(wrapped{w}, "users")
			w.WriteHeader(503)
		case "/hijack":
			conn, _, err := Uncounted(w).(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			conn.Close()
		}
	}))
	hijacked := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counting.ServeHTTP(w, r)
		if r.URL.Path == "/hijack" {
			close(hijacked)
		}
	}))
	defer server.Close()
	NoteLimit(httptest.NewRecorder(), "users") // nobody counts this response
	m.Count(503, "streams")
	for _, path := range []string{"/implicit", "/abort", "/users", "/users"} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	resp, err := http.Get(server.URL + "/hijack")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-hijacked     // nothing is counted before the handler returns
	server.Close() // waits for the handler of /abort
	text := string(m.Text())
	for _, want := range []string{
		`lobby_responses_total{class="2xx"} 2`,
		`lobby_responses_total{class="3xx"} 0`,
		`lobby_responses_total{class="4xx"} 1`,
		`lobby_responses_total{class="5xx"} 3`,
		`lobby_rejections_total{limit="users"} 2`,
		`lobby_rejections_total{limit="streams"} 1`,
		`more 7`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}
