package chain

// This file has a parser of the event stream format (HTML standard, section 9.2.6) that shares no
// code with the package.

import (
	"cmp"
	"strings"
)

// sseReader parses the bytes that are written to it, one at a time.
type sseReader struct {
	texts  []string // the data of each event; "(gap)" for a gap, "(comment)" for a comment
	lastID string   // the id with which a client would reconnect

	id, name, data string
	hasData        bool
	line           []byte
	sawCR          bool
}

func (s *sseReader) Write(p []byte) {
	for _, c := range p {
		switch {
		case c == '\n' && s.sawCR:
			s.sawCR = false
		case c == '\n' || c == '\r':
			s.sawCR = c == '\r'
			s.endLine(string(s.line))
			s.line = s.line[:0]
		default:
			s.sawCR = false
			s.line = append(s.line, c)
		}
	}
}

func (s *sseReader) endLine(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch {
	case line == "":
		s.lastID = s.id
		if name := cmp.Or(s.name, "message"); s.hasData && name == "message" {
			s.texts = append(s.texts, strings.TrimSuffix(s.data, "\n"))
		} else if s.hasData {
			s.texts = append(s.texts, "("+name+")")
		}
		s.name, s.data, s.hasData = "", "", false
	case field == "":
		s.texts = append(s.texts, "(comment)")
	case field == "id":
		s.id = value
	case field == "event":
		s.name = value
	case field == "data":
		s.data, s.hasData = s.data+value+"\n", true
	}
}

// take returns the texts so far and forgets them.
func (s *sseReader) take() []string {
	texts := s.texts
	s.texts = nil
	return texts
}
