// Package ssetest reads event streams in tests. It follows the HTML standard, section 9.2.6
// ("Interpreting an event stream"), and shares no code with what writes the streams.
package ssetest

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing/synctest"
)

// Event is what a client dispatches, or a comment.
type Event struct {
	ID   string
	Text string // the data; "(gap)" for a gap, "(comment)" for a comment
}

// Parser is written the bytes of a stream, in pieces of any length. The zero Parser is at the start
// of a stream.
type Parser struct {
	Events []Event
	LastID string // what a client would reconnect with

	id, name, data string
	hasData        bool
	line           []byte
	sawCR          bool
}

// Write reads a piece of the stream. It never fails.
func (p *Parser) Write(piece []byte) (int, error) {
	for _, c := range piece {
		switch {
		case c == '\n' && p.sawCR:
			p.sawCR = false
		case c == '\n' || c == '\r':
			p.sawCR = c == '\r'
			p.endLine(string(p.line))
			p.line = p.line[:0]
		default:
			p.sawCR = false
			p.line = append(p.line, c)
		}
	}
	return len(piece), nil
}

func (p *Parser) endLine(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch {
	case line == "":
		p.LastID = p.id
		if name := cmp.Or(p.name, "message"); p.hasData && name == "message" {
			p.Events = append(p.Events, Event{p.id, strings.TrimSuffix(p.data, "\n")})
		} else if p.hasData {
			p.Events = append(p.Events, Event{p.id, "(" + name + ")"})
		}
		p.name, p.data, p.hasData = "", "", false
	case field == "":
		p.Events = append(p.Events, Event{p.id, "(comment)"})
	case field == "id":
		p.id = value
	case field == "event":
		p.name = value
	case field == "data":
		p.data, p.hasData = p.data+value+"\n", true
	}
}

// Reader is what has a stream to read, such as a chain.Reader.
type Reader interface {
	Next(ctx context.Context) ([]byte, error)
	More(limit int) []byte
}

// ReadNow writes to p what r returns at this moment of a synctest bubble, and returns the error
// with which r has ended, if it has. It must be called by the goroutine that owns the bubble's
// time.
func (p *Parser) ReadNow(r Reader) error {
	synctest.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan struct{})
	// This goroutine goes on once nothing in the bubble moves, so r has nothing more to return.
	go func() { synctest.Wait(); cancel(); close(waited) }()
	defer func() { <-waited }()
	for {
		data, err := r.Next(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		for ; len(data) > 0; data = r.More(64 << 10) {
			p.Write(data)
		}
	}
}

// Texts returns the texts of events.
func Texts(events []Event) (texts []string) {
	for _, e := range events {
		texts = append(texts, e.Text)
	}
	return texts
}
