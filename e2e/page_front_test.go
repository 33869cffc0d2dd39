package e2e

// A misbehaving proxy between the page and the server.

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// front is a proxy that forwards requests to a server and knows the streams among them.
type front struct {
	*httptest.Server

	mu      sync.Mutex
	streams []*frontStream // all that were requested, oldest first
	handle  func(http.ResponseWriter, *http.Request) (done bool)
}

type frontStream struct {
	request *http.Request
	body    io.ReadCloser
	deaf    chan struct{} // closed when the stream is to deliver nothing more
}

// newFront starts a front of s, until the test ends.
func newFront(t *testing.T, s *server) *front {
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
			if strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
				r.Body = f.add(r)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			panic(http.ErrAbortHandler) // as if there were no proxy
		},
	}
	f.Server = httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			handle := f.handle
			f.mu.Unlock()
			if handle == nil || !handle(w, r) {
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
	return s
}

// Read returns what the server sends until the stream is deaf, and then blocks until the page has
// gone.
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

// intercept sets a function that may respond to a request itself, in which case it returns true.
func (f *front) intercept(handle func(http.ResponseWriter, *http.Request) (done bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handle = handle
}

// swallow makes all open streams deaf.
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

// asked returns how many streams were requested and how many of them are open.
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

// isStream reports whether r requests a stream.
func isStream(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/chat/")
}

// waitForOpen waits until exactly n streams are open.
func (f *front) waitForOpen(t *testing.T, n int) {
	t.Helper()
	waitForValue(t, "open streams", fmt.Sprint(n), func() string {
		_, open := f.asked()
		return fmt.Sprint(open)
	})
}

// waitForUsers waits until the server lists exactly these users.
func waitForUsers(t *testing.T, s *server, names ...string) {
	t.Helper()
	want := "Connected users:\n"
	if len(names) > 0 {
		want += "User: " + strings.Join(names, "\nUser: ")
	}
	waitForValue(t, "users", want, func() string { return s.do(t, "GET", "/users", "").body })
}
