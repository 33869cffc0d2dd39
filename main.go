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

	"lobby/cluster"
	"lobby/conns"
	"lobby/etcd"
	"lobby/origin"
)

const (
	headTimeout     = 5 * time.Second // for the head of a request
	shutdownTimeout = 3 * time.Second // for what is open when the server is told to stop
	answerTimeout   = time.Second / 4 // for requests that have come by then; after that streams end
	beginPause      = time.Second / 2 // from one try to reach the lobby to the next

	// idleTimeout is how long a connection may wait for its next request. Proxies and clients keep
	// theirs for up to 90 s, and a request that they send as the server closes is lost.
	idleTimeout = 2 * time.Minute

	// The kernel probes a connection on which nothing moves, and gives the client up at the first
	// probe after vanishTimeout (on Linux; elsewhere after so many probes). So a client that vanished
	// is taken for present for 36 s at worst: 16 s until that probe, 15 s for a message that was sent
	// just before it, and 5 s of grace.
	probeIdle     = 10 * time.Second
	probeInterval = 2 * time.Second
	probeCount    = 3

	reservedFiles = 16   // files that are not connections
	maxOthers     = 4096 // connections that are not streams
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
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	warn(os.Stderr, err.Error())
	if _, ok := errors.AsType[usageError](err); ok {
		os.Exit(2)
	}
	os.Exit(1)
}

// warn writes one line.
func warn(w io.Writer, text string) {
	fmt.Fprintln(w, "lobby:", strings.ReplaceAll(text, "\n", " "))
}

// usageError says what is wrong with the command line.
type usageError struct{ error }

// settings are what the command line says.
type settings struct {
	config Config
	addr   string
	hosts  []origin.Host // besides loopback names
	etcd   etcd.Config   // where the lobby is if it is on several machines, else without endpoints

	connections int    // how many there may be
	warning     string // to print as soon as the server listens; empty if there is none
}

// parse reads the command line. The error is flag.ErrHelp after -h, or else a usageError.
func parse(args []string, out io.Writer) (settings, error) {
	s := settings{config: DefaultConfig}
	flags := flag.NewFlagSet("lobby", flag.ContinueOnError)
	flags.StringVar(&s.addr, "addr", "127.0.0.1:8080", "`address` to listen at; port 0 is a free one")
	flags.IntVar(&s.config.History, "history", s.config.History, "keep the last `n` events to resume from")
	flags.IntVar(&s.config.MaxUsers, "max-users", s.config.MaxUsers, "let POST add users until there are `n`")
	flags.IntVar(&s.config.MaxStreams, "max-streams", s.config.MaxStreams, "at most `n` open streams")
	flags.DurationVar(&s.config.Grace, "grace", s.config.Grace, "keep a user for this `duration` after its last stream ended; 0 is none")
	flags.DurationVar(&s.config.KeepAlive, "keepalive", s.config.KeepAlive, "send a comment after this `duration` without an event")
	flags.Func("host", "a further `name` that the server answers to; may repeat", func(name string) error {
		host, err := origin.ParseHost(name)
		s.hosts = append(s.hosts, host)
		return err
	})
	var urls []string // parsed later, because the error of a flags.Func shows its value, with the password
	flags.Func("etcd", "be one of several servers, which keep their lobby in etcd at `URL`[,URL…]", func(value string) error {
		urls = []string{value}
		return nil
	})
	var ca, cert, key string
	flags.StringVar(&ca, "etcd-ca", "", "`file` of the authorities that etcd's certificate may come from (PEM)")
	flags.StringVar(&cert, "etcd-cert", "", "`file` of the certificate to show to etcd (PEM)")
	flags.StringVar(&key, "etcd-key", "", "`file` of the key of that certificate (PEM)")
	flags.SetOutput(io.Discard) // errors are printed once, by main
	err := flags.Parse(args)
	if err == nil && urls != nil {
		s.etcd, err = etcd.ParseURLs(urls[0])
	}
	if err == nil {
		s.etcd.TLS, err = etcd.LoadTLS(ca, cert, key)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(out)
		flags.PrintDefaults()
		return s, err
	case err != nil:
		return s, usageError{fmt.Errorf("%w; -h lists the flags", err)}
	case flags.NArg() > 0:
		return s, usageError{fmt.Errorf("unexpected argument %q; lobby takes only flags, which -h lists", flags.Arg(0))}
	}
	return s, nil
}

// run serves as args say until ctx is done. Then it returns when everything that is open has ended,
// or after shutdownTimeout.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	s.connections, s.warning = limitStreams(&s.config)
	hub, err := NewHub(s.config)
	if err != nil {
		return usageError{fmt.Errorf("%w; -h lists the flags", err)}
	}
	if len(s.etcd.Endpoints) > 0 {
		return serveLobby(ctx, s, stdout, stderr)
	}
	return start(hub).serve(ctx, &s, stdout, stderr)
}

// runningHub is a hub whose Run has been called.
type runningHub struct {
	*Hub
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned
}

// start calls a hub's Run. The hub gets a context of its own: it stops only after the listener is
// closed, so that no connection is taken just to be refused.
func start(hub *Hub) runningHub {
	ctx, stop := context.WithCancel(context.Background())
	h := runningHub{hub, stop, make(chan struct{})}
	go func() {
		defer close(h.done)
		h.Run(ctx)
	}()
	return h
}

