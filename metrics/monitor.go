package metrics

import (
	"fmt"
	"net/http"
	"time"
)

const (
	// Waking the Monitor's goroutine for each response would take 5 % of a server's processor time.
	// So it lets responses gather for gatherTime, up to maxGathered; any more would have to wait.
	gatherTime  = 5 * time.Millisecond
	maxGathered = 2048
)

// Monitor counts responses, and knows who reports the other figures. Both belong to one goroutine,
// which lasts as long as the program. A nil Monitor counts nothing.
type Monitor struct {
	limits    []string
	responses chan response
	sources   chan Source
	texts     chan chan snapshot
}

// Source asks the owners of figures for their values and appends them.
type Source func(*Text)

// response holds what a Monitor counts about one HTTP response.
type response struct {
	status int
	limit  string // the limit because of which the request was rejected; "" if it was not
}

// snapshot is what a Monitor's goroutine knows at a moment.
type snapshot struct {
	text   Text
	source Source
}

// NewMonitor returns a Monitor for a server that may reject requests because of these limits.
func NewMonitor(limits ...string) *Monitor {
	m := &Monitor{
		limits:    limits,
		responses: make(chan response, maxGathered),
		sources:   make(chan Source),
		texts:     make(chan chan snapshot),
	}
	go m.run()
	return m
}

func (m *Monitor) run() {
	var classes [6]int // responses, by the first digit of their status
	rejected := make(map[string]int)
	source := func(*Text) {}
	count := func(r response) {
		classes[r.status/100]++
		rejected[r.limit]++
	}
	countAll := func() {
		for len(m.responses) > 0 {
			count(<-m.responses)
		}
	}
	for {
		select {
		case r := <-m.responses:
			count(r)
			countAll()
			time.Sleep(gatherTime)
		case source = <-m.sources:
		case result := <-m.texts:
			countAll() // so that the text has every response whose handler has returned
			var values, rejections []Sample
			for class := 2; class < len(classes); class++ {
				values = append(values, Sample{"class", fmt.Sprintf("%dxx", class), float64(classes[class])})
			}
			for _, limit := range m.limits {
				rejections = append(rejections, Sample{"limit", limit, float64(rejected[limit])})
			}
			var text Text
			text.Counter("lobby_responses_total", "HTTP responses.", values...)
			text.Counter("lobby_rejections_total", "Requests rejected because of a limit.", rejections...)
			result <- snapshot{text, source}
		}
	}
}

// Watch replaces the source of all figures but those of responses.
func (m *Monitor) Watch(source Source) {
	if m != nil {
		m.sources <- source
	}
}

// Text returns all figures.
func (m *Monitor) Text() Text {
	result := make(chan snapshot, 1)
	m.texts <- result
	s := <-result
	s.source(&s.text)
	return s.text
}

// Count counts a response that Handler does not see.
func (m *Monitor) Count(status int, limit string) {
	if m != nil {
		m.responses <- response{status, limit}
	}
}

// Handler counts next's responses, each when next has returned.
func (m *Monitor) Handler(next http.Handler) http.Handler {
	if m == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &counted{w, response{status: http.StatusOK}}
		defer func() { m.responses <- c.response }()
		next.ServeHTTP(c, r)
	})
}

// NoteLimit notes that the response to w rejects its request because of a limit. It does nothing if
// no Monitor counts the response.
func NoteLimit(w http.ResponseWriter, limit string) {
	for {
		switch x := w.(type) {
		case *counted:
			x.limit = limit
			return
		case interface{ Unwrap() http.ResponseWriter }:
			w = x.Unwrap()
		default:
			return
		}
	}
}

// counted is a ResponseWriter whose response is counted.
type counted struct {
	http.ResponseWriter
	response
}

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// Uncounted returns w without a Monitor's wrapper, because streaming.Send does not hijack the
// connection of a wrapped ResponseWriter. The response's status must be 200, because the Monitor
// does not see it then.
func Uncounted(w http.ResponseWriter) http.ResponseWriter {
	if c, ok := w.(*counted); ok {
		return c.ResponseWriter
	}
	return w
}
