package lines

// What belongs here: what a Writer prints, and that printing never waits for a reader.

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// pipe is a writer that accepts a line when the test wants it to.
type pipe chan string

func (p pipe) Write(b []byte) (int, error) {
	p <- string(b)
	return len(b), nil
}

func TestLinesAreClean(t *testing.T) {
	long := strings.Repeat("é", maxLine)
	for _, test := range []struct{ text, want string }{
		{"hello\n", "hello\n"},
		{"no newline", "no newline\n"},
		{"two\nlines\n", "two\nlines\n"},
		{"\x1b[31mred\r\tand \u0085 more\x00\x7f\n", " [31mred  and   more  \n"},
		{"not UTF-8: \xff\n", "not UTF-8: \ufffd\n"},
		{long + "\n", strings.Repeat("é", maxLine/2-1) + "\n"},
		{strings.Repeat("\xff", maxLine), strings.Repeat("\ufffd", maxLine/3) + "\n"},
		{strings.Repeat("x", maxLine-1) + "\n", strings.Repeat("x", maxLine-1) + "\n"},
		{strings.Repeat("x", 10<<20), strings.Repeat("x", maxLine-1) + "\n"},
	} {
		var b bytes.Buffer
		w := NewWriter(&b)
		if n, err := io.WriteString(w, test.text); n != len(test.text) || err != nil {
			t.Errorf("Write(%.50q) = %d, %v", test.text, n, err)
		}
		w.Flush(time.Minute)
		if got := b.String(); got != test.want || !utf8.ValidString(got) {
			t.Errorf("%.50q is printed as %.50q (%d bytes), want %.50q", test.text, got, len(got), test.want)
		}
	}
}

func TestWriteDoesNotWaitForAReader(t *testing.T) {
	p := make(pipe)
	w := NewWriter(p)
	for range 10 * maxQueued {
		io.WriteString(w, "a line\n")
	}
	w.Flush(time.Nanosecond) // has a limit
	printed := 2
	<-p
	<-p // came out of the queue after the first, so there is room in it
	io.WriteString(w, "another\n")
	for <-p == "a line\n" {
		printed++
	}
	if printed < maxQueued || printed > maxQueued+1 { // one of them was being written
		t.Errorf("%d lines were printed, want %d", printed, maxQueued)
	}
}
