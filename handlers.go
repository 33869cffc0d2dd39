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
	"lobby/conns"
	"lobby/origin"
	"lobby/roster"
	"lobby/streaming"
	"lobby/web"
)

const (
	maxHead      = 16 << 10 // bytes of a request's head
	maxHeadLines = 100
	maxBody      = chat.MaxText + chat.MaxLineEnd // bytes
	bodyTimeout  = 10 * time.Second               // for all of a request's body
	writeTimeout = 10 * time.Second               // for a short answer
	minListRate  = 256 << 10                      // bytes a second, after writeTimeout, for a list

	// Lists that are being sent may take 64 MiB: roster.MaxRetained for old lists, and up to roster.MaxPiece
	// of a body for each list. So at most maxLists are sent at a time; others wait for listTimeout.
	maxLists    = (64<<20 - roster.MaxRetained) / roster.MaxPiece
	listTimeout = 5 * time.Second

	// A client that was refused should come back after this long, each client after another time.
	minRetryAfter, maxRetryAfter = 3, 8 // seconds

	// vanishTimeout is how long a client may leave data unacknowledged before its connection ends.
	vanishTimeout = 15 * time.Second

	// sendBuffer bounds what the kernel takes for a client that does not read. Otherwise a write
	// would be done megabytes before the client has it, and writeTimeout would mean nothing.
	sendBuffer = 64 << 10
)

// server answers HTTP requests by asking the hub, each with one question.
//
// It asks without the request's context. net/http cancels that context when the client closes its
// side of the connection, and a client may do so that still waits for its answer (HTTP/1.0 clients
// and nc do). The hub answers at once, so there is nothing to cancel.
type server struct {
	hub       *Hub
	answersTo func(origin.Host) bool // whether the Host of a request is this server's
	crowded   func() bool            // whether connections are getting scarce
	lists     chan struct{}          // holds an element for each list that is being sent
	router    *httprouter.Router
}

// newServer returns the handler for an http.Server that speaks HTTP/1 and has prepareConn as its
// ConnContext.
func newServer(hub *Hub, answersTo func(origin.Host) bool, crowded func() bool) *server {
	s := &server{hub, answersTo, crowded, make(chan struct{}, maxLists), httprouter.New()}
	s.router.RedirectTrailingSlash = false
	s.router.RedirectFixedPath = false
	s.router.NotFound = http.HandlerFunc(notFound)
	s.router.MethodNotAllowed = http.HandlerFunc(methodNotAllowed)
	s.router.GlobalOPTIONS = http.HandlerFunc(options)

	s.router.GET("/users", s.list)
	s.router.HEAD("/users", s.list)
	s.router.POST("/users/:name", named(s.join))
	s.router.DELETE("/users/:name", named(s.leave))
	s.router.GET("/chat", s.streamUnnamed)
	s.router.GET("/chat/:name", named(s.stream))
	s.router.POST("/chat/:name", named(s.say))
	for _, path := range web.Paths() {
		s.router.GET(path, page)
		s.router.HEAD(path, page)
	}
	return s
}

// prepareConn sets on each connection, as it comes, what net/http has no option for.
func prepareConn(ctx context.Context, conn net.Conn) context.Context {
	tcpConn := conn.(*conns.Conn)
	tcpConn.SetWriteBuffer(sendBuffer)
	tcpConn.SetUserTimeout(vanishTimeout)
	return context.WithValue(ctx, connKey{}, tcpConn)
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// ServeHTTP refuses requests with too long a head, for another Host, or from another site's page.
// The router answers the others. A request without a Host is let through: no browser makes one, but
// health checks of proxies do.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	// net/http removes Content-Length if there is a Transfer-Encoding too, so every request with
	// that is taken for one with both, after which the connection must not go on (RFC 9112, 6.1).
	if len(r.TransferEncoding) > 0 || s.crowded() {
		w.Header().Set("Connection", "close")
	}
	if r.URL.Path == "" && r.URL.Opaque == "" && r.Method != http.MethodConnect {
		r.URL.Path = "/" // of "GET http://127.0.0.1 HTTP/1.1"
	}
	switch size, lines := head(r); {
	case size > maxHead:
		failHead(w, r, fmt.Sprintf("the request's head is longer than %d bytes", maxHead))
	case lines > maxHeadLines:
		failHead(w, r, fmt.Sprintf("the request has more than %d header lines", maxHeadLines))
	case r.Host != "" && !s.answersTo(origin.HostOf(r.Host)):
		fail(w, r, http.StatusMisdirectedRequest, fmt.Sprintf("the Host %q is not this server's; allow it with the flag -host", r.Host))
	case !isPage(r) && origin.IsCrossOrigin(r):
		fail(w, r, http.StatusForbidden, "the request comes from another origin's page; open this server's own page")
	default:
		s.router.ServeHTTP(w, r)
	}
}

// named answers 400 unless the path's name is valid.
func named(handle func(http.ResponseWriter, *http.Request, chat.Name)) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, params httprouter.Params) {
		name, err := chat.ParseName(params.ByName("name"))
		if err != nil {
			fail(w, r, http.StatusBadRequest, err.Error())
			return
		}
		handle(w, r, name)
	}
}

