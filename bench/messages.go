package main

// This file makes the texts that the loads send, and finds them in the bytes that streams receive.
//
// Every text that a stream receives has 63 bytes, exactly one of which is the mark, an underscore.
// Nothing else that a server sends contains the mark: heads, ids and chunk sizes have no
// underscore, and neither have the headers of WebSocket frames. (gorilla's hub joins texts with
// newlines, so the length of a message is 64k-1, and it splits frames at 1,024 bytes. A length of
// 63 is one byte of the header; a longer one is the byte 126 and two more. None of these bytes is
// 95, the underscore.) Deliveries are therefore counted by counting one byte.

import (
	"bytes"
	"fmt"
	"time"
)

const (
	mark       = '_'
	textLength = 63
	stampWidth = 16
	speaker    = "alice" // the author of all messages; servers send "alice: " and the text
)

var began = time.Now()

// clock returns the nanoseconds since the program started.
func clock() int64 { return time.Since(began).Nanoseconds() }

// A stamped is a request whose body is a text with a stamp: the time at which it was sent.
type stamped struct {
	request []byte
	stamp   []byte // part of request
}

// newStamped returns a request that sends a message to the server at addr. If prefixed is set, the
// body begins with "alice: ", because the server does not add that.
func newStamped(addr string, prefixed bool) stamped {
	prefix := speaker + ": "
	body := fmt.Sprintf("%c%0*d.", mark, stampWidth, 0)
	body += string(bytes.Repeat([]byte("x"), textLength-len(prefix)-len(body)))
	if prefixed {
		body = prefix + body
	}
	request := newRequest("POST", "/chat/"+speaker, addr, body)
	at := bytes.LastIndexByte(request, mark) + 1
	return stamped{request, request[at : at+stampWidth]}
}

// at returns the request with now as its stamp. The result is valid until the next call.
func (s stamped) at(now int64) []byte {
	for i := stampWidth - 1; i >= 0; i-- {
		s.stamp[i] = byte('0' + now%10)
		now /= 10
	}
	return s.request
}

func newRequest(method, path, addr, body string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\n"+
		"Content-Length: %d\r\n\r\n%s", method, path, addr, len(body), body)
}

// listener returns the name of the user of the i-th stream. The announcement of that stream has
// textLength bytes and contains the mark.
func listener(i int) string {
	return fmt.Sprintf("%c%0*d", mark, textLength-len("User _ connected to the chat."), i)
}

// appendLatencies appends, for each complete text in data, the milliseconds from its stamp to now.
func appendLatencies(to []float64, data []byte, now int64) []float64 {
	for {
		at := bytes.IndexByte(data, mark)
		if at < 0 {
			return to
		}
		data = data[at+1:]
		if sent, ok := readStamp(data); ok {
			to = append(to, float64(now-sent)/1e6)
		}
	}
}

// readStamp reports whether data begins with a stamp, and returns it.
func readStamp(data []byte) (sent int64, ok bool) {
	if len(data) <= stampWidth || data[stampWidth] != '.' {
		return 0, false
	}
	for _, digit := range data[:stampWidth] {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		sent = 10*sent + int64(digit-'0')
	}
	return sent, true
}
