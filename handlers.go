package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"
)

const (
	maxHead      = 16 << 10              // bytes of a request's head
	maxBody      = maxText + len("\r\n") // bytes: a message and the line end that may follow it
	maxWrite     = 64 << 10              // bytes that a client has writeTimeout to take
	writeTimeout = 10 * time.Second
	bodyTimeout  = 10 * time.Second // for all of a request's body
	maxDropped   = 64 << 10         // bytes that are read of what a client sends on a stream, for nothing
	retryAfter   = "5"              // seconds: when to ask a server again that is full

	// sendBuffer bounds what the kernel takes for a client that does not read,
	// or a write would be done long before the client has it.
	sendBuffer = 64 << 10
)

// server answers HTTP requests by asking the hub. What the hub answers at once
// is asked without the request's context: net/http cancels that when the client
// closes its side, which one that waits for the answer may do. (A stream ends
// when its client closes.)
type server struct {
	hub       *Hub
	answersTo func(host string) bool // by the request's Host
	router    *httprouter.Router
}

// newServer returns the handler for an http.Server that speaks HTTP/1 and has
// boundSendBuffer as its ConnContext.
func newServer(hub *Hub, answersTo func(host string) bool) *server {
	s := &server{hub, answersTo, httprouter.New()}
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
	for path := range pageFiles {
		s.router.GET(path, page)
		s.router.HEAD(path, page)
	}
	return s
}

// ServeHTTP refuses callers that are none of the server's, and hands the
// others' requests to their handlers.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	switch {
	case headSize(r) > maxHead:
		fail(w, r, http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("the request's head is longer than %d bytes", maxHead))
	case !s.answersTo(r.Host):
		fail(w, r, http.StatusMisdirectedRequest, fmt.Sprintf("the Host %q is not this server's; allow it with the flag -host", r.Host))
	case !isPage(r) && isCrossOrigin(r):
		fail(w, r, http.StatusForbidden, "the request comes from another origin's page; open this server's own")
	default:
		s.router.ServeHTTP(w, r)
	}
}

// named hands on requests whose path has a name that can be one.
func named(handle func(http.ResponseWriter, *http.Request, Name)) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, params httprouter.Params) {
		name, err := ParseName(params.ByName("name"))
		if err != nil {
			fail(w, r, http.StatusBadRequest, err.Error())
			return
		}
		handle(w, r, name)
	}
}

func (s *server) join(w http.ResponseWriter, r *http.Request, name Name) {
	if _, ok := readBody(w, r); !ok {
		return
	}
	id, joined, err := s.hub.Join(context.Background(), name)
	if err != nil {
		refuse(w, r, id, name, err)
		return
	}
	status := http.StatusOK
	if joined {
		status = http.StatusCreated
	}
	answerText(w, status, id, "User "+name.String()+" connected.")
}