func (s *server) join(w http.ResponseWriter, r *http.Request, name chat.Name) {
	if _, ok := readBody(w, r); !ok {
		return
	}
	id, isNew, err := s.hub.Join(context.Background(), name)
	if err != nil {
		refuse(w, r, id, name, err)
		return
	}
	status := http.StatusOK
	if isNew {
		status = http.StatusCreated
	}
	answerText(w, status, id, "User "+name.String()+" connected.")
}

func (s *server) leave(w http.ResponseWriter, r *http.Request, name chat.Name) {
	if _, ok := readBody(w, r); !ok {
		return
	}
	id, err := s.hub.Leave(context.Background(), name)
	if err != nil {
		refuse(w, r, id, name, err)
		return
	}
	answerText(w, http.StatusOK, id, "User "+name.String()+" disconnected.")
}

func (s *server) say(w http.ResponseWriter, r *http.Request, name chat.Name) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
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
		refuse(w, r, id, name, err)
		return
	}
	answerText(w, http.StatusOK, id, name.String()+": "+text.String())
}

var errTooManyLists = errors.New("the server is sending as many lists as it can; try again later")

func (s *server) list(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	if _, ok := readBody(w, r); !ok {
		return
	}
	if !s.takeListPlace(w) {
		refuse(w, r, chain.ID{}, chat.Name{}, errTooManyLists)
		return
	}
	defer func() { <-s.lists }()
	form, contentType := roster.Text, plainText
	if wantsJSON(r) {
		form, contentType = roster.JSON, jsonText
	}
	id, users, err := s.hub.List(context.Background(), form)
	if err != nil {
		refuse(w, r, id, chat.Name{}, err)
		return
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(users.Size()))
	setHead(w, id, contentType)
	switch {
	case users.Long():
		defer s.hub.Release(users)
		if r.Method != http.MethodHead {
			sendLong(w, r, users)
		}
	case r.Method != http.MethodHead:
		w.Write(users.Body()) // which is all that a slow client keeps in memory
	}
}

// sendLong sends a list that is longer than one piece. A client that takes it slowly keeps an old
// list in memory. So its time is limited, and the list may have to be given up even before that.
func sendLong(w http.ResponseWriter, r *http.Request, users *roster.List) {
	rc := http.NewResponseController(w)
	conn := r.Context().Value(connKey{}).(*conns.Conn)
	conn.EnableUserTimeout(false) // a client that has read fast may pause for long
	defer conn.EnableUserTimeout(true)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-users.Abandoned():
			rc.SetWriteDeadline(time.Now())
		case <-done:
		}
	}()
	deadline := time.Now().Add(writeTimeout)
	for piece := range users.Pieces() {
		rc.SetWriteDeadline(deadline)
		select {
		case <-users.Abandoned():
			panic(http.ErrAbortHandler) // which cuts the connection
		default:
		}
		if _, err := w.Write(piece); err != nil {
			return
		}
		deadline = deadline.Add(time.Duration(len(piece)) * time.Second / minListRate)
	}
}

// takeListPlace waits for a place among the lists that are being sent, and reports whether there
// was one in time.
func (s *server) takeListPlace(w http.ResponseWriter) bool {
	select {
	case s.lists <- struct{}{}:
		return true
	default:
	}
	select {
	case s.lists <- struct{}{}:
		// net/http counts the time for the answer from the head.
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		return true
	case <-time.After(listTimeout):
		return false
	}
}

// streamUnnamed streams to a user who is named after the address that the request comes from.
func (s *server) streamUnnamed(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	name, err := chat.ParseName(r.RemoteAddr)
	if err != nil {
		fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	s.stream(w, r, name)
}

// stream answers with a stream of events (HTML standard, section 9.2, "Server-sent events").
func (s *server) stream(w http.ResponseWriter, r *http.Request, name chat.Name) {
	if r.ContentLength != 0 {
		fail(w, r, http.StatusBadRequest, "a stream is asked for without a body")
		return
	}
	id, stream, err := s.hub.Subscribe(context.Background(), name, lastEventID(r))
	if err != nil {
		refuse(w, r, id, name, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache, no-transform")
	w.Header().Set("X-Accel-Buffering", "no") // nginx passes each event on at once
	setHead(w, id, eventStream)
	streaming.Send(w, r, stream)
}

// lastEventID returns the id from which a stream goes on: the first header or, failing that, the
// first query parameter that is not empty. A parameter that can't be decoded, which url.Query would
// leave out, is returned as it stands, so that the hub answers with a gap.
func lastEventID(r *http.Request) string {
	if id := cmp.Or(r.Header.Values("Last-Event-ID")...); id != "" {
		return id
	}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if id, ok := strings.CutPrefix(pair, "lastEventId="); ok && id != "" {
			if decoded, err := url.QueryUnescape(id); err == nil {
				return decoded
			}
			return id
		}
	}
	return ""
}

func page(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	if _, ok := readBody(w, r); ok {
		web.Serve(w, r)
	}
}

// bodyTooLong fits both requests that need a body and those that do not.
var bodyTooLong = fmt.Sprintf("the body is too long: a message is at most %d bytes long, "+
	"and nothing else needs a body", chat.MaxText)

// readBody returns the request's body, or answers with an error.
func readBody(w http.ResponseWriter, r *http.Request) (body string, ok bool) {
	if r.ContentLength == 0 {
		return "", true
	}
	if r.ContentLength > int64(maxBody) { // refused without waiting for it
		fail(w, r, http.StatusRequestEntityTooLarge, bodyTooLong)
		return "", false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(maxBody)))
	// net/http counts the time for the answer from the head, but the body may have taken it all.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		return string(b), true
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		fail(w, r, http.StatusRequestEntityTooLarge, bodyTooLong)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		fail(w, r, http.StatusRequestTimeout, fmt.Sprintf("the body did not come within %v", bodyTimeout))
	} else {
		fail(w, r, http.StatusBadRequest, "the body did not come whole")
	}
	return "", false
}

