package main

import (
	"bytes"
	"testing"
)

func TestEveryTextHasOneLengthAndOneMark(t *testing.T) {
	said := newStamped("127.0.0.1:80", false)
	_, body, _ := bytes.Cut(said.at(7), []byte("\r\n\r\n"))
	prefixed := newStamped("127.0.0.1:80", true)
	_, prefixedBody, _ := bytes.Cut(prefixed.at(7), []byte("\r\n\r\n"))
	for _, text := range []string{
		"alice: " + string(body),
		string(prefixedBody),
		"User " + listener(0) + " connected to the chat.",
		"User " + listener(8999) + " connected to the chat.",
	} {
		if len(text) != textLength {
			t.Errorf("%q has %d bytes, want %d", text, len(text), textLength)
		}
		if n := bytes.Count([]byte(text), []byte{mark}); n != 1 {
			t.Errorf("%q has %d marks, want 1", text, n)
		}
	}
}

func TestLatenciesAreTakenFromCompleteTexts(t *testing.T) {
	message := newStamped("127.0.0.1:80", false)
	_, first, _ := bytes.Cut(bytes.Clone(message.at(1_000_000)), []byte("\r\n\r\n"))
	_, second, _ := bytes.Cut(bytes.Clone(message.at(4_500_000)), []byte("\r\n\r\n"))
	data := "data: User " + listener(17) + " connected.\n\ndata: alice: " + string(first) +
		"\n\ndata: alice: " + string(second) + "\n\n"
	got := appendLatencies(nil, []byte(data), 6_000_000)
	if len(got) != 2 || got[0] != 5 || got[1] != 1.5 {
		t.Errorf("got %v, want 5 and 1.5 ms", got)
	}
	cut := len(data) - len(second) + 5 // in the second stamp
	if got := appendLatencies(nil, []byte(data[:cut]), 6_000_000); len(got) != 1 {
		t.Errorf("with the second text cut: got %v, want one", got)
	}
}

// gorilla's hub sends any number of texts, with newlines between them, up to the size of its
// buffer, in one frame.
func TestHeadersOfWebSocketFramesHaveNoMark(t *testing.T) {
	for n := 1; n <= 257; n++ {
		length := n*(textLength+1) - 1
		header := []byte{0x81, byte(length)} // RFC 6455, section 5.2
		if length > 125 {
			header = []byte{0x81, 126, byte(length >> 8), byte(length)}
		}
		if bytes.IndexByte(header, mark) >= 0 {
			t.Errorf("the header of %d texts contains the mark", n)
		}
	}
}
