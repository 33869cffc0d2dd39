package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"

	"lobby/chain"
	"lobby/chat"
	"lobby/metrics"
	"lobby/origin"
	"lobby/room"
	"lobby/roster"
	"lobby/streaming"
	"lobby/web"
)

// server handles HTTP requests. For each request about users or events, it asks the hub once.
//
// It does not pass the request's context on: net/http cancels it when the client closes its side of
// the connection, and such a client (HTTP/1.0 clients, nc) may still be waiting for the response.
// The hub replies at once or, on several machines, within seconds, so there is nothing to cancel.
type server struct {
	hub       *Hub
	answersTo func(origin.Host) bool // whether the Host of a request is this server's
	crowded   func() bool            // whether connections are getting scarce
	lists     chan struct{}          // has an element for each long list that is being sent
	router    *httprouter.Router
}

// NewHandler returns a handler for any http.Server. It answers to every Host. What belongs to a
// server or its listener is not limited: connections, their idle time, and the time for a request's
// head.
func NewHandler(hub *Hub) http.Handler {
	return newServer(hub, func(origin.Host) bool { return true }, func() bool { return false })
}

// newServer returns the handler for the http.Server of runningHub.serve.
func newServer(hub *Hub, answersTo func(origin.Host) bool, crowded func() bool) *server {
	router := newRouter("/users, /chat or the page at /")
	s := &server{hub, answersTo, crowded, make(chan struct{}, maxLists), router}
	router.POST("/chat/:name", named(s.say))
	router.POST("/users/:name", named(s.join))
	router.DELETE("/users/:name", named(s.leave))
	router.GET("/users", s.list)
	router.HEAD("/users", s.list)
	router.GET("/chat", s.stream)
	router.GET("/chat/:name", s.stream)
	for _, path := range web.Paths() {
		router.GET(path, page)
		router.HEAD(path, page)
	}
	return s
}

// newMetricsServer returns the handler for the http.Server of serveMetrics.
func newMetricsServer(
	monitor *metrics.Monitor, answersTo func(origin.Host) bool, crowded func() bool,
) *server {
	router := newRouter("/metrics")
	get := func(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
		if _, ok := readBody(w, r); ok {
			w.Header().Set("Cache-Control", "no-store")
			setHead(w, chain.ID{}, metrics.ContentType)
			w.Write(monitor.Text())
		}
	}
	router.GET("/metrics", get)
	router.HEAD("/metrics", get)
	return &server{answersTo: answersTo, crowded: crowded, router: router}
}

// ServeHTTP applies the checks that are common to all requests, and routes those that pass.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	// net/http drops Content-Length if there is a Transfer-Encoding, so nobody can tell whether both
	// were sent. If they were, the connection must be closed (RFC 9112, section 6.1).
	if len(r.TransferEncoding) > 0 || s.crowded() {
		closeConn(w, r)
	}
	if r.URL.Path == "" && r.URL.Opaque == "" && r.Method != http.MethodConnect {
		r.URL.Path = "/" // of "GET http://127.0.0.1 HTTP/1.1"
	}
	switch size, lines := head(r); {
	case size > maxHead:
		failHead(w, r, fmt.Sprintf("the request line and headers exceed %d bytes", maxHead))
	case lines > maxHeadLines:
		failHead(w, r, fmt.Sprintf("the request has more than %d header lines", maxHeadLines))
	case r.Host != "" && !s.answersTo(origin.HostOf(r.Host)): // health checks may have no Host
		fail(w, r, http.StatusMisdirectedRequest,
			fmt.Sprintf("this server does not answer to host %q; allow it with -host", r.Host))
	case !isPage(r) && origin.IsCrossOrigin(r):
		fail(w, r, http.StatusForbidden, "cross-site requests are rejected; use this server's own page")
	default:
		s.router.ServeHTTP(w, r)
	}
}