func (s *server) leave(w http.ResponseWriter, r *http.Request, name Name) {
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

func (s *server) say(w http.ResponseWriter, r *http.Request, name Name) {
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	text, err := ParseText(body)
	if errors.Is(err, ErrTextTooLong) {
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

func (s *server) list(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	if _, ok := readBody(w, r); !ok {
		return
	}
	id, users, err := s.hub.List(context.Background())
	if err != nil {
		refuse(w, r, id, Name{}, err)
		return
	}
	body, contentType := users.Text, "text/plain; charset=utf-8"
	if wantsJSON(r) {
		body, contentType = users.JSON, "application/json"
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	setHead(w, id, contentType)
	rc := http.NewResponseController(w)
	for piece := range slices.Chunk(body, maxWrite) {
		rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// streamUnnamed streams to a user who is called by where it calls from.
func (s *server) streamUnnamed(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	name, err := ParseName(r.RemoteAddr)
	if err != nil {
		fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	s.stream(w, r, name)
}

// stream sends events as in the HTML standard, section 9.2, "Server-sent
// events", until the client goes, stops reading, or the hub stops.
func (s *server) stream(w http.ResponseWriter, r *http.Request, name Name) {
	if r.ContentLength != 0 {
		fail(w, r, http.StatusBadRequest, "a stream is asked for without a body")
		return
	}
	id, stream, err := s.hub.Subscribe(context.Background(), name, lastEventID(r))
	if err != nil {
		refuse(w, r, id, name, err)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Accel-Buffering", "no") // nginx passes each event on at once
	w.Header().Set("Connection", "close")
	setHead(w, id, "text/event-stream")
	rc := http.NewResponseController(w)
	rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	opening, _ := stream.Next(context.Background()) // which is there already
	w.Write(opening)
	if rc.Flush() != nil { // the head and the opening may have gone in part
		stream.Close()
		return
	}
	conn, _, err := rc.Hijack()
	if err != nil {
		stream.Close()
		panic(err) // w is not of an http.Server that speaks HTTP/1
	}
	body := &streamBody{conn: conn, chunked: r.ProtoAtLeast(1, 1)} // as net/http has said in the head
	go body.sendAll(stream)
}

// boundSendBuffer is an http.Server's ConnContext.
func boundSendBuffer(ctx context.Context, conn net.Conn) context.Context {
	conn.(*net.TCPConn).SetWriteBuffer(sendBuffer)
	return ctx
}

// streamBody is the body of a stream whose head net/http has sent, and which has
// the connection to itself from there on: net/http would hold 16 KB more for it,
// copy the beginning of each batch to a buffer, and make three write(2)s of one.
type streamBody struct {
	conn     net.Conn
	chunked  bool
	deadline time.Time

	// What one send needs, kept for the next.
	size   []byte
	parts  [3][]byte
	unsent net.Buffers
}

// sendAll sends what stream has until that ends, the client goes or stops
// reading. Then it closes both.
func (b *streamBody) sendAll(stream *Stream) {
	defer stream.Close()
	defer b.conn.Close()
	ctx, gone := context.WithCancel(context.Background())
	defer gone()
	go func() {
		if isGone(b.conn) {
			gone()
		}
	}()
	for {
		data, err := stream.Next(ctx)
		if b.send(data) != nil || err != nil { // with err, data is empty, which ends the body
			return
		}
	}
}

// isGone waits until the client goes, and then is true. It drops what one sends
// that has nothing to say, and is false where that is too much: reading on would
// cost time that others need, and a write will tell when the client has gone.
func isGone(conn net.Conn) bool {
	var buffer [64]byte
	for dropped := 0; dropped < maxDropped; {
		n, err := conn.Read(buffer[:])
		if err != nil {
			return true
		}
		dropped += n
	}
	return false
}

var crlf = []byte("\r\n")

// send sends data, in HTTP/1.1 as one chunk (RFC 9112, section 7.1), of which an
// empty one is the last.
func (b *streamBody) send(data []byte) error {
	b.renewDeadline()
	if !b.chunked {
		_, err := b.conn.Write(data)
		return err
	}
	b.size = append(strconv.AppendInt(b.size[:0], int64(len(data)), 16), crlf...)
	b.parts = [...][]byte{b.size, data, crlf}
	b.unsent = b.parts[:]
	_, err := b.unsent.WriteTo(b.conn) // with writev(2)
	return err
}

// renewDeadline gives what is written next writeTimeout to be taken, and up to a
// second more, so that most calls set nothing: that would take a twentieth of all time.
func (b *streamBody) renewDeadline() {
	if now := time.Now(); b.deadline.Sub(now) < writeTimeout {
		b.deadline = now.Add(writeTimeout + time.Second)
		b.conn.SetWriteDeadline(b.deadline)
	}
}

// lastEventID returns the id that a stream is to read on from. One that can't be
// decoded is returned as it stands (url.Query would leave it out), for the hub
// to find that it can't be had.
func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if id, ok := strings.CutPrefix(pair, "lastEventId="); ok {
			decoded, err := url.QueryUnescape(id)
			if err != nil {
				return id
			}
			return decoded
		}
	}
	return ""
}

// bodyTooLong is right for requests that need a body and for those that do not.
var bodyTooLong = fmt.Sprintf("the body is too long: a message is at most %d bytes long, and nothing else needs a body", maxText)

// readBody returns the request's body, or answers why there is none.
func readBody(w http.ResponseWriter, r *http.Request) (body string, ok bool) {
	if r.ContentLength == 0 {
		return "", true
	}
	if r.ContentLength > int64(maxBody) { // no need to wait for what will be refused
		fail(w, r, http.StatusRequestEntityTooLarge, bodyTooLong)
		return "", false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(maxBody)))
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // net/http's counts from the head
	if err == nil {
		return string(b), true
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		fail(w, r, http.StatusRequestEntityTooLarge, bodyTooLong)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		fail(w, r, http.StatusRequestTimeout, fmt.Sprintf("the body did not come within %v", bodyTimeout))
	} else {
		fail(w, r, http.StatusBadRequest, "the body did not come whole")
	}
	return "", false
}

// setHead sets the headers of an answer that took into account what happened
// up to the event id.
func setHead(w http.ResponseWriter, id ID, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	if id != (ID{}) {
		h.Set("Last-Event-ID", id.String())
	}
}

func answerText(w http.ResponseWriter, status int, id ID, body string) {
	setHead(w, id, "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// refuse answers a request of the user name that the hub returned err for.
func refuse(w http.ResponseWriter, r *http.Request, id ID, name Name, err error) {
	if errors.Is(err, ErrNotConnected) {
		answerText(w, http.StatusNotFound, id, "User "+name.String()+" is not connected.")
		return
	}
	setHead(w, id, "")
	w.Header().Set("Retry-After", retryAfter)
	fail(w, r, http.StatusServiceUnavailable, err.Error())
}

// fail answers with an error. Where the request had a body, which may not have
// been read, the answer does not wait for it, and the connection ends.
func fail(w http.ResponseWriter, r *http.Request, status int, sentence string) {
	if r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	http.Error(w, strings.ToUpper(sentence[:1])+sentence[1:]+".", status)
}

func notFound(w http.ResponseWriter, r *http.Request) {
	fail(w, r, http.StatusNotFound, fmt.Sprintf("there is nothing at %q; try /users, /chat or the page at /", r.URL.Path))
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "*" { // to httprouter, all paths together
		w.Header().Del("Allow")
		notFound(w, r)
		return
	}
	fail(w, r, http.StatusMethodNotAllowed, fmt.Sprintf("the method %s is not possible here, only %s", r.Method, w.Header().Get("Allow")))
}

// options answers what httprouter has set Allow for.
func options(w http.ResponseWriter, r *http.Request) {
	readBody(w, r)
}

// headSize returns how long the request's head is, with one space after each
// colon. On a connection that was used before, net/http lets 4 KiB more through.
func headSize(r *http.Request) int {
	size := len(r.Method) + len(r.RequestURI) + len(r.Proto) + len("  \r\n") + len("Host: ") + len(r.Host) + len("\r\n\r\n")
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return size
}

// wantsJSON tells whether the request accepts JSON, and plain text no better;
// both by name, as */* accepts whatever comes.
func wantsJSON(r *http.Request) bool {
	quality := map[string]float64{}
	for _, accept := range r.Header.Values("Accept") {
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

// isCrossOrigin tells whether a browser makes the request for a page that is
// not this server's.
func isCrossOrigin(r *http.Request) bool {
	if site := r.Header.Values("Sec-Fetch-Site"); len(site) > 0 {
		return site[0] != "same-origin" && site[0] != "none"
	}
	origin := r.Header.Values("Origin")
	if len(origin) == 0 {
		return false
	}
	u, err := url.Parse(origin[0])
	return err != nil || hostname(u.Host) != hostname(r.Host) || port(u.Host, u.Scheme) != port(r.Host, u.Scheme)
}

// hostname returns host in lower case, without port and brackets.
func hostname(host string) string {
	return strings.ToLower((&url.URL{Host: host}).Hostname())
}

// port returns host's port, or else the scheme's own.
func port(host, scheme string) string {
	return cmp.Or((&url.URL{Host: host}).Port(), map[string]string{"http": "80", "https": "443"}[scheme])
}

// isLoopback tells whether host, with or without a port, can be nothing but
// this machine.
func isLoopback(host string) bool {
	name := hostname(host)
	ip, _ := netip.ParseAddr(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") ||
		ip.Is4() && ip.IsLoopback() || ip == netip.IPv6Loopback()
}

//go:embed web
var web embed.FS

// pageFiles are the demo page and what it loads, by path.
var pageFiles = map[string]struct{ file, contentType string }{
	"/":          {"web/index.html", "text/html; charset=utf-8"},
	"/lobby.css": {"web/lobby.css", "text/css; charset=utf-8"},
	"/lobby.js":  {"web/lobby.js", "text/javascript; charset=utf-8"},
	"/icon.svg":  {"web/icon.svg", "image/svg+xml"},
}

// isPage tells whether r only reads the demo page, which all may link to.
func isPage(r *http.Request) bool {
	_, ok := pageFiles[r.URL.Path]
	return ok && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

func page(w http.ResponseWriter, r *http.Request, _ httprouter.Params) {
	if _, ok := readBody(w, r); !ok {
		return
	}
	page := pageFiles[r.URL.Path]
	content, err := web.ReadFile(page.file)
	if err != nil {
		panic(err) // the binary was built without it
	}
	h := w.Header()
	setHead(w, ID{}, page.contentType)
	h.Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(content)))
	h.Set("Cache-Control", "no-cache") // ask whether it changed
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	http.ServeContent(w, r, page.file, time.Time{}, bytes.NewReader(content))
}
