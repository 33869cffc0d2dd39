// Lobby is a chat and presence server: users join, speak, leave and are listed
// over HTTP, and everyone who listens hears of it at once, over Server-Sent
// Events. See README.md for how to use it, and hub.go for how it works.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	headTimeout     = 5 * time.Second // for the head of a request
	shutdownTimeout = 3 * time.Second // for what goes on when the server is told to stop
	idleTimeout     = headTimeout     // between two requests, which to net/http is up to the fourth byte of a head

	// maxHeader makes net/http, which adds 4 KiB, take heads of up to 16 KiB.
	maxHeader = 12 << 10
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		<-signals // whoever asks again does not want to wait
		os.Exit(1)
	}()
	err := run(ctx, os.Args[1:], os.Stdout)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "lobby:", strings.ReplaceAll(err.Error(), "\n", " "))
	if errors.As(err, new(usageError)) {
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError is what is wrong with the command line.
type usageError struct{ error }

// run serves as args say until ctx is done. Then it returns when what is open
// has ended, or after shutdownTimeout.
func run(ctx context.Context, args []string, out io.Writer) error {
	var (
		config = DefaultConfig
		hosts  []string
		flags  = flag.NewFlagSet("lobby", flag.ContinueOnError)
		addr   = flags.String("addr", "127.0.0.1:8080", "`address` to listen at; port 0 is a free one")
	)
	flags.IntVar(&config.History, "history", config.History, "keep the last `n` events to resume from")
	flags.IntVar(&config.MaxUsers, "max-users", config.MaxUsers, "at most `n` users")
	flags.IntVar(&config.MaxStreams, "max-streams", config.MaxStreams, "at most `n` open streams")
	flags.DurationVar(&config.Grace, "grace", config.Grace, "keep a user for this `duration` after its last stream ended; 0 is none")
	flags.DurationVar(&config.KeepAlive, "keepalive", config.KeepAlive, "send a comment after this `duration` without an event")
	flags.Func("host", "a further `name` that the server answers to when it listens at a loopback address; may repeat", func(name string) error {
		if hostname(name) == "" || strings.ContainsAny(name, "/ ") {
			return errors.New("it is no host name")
		}
		hosts = append(hosts, hostname(name))
		return nil
	})
	flags.SetOutput(io.Discard) // errors are printed once, by main
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(out)
		flags.PrintDefaults()
		return nil
	} else if err != nil {
		return usageError{fmt.Errorf("%w; -h lists the flags", err)}
	}
	if flags.NArg() > 0 {
		return usageError{fmt.Errorf("there is nothing but flags to give, not %q; -h lists them", flags.Arg(0))}
	}
	hub, err := NewHub(config)
	if err != nil {
		return usageError{fmt.Errorf("%w; -h lists the flags", err)}
	}

	listener, err := listen(*addr)
	if err != nil {
		return err
	}
	answersTo := func(host string) bool { return isLoopback(host) || slices.Contains(hosts, hostname(host)) }
	if !isLoopback(listener.Addr().String()) {
		answersTo = func(string) bool { return true }
	}
	server := &http.Server{
		Handler:                      newServer(hub, answersTo),
		ReadHeaderTimeout:            headTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is checked like every other request
		ConnContext:                  boundSendBuffer,
	}

	hubCtx, stopHub := context.WithCancel(context.Background())
	defer stopHub()
	server.RegisterOnShutdown(stopHub) // which ends the streams
	hubDone, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(hubDone)
		hub.Run(hubCtx)
	}()
	go func() { failed <- server.Serve(listener) }()
	fmt.Fprintf(out, "Starting server at http://%s\n", listener.Addr())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	server.Shutdown(ctx)
	select {
	case <-hubDone:
	case <-ctx.Done(): // the end of the process cuts what has not ended
	}
	return nil
}

// listen listens at addr, HOST:PORT. The error says what to try instead.
func listen(addr string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil && port == "" {
		err = errors.New("the port is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("%q is no address to listen at: %w; try -addr 127.0.0.1:8080", addr, err)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; try another -addr, such as 127.0.0.1:0 for a free port", err)
	}
	return listener, nil
}