func (s *server) say(w http.ResponseWriter, r *http.Request, name chat.Name, body string) {
	text, err := chat.ParseText(body)
	if errors.Is(err, chat.ErrTextTooLong) {
		fail(w, r, http.StatusRequestEntityTooLarge, err.Error())
		return
	}
	if err != nil {
		fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	id, err := s.hub.Say(context.Background(), name, text)
	if err != nil {
		failHub(w, r, id, name, err)
		return
	}
	respond(w, http.StatusOK, id, name.String()+": "+text.String())
}

func (s *server) join(w http.ResponseWriter, r *http.Request, name chat.Name, _ string) {
	id, isNew, err := s.hub.Join(context.Background(), name)
	if err != nil {
		failHub(w, r, id, name, err)
		return
	}
	status := http.StatusOK
	if isNew {
		status = http.StatusCreated
	}
	respond(w, status, id, "User "+name.String()+" connected.")
}

func (s *server) leave(w http.ResponseWriter, r *http.Request, name chat.Name, _ string) {
	id, err := s.hub.Leave(context.Background(), name)
	if err != nil {
		failHub(w, r, id, name, err)
		return
	}
	respond(w, http.StatusOK, id, "User "+name.String()+" disconnected.")
}

const (
	// Lists that are being sent may use 64 MiB: roster.MaxRetained for old ones, and a buffer of
	// roster.MaxPiece for each long one. So at most maxLists long lists are sent at once; others wait.
	maxLists    = (64<<20 - roster.MaxRetained) / roster.MaxPiece
	listTimeout = 5 * time.Second
)

func (s *server) list(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	if _, ok := readBody(w, r); !ok {
		return
	}
	form, contentType := roster.Text, plainText
	if wantsJSON(r) {
		form, contentType = roster.JSON, "application/json"
	}
	id, users, err := s.hub.List(context.Background(), form)
	if err != nil {
		failHub(w, r, id, chat.Name{}, err)
		return
	}
	defer users.Return()
	isHead := r.Method == http.MethodHead
	if users.Long() && !isHead {
		select {
		case s.lists <- struct{}{}:
			defer func() { <-s.lists }()
		case <-users.Abandoned():
			failHub(w, r, id, chat.Name{}, room.ErrTooManyLists)
			return
		case <-time.After(listTimeout):
			failHub(w, r, id, chat.Name{}, room.ErrTooManyLists)
			return
		}
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(users.Size()))
	setHead(w, id, contentType)
	switch {
	case isHead:
	case users.Long():
		// A slow client retains an old list, so its time is limited, and the list may be abandoned.
		conn, _ := r.Context().Value(connKey{}).(net.Conn)
		streaming.SendPieces(w, conn, users.Pieces(), users.Abandoned())
	default:
		w.Write(users.Body())
	}
}

// connKey is the context key of a request's net.Conn. It is absent in another program's server.
type connKey struct{}

// stream responds with a stream of events (HTML standard, section 9.2, "Server-sent events"). Its
// user is the one in the path or, without one, is named after the client's address.
func (s *server) stream(w http.ResponseWriter, r *http.Request, params httprouter.Params) {
	if strings.HasPrefix(r.Header.Get("Sec-Purpose"), "prefetch") {
		fail(w, r, http.StatusForbidden, "a stream cannot be prefetched, because that would announce its user")
		return
	}
	name, err := chat.ParseName(cmp.Or(params.ByName("name"), r.RemoteAddr))
	if err != nil {
		fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	// A proxy may send an empty chunked body.
	if r.ContentLength < 0 {
		if n, err := r.Body.Read(make([]byte, 1)); n == 0 && err == io.EOF {
			r.ContentLength = 0
		}
	}
	if r.ContentLength != 0 {
		fail(w, r, http.StatusBadRequest, "a stream request must not have a body")
		return
	}
	if !streaming.CanSend(w) {
		fail(w, r, http.StatusInternalServerError, "streams are not possible behind this server's "+
			"middleware: its ResponseWriter has neither Flush nor Unwrap, like that of http.TimeoutHandler")
		return
	}
	id, stream, err := s.hub.Subscribe(context.Background(), name, lastEventID(r))
	if err != nil {
		failHub(w, r, id, name, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache, no-transform")
	w.Header().Set("X-Accel-Buffering", "no") // nginx passes each event on at once
	setHead(w, id, "text/event-stream; charset=utf-8")
	// A Monitor's wrapper would keep Send from hijacking the connection.
	streaming.Send(metrics.Uncounted(w), r, stream)
}

// maxEventID is more than the length of any event id, in bytes.
const maxEventID = 100

// lastEventID returns the id after which a stream starts: that of the last header that is not empty
// or, without one, of the last such query parameter. A value that is longer than any id is cut, but
// stays too long to be one.
func lastEventID(r *http.Request) string {
	id := ""
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if value, ok := strings.CutPrefix(pair, "lastEventId="); ok && value != "" {
			id = value
			if decoded, err := url.QueryUnescape(value); err == nil {
				id = decoded
			} // A value that can't be decoded stays as it is, so that the stream starts with a gap.
		}
	}
	for _, value := range r.Header.Values("Last-Event-ID") {
		id = cmp.Or(value, id)
	}
	return id[:min(len(id), maxEventID)]
}

func page(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	if _, ok := readBody(w, r); ok {
		web.Serve(w, r)
	}
}

// isPage reports whether r reads the demo page, to which other sites may link.
func isPage(r *http.Request) bool {
	return web.Has(r.URL.Path) && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// options responds with 200 and the Allow header that httprouter has set.
func options(w http.ResponseWriter, r *http.Request) { readBody(w, r) }

const (
	plainText    = "text/plain; charset=utf-8"
	writeTimeout = 10 * time.Second // for a short response
)

// setHead sets the headers of a response that reflects everything up to the event id.
func setHead(w http.ResponseWriter, id chain.ID, contentType string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if id != (chain.ID{}) {
		w.Header().Set("Last-Event-ID", id.String())
	}
}

func respond(w http.ResponseWriter, status int, id chain.ID, body string) {
	setHead(w, id, plainText)
	w.Header().Set("Content-Length", strconv.Itoa(len(body))) // net/http sets only that of short ones
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// failHub responds to a request for which the hub returned err. Name is the user whom it concerns.
func failHub(w http.ResponseWriter, r *http.Request, id chain.ID, name chat.Name, err error) {
	switch {
	case errors.Is(err, room.ErrNotPresent):
		respond(w, http.StatusNotFound, id, "User "+name.String()+" is not connected.")
	case errors.Is(err, ErrUnknown):
		w.Header().Set("Retry-After", retryAfter())
		fail(w, r, http.StatusGatewayTimeout, err.Error())
	default:
		metrics.NoteLimit(w, hubLimits[err])
		w.Header().Set("Retry-After", retryAfter())
		fail(w, r, http.StatusServiceUnavailable, err.Error())
	}
}

// hubLimits and statusLimits give the names under which metrics counts rejections.
var (
	hubLimits = map[error]string{
		room.ErrTooManyUsers: "users",
		ErrTooManyStreams:    "streams",
		room.ErrTooManyLists: "lists",
	}
	statusLimits = map[int]string{
		http.StatusRequestHeaderFieldsTooLarge: "head",
		http.StatusRequestEntityTooLarge:       "body",
		http.StatusRequestTimeout:              "body",
	}
)

// retryAfter returns a value for the header Retry-After: a random number of seconds, so that
// rejected clients do not all come back at the same moment.
func retryAfter() string {
	const shortest, longest = 3, 8
	return strconv.Itoa(shortest + rand.N(longest-shortest+1))
}

// refuse writes the response for a connection beyond the limit. No request is read from it.
func refuse(w io.Writer) {
	const body = "There are too many connections; try again later.\n"
	fmt.Fprintf(w, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: %s\r\nContent-Type: %s\r\n"+
		"X-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		retryAfter(), plainText, len(body), body)
}

// fail responds with an error. It does not wait for a request body that has not been read.
func fail(w http.ResponseWriter, r *http.Request, status int, sentence string) {
	if limit, ok := statusLimits[status]; ok {
		metrics.NoteLimit(w, limit)
	}
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now())
		// Closing a connection with unread input sends a reset, which can overtake the response.
		// net/http avoids that after an http.MaxBytesReader has overflowed, so let one overflow.
		body := io.NopCloser(strings.NewReader("x"))
		http.MaxBytesReader(innermost(w), body, 0).Read(make([]byte, 1))
	}
	http.Error(w, strings.ToUpper(sentence[:1])+sentence[1:]+".", status)
}

// innermost returns the ResponseWriter that middleware has wrapped, which http.MaxBytesReader
// needs.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}

// closeConn has net/http close the connection after the response. Over HTTP/2, other responses
// share the connection, so it stays open.
func closeConn(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// failHead responds that the request's head is too large, and ends the connection.
func failHead(w http.ResponseWriter, r *http.Request, sentence string) {
	r.Header = nil // frees 80 KB or more before a response that may be read slowly
	closeConn(w, r)
	fail(w, r, http.StatusRequestHeaderFieldsTooLarge, sentence)
}

// newRouter returns a router without routes. Its 404 response suggests these paths.
func newRouter(paths string) *httprouter.Router {
	router := httprouter.New()
	router.RedirectTrailingSlash = false
	router.RedirectFixedPath = false
	router.NotFound = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail(w, r, http.StatusNotFound, fmt.Sprintf("there is nothing at %q; try %s", r.URL.Path, paths))
	})
	router.MethodNotAllowed = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "*" { // httprouter takes "*" for all paths together
			w.Header().Del("Allow")
			router.NotFound.ServeHTTP(w, r)
			return
		}
		fail(w, r, http.StatusMethodNotAllowed,
			fmt.Sprintf("method %s is not allowed here; use %s", r.Method, w.Header().Get("Allow")))
	})
	router.GlobalOPTIONS = http.HandlerFunc(options)
	return router
}

// named parses a request's name and body, responds with 400, 408 or 413 if they are invalid, and
// otherwise calls handle.
func named(handle func(w http.ResponseWriter, r *http.Request, name chat.Name, body string)) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, params httprouter.Params) {
		name, err := chat.ParseName(params.ByName("name"))
		if err != nil {
			fail(w, r, http.StatusBadRequest, err.Error())
			return
		}
		if body, ok := readBody(w, r); ok {
			handle(w, r, name, body)
		}
	}
}

