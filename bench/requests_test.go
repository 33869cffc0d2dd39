package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestHeadsOfResponsesAreParsed(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name, data string
		want       responseHead
		fails      bool
	}{
		{name: "nothing yet"},
		{name: "half a head", data: ok + "Content-Length: 3\r\n"},
		{name: "a head and its body", data: ok + "Content-Length: 3\r\n\r\nabc",
			want: responseHead{size: 38, body: 3}},
		{name: "lower case", data: "HTTP/1.1 201 Created\r\ncontent-length:0\r\n\r\n",
			want: responseHead{size: 42}},
		{name: "the last on its connection", data: ok + "Connection: close\r\nContent-Length: 0\r\n\r\n",
			want: responseHead{size: 57, final: true}},
		{name: "no length", data: ok + "Content-Type: text/plain\r\n\r\n", fails: true},
		{name: "an invalid length", data: ok + "Content-Length: x\r\n\r\n", fails: true},
		{name: "an error", data: "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", fails: true},
	} {
		got, err := readHead([]byte(c.data))
		if (err != nil) != c.fails || !c.fails && got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

// listenFor starts a server and returns its address.
func listenFor(t *testing.T, serve func(net.Listener)) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go serve(listener)
	return netip.MustParseAddrPort(listener.Addr().String())
}

// answerWith answers each request by calling write. If close is set, it then closes the connection.
func answerWith(write func(io.Writer), close bool) func(net.Listener) {
	return func(listener net.Listener) {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for r := bufio.NewReader(conn); ; {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, req.Body)
					if write(conn); close {
						return
					}
				}
			}()
		}
	}
}

func doJob(t *testing.T, addr netip.AddrPort, conns int, j job) (int, error) {
	t.Helper()
	r, err := newRequester(conns, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	j.request = func() []byte { return newRequest("POST", "/", addr.String(), "hello") }
	answered, _, err := r.do(j)
	return answered, err
}

func TestAnsweredRequestsAreCounted(t *testing.T) {
	body := strings.Repeat("x", 100_000) // this needs several reads
	for _, c := range []struct {
		name  string
		write func(io.Writer)
		close bool
	}{
		{"at once", func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}, false},
		{"in pieces", func(w io.Writer) {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + body[:2]) {
				w.Write([]byte{b})
			}
			io.WriteString(w, body[2:])
		}, false},
		{"closing each connection", func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab")
		}, true},
	} {
		addr := listenFor(t, answerWith(c.write, c.close))
		if answered, err := doJob(t, addr, 3, job{count: 50}); answered != 50 || err != nil {
			t.Errorf("%s: %d requests were answered, %v, want 50", c.name, answered, err)
		}
	}
}

func TestRequestsKeepToTheRateAndCanBeHeld(t *testing.T) {
	addr := listenFor(t, answerWith(func(w io.Writer) {
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}, false))
	answered, err := doJob(t, addr, 2, job{length: time.Second / 2, rate: 20})
	if answered < 2 || answered > 11 || err != nil {
		t.Errorf("20/s for 0.5 s: %d requests were answered, %v", answered, err)
	}
	answered, err = doJob(t, addr, 2, job{
		length: time.Second / 2,
		hold:   func(sent int) bool { return sent == 3 },
	})
	if answered != 3 || err != nil {
		t.Errorf("held after 3: %d requests were answered, %v", answered, err)
	}
}

func TestWrongResponsesFail(t *testing.T) {
	for name, answer := range map[string]string{
		"an error":             "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"longer than it says":  "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
		"shorter than it says": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
	} {
		addr := listenFor(t, answerWith(func(w io.Writer) { io.WriteString(w, answer) }, true))
		if answered, err := doJob(t, addr, 1, job{count: 1}); err == nil {
			t.Errorf("%s: no error, %d requests were answered", name, answered)
		}
	}
}