// Values of headers, shared by all answers. Their keys are written as http.Header has them, so that
// setHead need not call Set, which would search for capitals and allocate for each.
var (
	plainText   = []string{"text/plain; charset=utf-8"}
	jsonText    = []string{"application/json"}
	eventStream = []string{"text/event-stream"}
	nosniff     = []string{"nosniff"}
)

// setHead sets the headers of an answer that takes into account what happened up to the event id.
func setHead(w http.ResponseWriter, id chain.ID, contentType []string) {
	h := w.Header()
	h["Content-Type"] = contentType
	h["X-Content-Type-Options"] = nosniff
	if id != (chain.ID{}) {
		h["Last-Event-Id"] = []string{id.String()}
	}
}

func answerText(w http.ResponseWriter, status int, id chain.ID, body string) {
	setHead(w, id, plainText)
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// refuse answers a request for which the hub returned err. Name is the user whom it was about.
func refuse(w http.ResponseWriter, r *http.Request, id chain.ID, name chat.Name, err error) {
	if errors.Is(err, ErrNotConnected) {
		answerText(w, http.StatusNotFound, id, "User "+name.String()+" is not connected.")
		return
	}
	status := http.StatusServiceUnavailable
	if errors.Is(err, ErrUnknown) {
		status = http.StatusGatewayTimeout
	}
	setHead(w, id, plainText)
	w.Header().Set("Retry-After", retryAfter())
	fail(w, r, status, err.Error())
}

// retryAfter returns a value for the header Retry-After, in seconds.
func retryAfter() string {
	return strconv.Itoa(minRetryAfter + rand.N(maxRetryAfter-minRetryAfter+1))
}

// turnAway writes the answer for a connection beyond the limit, of which no request is read.
func turnAway(w io.Writer) {
	writeRefusal(w, "503 Service Unavailable", "Retry-After: "+retryAfter()+"\r\n",
		"The server has as many connections as it takes; try again later.\n")
}

// writeRefusal writes an answer where net/http has no request yet.
func writeRefusal(w io.Writer, status, header, body string) {
	fmt.Fprintf(w, "HTTP/1.1 %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"+
		"Connection: close\r\nContent-Length: %d\r\n\r\n%s", status, header, len(body), body)
}

// fail answers with an error. If the request had a body, which may not have been read, neither the
// answer nor the end of the connection waits for it.
func fail(w http.ResponseWriter, r *http.Request, status int, sentence string) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now())
		// A connection that is closed while more comes is reset, and the reset can overtake the answer.
		// net/http avoids that if a body was too large for its reader, so we have one be too large.
		http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
	}
	http.Error(w, strings.ToUpper(sentence[:1])+sentence[1:]+".", status)
}

// failHead answers that the request's head is too large, and ends the connection.
func failHead(w http.ResponseWriter, r *http.Request, sentence string) {
	r.Header = nil // which takes 80 KB or more, for as long as the answer does
	w.Header().Set("Connection", "close")
	fail(w, r, http.StatusRequestHeaderFieldsTooLarge, sentence)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	fail(w, r, http.StatusNotFound, fmt.Sprintf("there is nothing at %q; try /users, /chat or the page at /", r.URL.Path))
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "*" { // which httprouter takes for all paths together
		w.Header().Del("Allow")
		notFound(w, r)
		return
	}
	fail(w, r, http.StatusMethodNotAllowed, fmt.Sprintf("the method %s is not possible here, only %s", r.Method, w.Header().Get("Allow")))
}

// options answers with what httprouter has set Allow to.
func options(w http.ResponseWriter, r *http.Request) { readBody(w, r) }

// head returns how long the request's head is, counting one space after each colon, and how many
// header lines it has. On a connection that was used before, net/http lets longer heads through.
func head(r *http.Request) (size, lines int) {
	size = len(r.Method) + len(r.RequestURI) + len(r.Proto) + len("  \r\n") + len("Host: ") + len(r.Host) + len("\r\n\r\n")
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

// wantsJSON reports whether the request accepts JSON, and plain text no better. Both must be named,
// since */* accepts whatever comes.
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

// isPage reports whether r only reads the demo page, to which everyone may link.
func isPage(r *http.Request) bool {
	return web.Has(r.URL.Path) && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}
