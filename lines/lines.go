// Package lines prints lines without waiting for anyone to read them.
//
// A program that writes to its standard output or error waits while the pipe behind it is full, and
// is killed once nobody reads from the pipe any longer. Neither should happen to a server. A
// [Writer] has its own goroutine that writes, and drops a line for which there is no room.
package lines

import (
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxLine   = 1000 // bytes of a line with its newline; the rest is cut off
	maxQueued = 100  // lines waiting to be written
)

// Writer is an io.Writer whose Write never waits and never fails. Any goroutine may use it.
type Writer struct {
	lines   chan []byte
	flushes chan chan struct{} // each is closed once the lines before it are written
}

// NewWriter returns a Writer that writes to w. It makes the process ignore SIGPIPE, where that
// exists.
func NewWriter(w io.Writer) *Writer {
	ignoreSIGPIPE()
	lw := &Writer{make(chan []byte, maxQueued), make(chan chan struct{})}
	go lw.writeAll(w)
	return lw
}

func (lw *Writer) writeAll(w io.Writer) {
	for {
		select {
		case line := <-lw.lines:
			w.Write(line)
		case flushed := <-lw.flushes:
			for len(lw.lines) > 0 {
				w.Write(<-lw.lines)
			}
			close(flushed)
		}
	}
}

// Write prints each line of p, or drops it if 100 lines are already waiting. Control characters
// become spaces, and a line ends after 1,000 bytes, so that text from elsewhere cannot operate a
// terminal or fill the log.
func (lw *Writer) Write(p []byte) (n int, err error) {
	for line := range strings.Lines(string(p)) {
		select {
		case lw.lines <- clean(line):
		default:
		}
	}
	return len(p), nil
}

func clean(line string) []byte {
	line = strings.TrimSuffix(line, "\n")
	line = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c // utf8.RuneError for bytes that are not UTF-8
	}, line[:min(len(line), maxLine)])
	for len(line) > maxLine-1 {
		_, size := utf8.DecodeLastRuneInString(line)
		line = line[:len(line)-size]
	}
	return []byte(line + "\n")
}

// Flush waits until all lines so far are written, but not longer than limit.
func (lw *Writer) Flush(limit time.Duration) {
	flushed, late := make(chan struct{}), time.After(limit)
	select {
	case lw.flushes <- flushed:
	case <-late:
		return
	}
	select {
	case <-flushed:
	case <-late:
	}
}