const (
	maxBody     = chat.MaxText + chat.MaxLineEnd // bytes
	bodyTimeout = 10 * time.Second               // for all of a request's body
)

var bodyTooLong = fmt.Sprintf("the body is too long: a message has at most %d bytes, "+
	"and no other request needs a body", chat.MaxText)

// readBody returns the request's body, or responds with an error.
func readBody(w http.ResponseWriter, r *http.Request) (body string, ok bool) {
	if r.ContentLength == 0 {
		return "", true
	}
	if r.ContentLength > int64(maxBody) { // rejected without waiting for it
		fail(w, r, http.StatusRequestEntityTooLarge, bodyTooLong)
		return "", false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(maxBody)))
	// net/http's WriteTimeout counts from the request's head, but the body may have used it up.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		return string(b), true
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		fail(w, r, http.StatusRequestEntityTooLarge, bodyTooLong)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		fail(w, r, http.StatusRequestTimeout, fmt.Sprintf("the body did not arrive within %v", bodyTimeout))
	} else {
		fail(w, r, http.StatusBadRequest, "the body is incomplete")
	}
	return "", false
}

const (
	maxHead      = 16 << 10 // bytes of a request's head
	maxHeadLines = 100
)

// head returns the size of the request's head, counting one space after each colon, and the number
// of its header lines. net/http's own limit is looser on connections that were used before.
func head(r *http.Request) (size, lines int) {
	size = len(r.Method) + len(r.RequestURI) + len(r.Proto) + len("  \r\n") +
		len("Host: ") + len(r.Host) + len("\r\n\r\n")
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
		lines += len(values)
	}
	// net/http has taken these out of r.Header.
	lines += min(len(r.Host), 1) + len(r.TransferEncoding) + min(len(r.Trailer), 1)
	return size, lines
}

// wantsJSON reports whether Accept names application/json with at least the quality of text/plain.
// Wildcards do not count.
func wantsJSON(r *http.Request) bool {
	quality := map[string]float64{}
	for _, accept := range r.Header["Accept"] {
		for mediaRange := range strings.SplitSeq(accept, ",") {
			mediaType, params, _ := mime.ParseMediaType(mediaRange)
			q, err := strconv.ParseFloat(params["q"], 64)
			if err != nil {
				q = 1
			}
			quality[mediaType] = q
		}
	}
	return quality["application/json"] > 0 && quality["application/json"] >= quality["text/plain"]
}