// serve listens and serves until ctx is done. Then it returns when everything that is open has
// ended, or after shutdownTimeout. Afterwards s.addr has the port in use, so that the next call
// listens there again, and s.warning is empty.
func (h runningHub) serve(ctx context.Context, s *settings, stdout, stderr io.Writer) error {
	defer h.stop()
	tcpListener, err := listen(s.addr)
	if err != nil {
		return err
	}
	listener := conns.Limit(tcpListener, s.connections, turnAway)
	addr := tcpListener.Addr().String()
	answersTo := func(host origin.Host) bool {
		return host.IsLoopback() || slices.Contains(s.hosts, host)
	}
	if len(s.hosts) == 0 && !origin.HostOf(addr).IsLoopback() {
		answersTo = func(origin.Host) bool { return true }
	}
	server := &http.Server{
		Handler:                      newServer(h.Hub, answersTo, listener.Crowded),
		ReadHeaderTimeout:            headTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHead - 4<<10, // to which net/http adds 4 KiB
		DisableGeneralOptionsHandler: true,            // "OPTIONS *" is checked like every other request
		ConnContext:                  prepareConn,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if s.warning != "" {
		warn(stderr, s.warning)
		s.warning = ""
	}
	fmt.Fprintf(stdout, "Starting server at http://%s\n", reachable(s.addr, addr))
	host, _, _ := net.SplitHostPort(s.addr)
	_, port, _ := net.SplitHostPort(addr)
	s.addr = net.JoinHostPort(host, port)

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	// Requests that have come get their answers. Then the streams end, which Shutdown knows nothing
	// of.
	stopping := time.AfterFunc(answerTimeout, h.stop)
	defer stopping.Stop()
	server.Shutdown(ctx)
	h.stop()
	select {
	case <-h.done:
	case <-ctx.Done():
		server.Close() // cuts what has not ended
	}
	return nil
}

// serveLobby is one of several servers until ctx is done. If its node loses the lobby, it ends what
// is open, and comes back with another node as soon as it can.
func serveLobby(ctx context.Context, s settings, stdout, stderr io.Writer) error {
	listener, err := listen(s.addr) // only to see whether that is possible
	if err != nil {
		return err
	}
	listener.Close()
	say := func(sentence string) { warn(stderr, sentence) }
	lobby := cluster.NewLobby(etcd.New(s.etcd),
		cluster.Settings{History: s.config.History, MaxUsers: s.config.MaxUsers}, say)
	for hasLived, isWaiting := false, false; ; {
		node, reason := lobby.Begin(ctx)
		if reason == nil {
			if reason, err = serveLife(ctx, node, &s, stdout, stderr); err != nil {
				return err
			}
			if lobby.End(node) {
				hasLived, isWaiting = true, false
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(reason, cluster.ErrSettings) || errors.Is(reason, etcd.ErrRefused) && !hasLived {
			return reason // which will not pass by waiting
		}
		if !isWaiting {
			isWaiting = true
			say(fmt.Sprintf("%v; waiting until this server can take part in the lobby", reason))
		}
		select {
		case <-time.After(beginPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// serveLife serves a hub that is connected with the others through node, until ctx is done or the
// node has lost the lobby for some reason.
func serveLife(ctx context.Context, node *cluster.Node, s *settings, stdout, stderr io.Writer) (reason, err error) {
	hub, err := NewHub(s.config)
	if err != nil {
		return nil, err
	}
	hub.Connect(node.Name(), node.Commands(), node.Turns())
	h := start(hub)
	// The node gets a context of its own: the hub needs it until it has stopped.
	nodeCtx, stopNode := context.WithCancel(context.Background())
	defer stopNode()
	life, endLife := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		defer endLife()
		ended <- node.Run(nodeCtx)
	}()
	select {
	case <-node.Ready():
		err = h.serve(life, s, stdout, stderr)
	case <-life.Done():
		h.stop()
	}
	stopNode()
	return <-ended, err
}

// limitStreams lowers config's limit of streams to what the process may open, so that there are
// always connections for other requests. It returns how many connections there may be and, if it
// has lowered the limit, a warning.
func limitStreams(config *Config) (connections int, warning string) {
	files, ok := conns.MaxOpenFiles()
	if !ok {
		return config.MaxStreams + maxOthers, ""
	}
	// A connection that is being refused is open for a moment, too.
	available := max(files-reservedFiles-min(files/8, conns.MaxRefusals), 2)
	if fitting := available - min(available/4+1, maxOthers); config.MaxStreams > fitting {
		warning = fmt.Sprintf("the process may open only %d files, so the limit of streams is %d, not %d; raise it with ulimit -n",
			files, fitting, config.MaxStreams)
		config.MaxStreams = fitting
	}
	return min(available, config.MaxStreams+maxOthers), warning
}

// listen listens at addr, HOST:PORT. 0.0.0.0 is every address of IPv4, [::] is every one of IPv6,
// and an empty host is both. The error says what to try instead.
func listen(addr string) (*net.TCPListener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && port == "" {
		err = errors.New("the port is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("%q is no address to listen at: %w; try -addr 127.0.0.1:8080", addr, err)
	}
	network := "tcp"
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		network = "tcp6"
		if ip.To4() != nil {
			network = "tcp4"
		}
	}
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: probeIdle, Interval: probeInterval, Count: probeCount,
	}}
	listener, err := config.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, fmt.Errorf("%w; try another -addr, such as 127.0.0.1:0 for a free port", err)
	}
	return listener.(*net.TCPListener), nil
}

// reachable returns the address at which a browser on this machine finds the server, which was told
// to listen at wanted and does so at actual. They differ if the host is empty or the port is 0; and
// browsers do not open [::].
func reachable(wanted, actual string) string {
	_, port, _ := net.SplitHostPort(actual)
	switch host, _, _ := net.SplitHostPort(wanted); {
	case host == "":
		return net.JoinHostPort("localhost", port)
	case net.ParseIP(host).Equal(net.IPv6unspecified):
		return net.JoinHostPort("::1", port)
	}
	return actual
}
