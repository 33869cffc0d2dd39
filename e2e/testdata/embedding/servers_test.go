package main

// NewHandler in each kind of http.Server belongs here. ../../embedding_test.go runs these tests in
// a separate module, beside what docs/embedding.md says to copy.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lobby/chat"
)

// kind is a kind of server.
type kind struct {
	name    string
	tls     bool
	http2   bool
	http10  bool
	limit   time.Duration // of the server, for reading and writing; 0 for none
	prefix  string        // of all paths
	handler func(http.Handler) http.Handler
}

var kinds = []kind{
	{name: "HTTP/1.1"},
	{name: "HTTP/1.0", http10: true},
	{name: "HTTP/1.1 over TLS", tls: true},
	{name: "HTTP/2", tls: true, http2: true},
	{name: "HTTP/2 without TLS", http2: true},
	{name: "time limits", limit: 10 * time.Second},
	{name: "HTTP/2 and time limits", http2: true, limit: 10 * time.Second},
	{name: "prefix", prefix: "/lobby", handler: func(h http.Handler) http.Handler {
		return http.StripPrefix("/lobby", h)
	}},
	{name: "prefix in a mux", prefix: "/lobby", handler: func(h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/lobby/", http.StripPrefix("/lobby", h))
		return mux
	}},
	{name: "middleware", handler: wrap},
	{name: "middleware and time limits", limit: 10 * time.Second, handler: wrap},
	{name: "middleware over HTTP/2", tls: true, http2: true, handler: wrap},
}

// wrapped is the ResponseWriter of middleware.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(wrapped{w}, r)
	})
}

// pipes is a listener whose connections are pipes.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error { return nil }

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// remote is a connection with an address that can be a user's name.
type remote struct{ net.Conn }

func (remote) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1234} }

// old is a client's connection that speaks HTTP/1.0.
type old struct{ net.Conn }

func (c old) Write(b []byte) (int, error) {
	_, err := c.Conn.Write(bytes.Replace(b, []byte(" HTTP/1.1\r\n"), []byte(" HTTP/1.0\r\n"), 1))
	return len(b), err
}

// site is a server of some kind and its client.
type site struct {
	t      *testing.T
	client *http.Client
	url    string
	dial   func() net.Conn
	hub    *Hub
	stop   context.CancelFunc
}

// serve starts a hub and a server in a bubble. Both end with the test.
func (k kind) serve(t *testing.T) *site {
	t.Helper()
	hub, err := NewHub(DefaultConfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go hub.Run(ctx)
	handler := NewHandler(hub)
	if k.handler != nil {
		handler = k.handler(handler)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!k.http2)
	protocols.SetHTTP2(k.http2 && k.tls)
	protocols.SetUnencryptedHTTP2(k.http2 && !k.tls)
	server := &http.Server{
		Handler: handler, ReadTimeout: k.limit, WriteTimeout: k.limit, Protocols: protocols,
	}
	l := make(pipes)
	url := "http://chat.example"
	if k.tls {
		url = "https://chat.example"
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
		go server.ServeTLS(l, "", "")
	} else {
		go server.Serve(l)
	}
	dial := func() net.Conn {
		client, conn := net.Pipe()
		l <- remote{conn}
		if k.http10 {
			return old{client}
		}
		return client
	}
	transport := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return dial(), nil },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		close(l)
		server.Close()
	})
	return &site{t, &http.Client{Transport: transport}, url + k.prefix, dial, hub, stop}
}

// certificate is made outside of all bubbles, because it takes a server that listens.
var certificate = func() tls.Certificate {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return server.TLS.Certificates[0]
}()

// do makes a request and fails the test unless the response has this status and body.
func (s *site) do(method, path, text string, status int, want string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || string(body) != want {
		s.t.Fatalf("%s %s: got %d %.100q, %v, want %d %.100q",
			method, path, resp.StatusCode, body, err, status, want)
	}
}

// stream opens a stream.
func (s *site) stream(path string) *stream {
	s.t.Helper()
	resp, err := s.client.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: got %d", path, resp.StatusCode)
	}
	st := &stream{t: s.t, body: resp.Body, events: make(chan string, 100)}
	go func() { // at once, because a pipe holds nothing
		defer close(st.events)
		scanner := bufio.NewScanner(resp.Body)
		for scanner.Scan() {
			if data, ok := strings.CutPrefix(scanner.Text(), "data: "); ok {
				st.events <- data
			}
		}
		st.err = scanner.Err()
	}()
	return st
}

type stream struct {
	t      *testing.T
	body   io.Closer
	events chan string // the data of each
	err    error       // once events is closed
}

// expect fails the test unless the next event is want.
func (st *stream) expect(want string) {
	st.t.Helper()
	if event, ok := <-st.events; event != want {
		st.t.Fatalf("got the event %q, %v, want %q", event, ok, want)
	}
}

// expectEnd fails the test unless the stream has ended as it should.
func (st *stream) expectEnd() {
	st.t.Helper()
	if event, ok := <-st.events; ok || st.err != nil {
		st.t.Fatalf("got the event %q, %v, want the end", event, st.err)
	}
}

