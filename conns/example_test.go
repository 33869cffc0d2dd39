package conns_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"lobby/conns"
)

// A server admits one connection at a time and tells all other clients that it is full.
func Example() {
	listener, err := conns.Listen("127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	limited := conns.Limit(listener, 1, func(w io.Writer) {
		io.WriteString(w, "HTTP/1.1 503 Service Unavailable\r\n"+
			"Content-Length: 0\r\nConnection: close\r\n\r\n")
	})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if limited.Crowded() {
				w.Header().Set("Connection", "close")
			}
		}),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if err := conn.(*conns.Conn).SetUserTimeout(30 * time.Second); err != nil {
				fmt.Println(err)
			}
			return ctx
		},
	}
	go server.Serve(limited)
	defer server.Close()

	first, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer first.Close()
	resp, err := http.Get("http://" + listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 503 Service Unavailable
}
