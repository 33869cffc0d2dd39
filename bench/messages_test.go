package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
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

// gorilla's hub sends any number of texts, up to the size of its buffer, in one message.
func TestHeadersOfWebSocketFramesHaveNoMark(t *testing.T) {
	const most = 257
	text := string(mark) + strings.Repeat("x", textLength-1)
	addr := listenFor(t, func(l net.Listener) {
		http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			upgrader := websocket.Upgrader{WriteBufferSize: 1024}
			conn, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for n := 1; n <= most; n++ {
				message := strings.Repeat("\n"+text, n)[1:]
				if err := conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
					t.Error(err)
				}
			}
		}))
	})
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := stand{process: &process{server: &server{webSocket: true}, addr: addr}}
	if _, err := conn.Write(s.streamRequest(0)); err != nil {
		t.Fatal(err)
	}
	received, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(received, []byte{mark}); n != most*(most+1)/2 {
		t.Errorf("%d marks arrived, want %d", n, most*(most+1)/2)
	}
}