func mustName(t *testing.T, s string) chat.Name {
	t.Helper()
	name, err := chat.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestHandlerWorksInEveryServer(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := k.serve(t)
				s.do("POST", "/users/alice", "", 201, "User alice connected.")
				s.do("POST", "/users/alice", "", 200, "User alice connected.")
				s.do("GET", "/users", "", 200, "Connected users:\nUser: alice")
				s.do("GET", "/nosuch", "", 404,
					"There is nothing at \"/nosuch\"; try /users, /chat or the page at /.\n")
				s.do("POST", "/chat/alice", strings.Repeat("x", 5000), 413,
					strings.ToUpper(bodyTooLong[:1])+bodyTooLong[1:]+".\n")

				st := s.stream("/chat/bob")
				defer st.body.Close()
				st.expect("User bob connected to the chat.")
				unnamed := s.stream("/chat")
				defer unnamed.body.Close()
				unnamed.expect("User 127.0.0.1:1234 connected to the chat.")
				st.expect("User 127.0.0.1:1234 connected to the chat.")

				// No time limit of an earlier response on the connection is left.
				for range 2 {
					time.Sleep(12 * time.Second)
					s.do("POST", "/chat/alice", "hello", 200, "alice: hello")
					st.expect("alice: hello")
				}

				// A client that disconnects leaves after the grace period.
				unnamed.body.Close()
				time.Sleep(DefaultConfig.Grace - 1)
				synctest.Wait()
				if f, _ := s.hub.Figures(); f.Streams != 1 || f.Users != 3 {
					t.Errorf("there are %d streams and %d users, want 1 and 3", f.Streams, f.Users)
				}
				time.Sleep(1)
				st.expect("User 127.0.0.1:1234 disconnected from the chat.")
				s.do("DELETE", "/users/alice", "", 200, "User alice disconnected.")
				st.expect("User alice disconnected from the chat.")

				s.stop()
				st.expectEnd()
				s.do("POST", "/users/alice", "", 503, "The server is stopping; try again later.\n")
			})
		})
	}
}

func TestLongListWorksInEveryServer(t *testing.T) {
	const users = 2500
	var text strings.Builder
	text.WriteString("Connected users:")
	names := make(map[string][]string)
	for n := range users {
		name := fmt.Sprintf("%064d", n)
		names["users"] = append(names["users"], name)
		text.WriteString("\nUser: " + name)
	}
	asJSON, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := k.serve(t)
				for _, name := range names["users"] {
					if _, _, err := s.hub.Join(t.Context(), mustName(t, name)); err != nil {
						t.Fatal(err)
					}
				}
				s.do("GET", "/users", "", 200, text.String())
				req, _ := http.NewRequest("GET", s.url+"/users", nil)
				req.Header.Set("Accept", "application/json")
				resp, err := s.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != string(asJSON) {
					t.Errorf("the list as JSON has %d bytes, want %d: %v", len(body), len(asJSON), err)
				}
				// No time limit of the list is left on the connection.
				time.Sleep(20 * time.Second)
				s.do("DELETE", "/users/alice", "", 404, "User alice is not connected.")
			})
		})
	}
}

func TestListThatIsNotReadToItsEndIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kinds[0].serve(t)
		for n := range 2500 {
			s.hub.Join(t.Context(), mustName(t, fmt.Sprintf("%064d", n)))
		}
		conn := s.dial()
		defer conn.Close()
		fmt.Fprint(conn, "GET /users HTTP/1.1\r\nHost: chat.example\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
		if err != nil {
			t.Fatal(err)
		}
		// The last bytes would fit into net/http's buffer.
		if _, err := io.ReadFull(resp.Body, make([]byte, resp.ContentLength-1000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("it waited for a minute")
		}
	})
}

func TestRejectedBodyIsNotWaitedFor(t *testing.T) {
	for _, k := range kinds {
		if k.http2 || k.http10 || k.tls {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := k.serve(t)
				conn := s.dial()
				defer conn.Close()
				begin := time.Now()
				fmt.Fprintf(conn, "POST %s/users/%%20 HTTP/1.1\r\nHost: chat.example\r\n"+
					"Content-Length: 9\r\n\r\n", k.prefix)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || resp.StatusCode != 400 || !resp.Close || time.Since(begin) > 0 {
					t.Errorf("got %+v, %v after %v", resp, err, time.Since(begin))
				}
				io.ReadAll(conn)
				if time.Since(begin) == 0 {
					t.Error("a reset may overtake the response")
				}
			})
		})
	}
}

func TestHandlerWorksWithARecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, _ := NewHub(DefaultConfig)
		go hub.Run(t.Context())
		handler := NewHandler(hub)
		do := func(ctx context.Context, method, path, body, want string) {
			t.Helper()
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body)))
			if got := w.Body.String(); !strings.HasSuffix(got, want) {
				t.Errorf("%s %s: got %q, want %q", method, path, got, want)
			}
		}
		do(t.Context(), "POST", "/users/alice", "", "User alice connected.")
		do(t.Context(), "POST", "/chat/alice", "hello", "alice: hello")
		do(t.Context(), "POST", "/chat/alice", strings.Repeat("x", 5000), "needs a body.\n")
		do(t.Context(), "GET", "/users", "", "Connected users:\nUser: alice")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		do(ctx, "GET", "/chat/bob", "", "data: User bob connected to the chat.\n\n"+
			strings.Repeat(": keep-alive\n\n", 3))
	})
}

func TestTimeoutHandlerCannotStream(t *testing.T) {
	k := kind{handler: func(h http.Handler) http.Handler {
		return http.TimeoutHandler(h, time.Minute, "too late")
	}}
	synctest.Test(t, func(t *testing.T) {
		s := k.serve(t)
		s.do("POST", "/users/alice", "", 201, "User alice connected.")
		s.do("GET", "/chat/bob", "", 500, "Streams are not possible behind this server's middleware: "+
			"its ResponseWriter has neither Flush nor Unwrap, like that of http.TimeoutHandler.\n")
		s.do("GET", "/users", "", 200, "Connected users:\nUser: alice")
	})
}
