package e2e

// What stands between a page and the server in some tests, as a proxy does, and misbehaves.

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// front hands requests on to a server, and knows the streams among them.
type front struct {
	*httptest.Server

	mu      sync.Mutex
	streams []*frontStream // all that were asked for, oldest first
	deaf    bool           // new streams bring nothing but their head
	answer  func(http.ResponseWriter, *http.Request) (done bool)
}

type frontStream struct {
	request *http.Request
	body    io.ReadCloser
	deaf    chan struct{} // closed when the stream brings nothing any more
}

// newFront starts a front of s. The test ends it.
func newFront(t *testing.T, s *server) *front {
	t.Helper()
	f := newUnstartedFront(t, s)
	f.Start()
	return f
}

// newUnstartedFront is newFront for a test that starts it in its own way.
func newUnstartedFront(t *testing.T, s *server) *front {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{},
		ModifyResponse: func(r *http.Response) error {
			if r.Header.Get("Content-Type") == "text/event-stream" {
				r.Body = f.add(r)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			panic(http.ErrAbortHandler) // as if nobody stood between
		},
	}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			answer := f.answer
			f.mu.Unlock()
			if answer == nil || !answer(w, r) {
				proxy.ServeHTTP(w, r)
			}
		}))
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	return f
}

func (f *front) add(r *http.Response) io.ReadCloser {
	s := &frontStream{request: r.Request, body: r.Body, deaf: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streams = append(f.streams, s)
	if f.deaf {
		close(s.deaf)
	}
	return s
}

// Read brings what the server sends until the stream is deaf, and then nothing, until the page
// has gone.
func (s *frontStream) Read(buffer []byte) (int, error) {
	n, err := s.body.Read(buffer)
	select {
	case <-s.deaf:
		<-s.request.Context().Done()
		return 0, s.request.Context().Err()
	default:
		return n, err
	}
}

func (s *frontStream) Close() error { return s.body.Close() }

// setAnswer has the front answer those requests itself for which answer returns true.
func (f *front) setAnswer(answer func(http.ResponseWriter, *http.Request) (done bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// swallow makes the streams that are open deaf.
func (f *front) swallow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.streams {
		select {
		case <-s.deaf: // already
		default:
			close(s.deaf)
		}
	}
}

// setDeaf has all streams that open from now on be deaf, or not.
func (f *front) setDeaf(deaf bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf = deaf
}

// asked returns how many streams were asked for, and how many of them are open.
func (f *front) asked() (all, open int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.streams {
		if s.request.Context().Err() == nil {
			open++
		}
	}
	return len(f.streams), open
}

// resumedFrom returns the Last-Event-ID that the page gave for its last stream.
func (f *front) resumedFrom() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.streams[len(f.streams)-1].request.Header.Get("Last-Event-ID")
}

// isStream reports whether r asks for a stream.
func isStream(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/chat/")
}

// waitForAsked waits until n streams were asked for.
func (f *front) waitForAsked(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		all, _ := f.asked()
		if all == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("streams asked for after %v: got %d, want %d", patience, all, n)
		}
	}
}

// waitForOpen waits until exactly n streams are open.
func (f *front) waitForOpen(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, open := f.asked()
		if open == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("open streams after %v: got %d, want %d", patience, open, n)
		}
	}
}

// waitForUsers waits until the server lists exactly those users.
func waitForUsers(t *testing.T, s *server, names ...string) {
	t.Helper()
	want := "Connected users:\n"
	if len(names) > 0 {
		want += "User: " + strings.Join(names, "\nUser: ")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := s.do(t, "GET", "/users", "").body
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("users after %v: got %q, want %q", patience, got, want)
		}
	}
}
