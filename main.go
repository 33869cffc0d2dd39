package main

import (
	"cmp"
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
	headTimeout     = 5 * time.Second // for a request's head, from its first byte
	shutdownTimeout = 3 * time.Second // for everything that is open when the server is told to stop
	requestTimeout  = time.Second / 4 // for running requests before streams are ended
	retryPause      = time.Second / 2 // between attempts to join the lobby

	// idleTimeout is longer than the 90 s for which proxies and clients keep connections, so that they
	// close first: a request that they send while the server closes is lost.
	idleTimeout = 2 * time.Minute

	// vanishTimeout is how long sent data may stay unacknowledged before the connection is closed. An
	// outage of half that long loses nothing: the time between the kernel's retries doubles, so one
	// is due in the second half.
	vanishTimeout = 30 * time.Second

	// A vanished client stays present for at most 51 s: 15 s until a comment is sent, 31 s for that,
	// and 5 s of grace period. Without comments, the kernel's probes of the idle connection go
	// unanswered. It drops the connection at the first probe that is due after vanishTimeout (on
	// Linux) or after probeCount probes (elsewhere): after 30 s, so that an outage of 15 s leaves a
	// probe to answer.
	probeIdle     = 10 * time.Second
	probeInterval = 2 * time.Second
	probeCount    = 10

	// The kernel accepts at most unsentLimit beyond what it can send, so a client that does not read
	// costs little memory. sendBuffer, which Linux doubles, also limits what has been sent but not
	// acknowledged: to what a client reads in writeTimeout at minListRate. Otherwise a write could be
	// done megabytes before a client behind a slow link has the data.
	unsentLimit = 64 << 10
	sendBuffer  = 320 << 10

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
		<-signals // A second signal ends the process at once.
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

// settings are what the command line says, and what follows from it.
type settings struct {
	config Config
	addr   string
	hosts  []origin.Host // in addition to loopback names
	etcd   etcd.Config   // of the log on several machines; without endpoints on a single one

	connections int    // how many may be open
	warning     string // to print once the server listens; "" if there is none
}

// parse reads the command line. The error is flag.ErrHelp after -h, or else a usageError.
func parse(args []string, out io.Writer) (settings, error) {
	s := settings{config: DefaultConfig}
	flags := flag.NewFlagSet("lobby", flag.ContinueOnError)
	flags.StringVar(&s.addr, "addr", "127.0.0.1:8080", "listen at `address`; port 0 picks a free port")
	flags.IntVar(&s.config.History, "history", s.config.History, "keep the last `n` events for resuming")
	flags.IntVar(&s.config.MaxUsers, "max-users", s.config.MaxUsers, "reject new users by POST once there are `n`")
	flags.IntVar(&s.config.MaxStreams, "max-streams", s.config.MaxStreams, "reject new streams once `n` are open")
	flags.DurationVar(&s.config.Grace, "grace", s.config.Grace, "keep users present for `duration` after their last stream closes; 0 means none")
	flags.DurationVar(&s.config.KeepAlive, "keepalive", s.config.KeepAlive, "send streams a comment after `duration` without an event")
	flags.Func("host", "also answer to Host `name`; may be repeated", func(name string) error {
		host, err := origin.ParseHost(name)
		s.hosts = append(s.hosts, host)
		return err
	})
	var urls []string // parsed later: the error of a flags.Func quotes the value, which may hold a password
	flags.Func("etcd", "join the lobby of several machines whose log is in etcd at `URL`[,URL…]", func(value string) error {
		urls = []string{value}
		return nil
	})
	var ca, cert, key string
	flags.StringVar(&ca, "etcd-ca", "", "PEM `file` with the CA certificates that signed etcd's certificate")
	flags.StringVar(&cert, "etcd-cert", "", "PEM `file` with this server's client certificate for etcd")
	flags.StringVar(&key, "etcd-key", "", "PEM `file` with the key of that certificate")
	flags.SetOutput(io.Discard) // errors are printed once, by main
	err := flags.Parse(args)
	if err == nil && urls != nil {
		s.etcd, err = etcd.ParseURLs(urls[0])
	}
	if err == nil {
		s.etcd.TLS, err = etcd.LoadTLS(ca, cert, key)
	}
	if err == nil {
		err = s.config.check()
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(out)
		flags.PrintDefaults()
		return s, err
	case err != nil:
		return s, usageError{fmt.Errorf("%w; -h lists the flags", err)}
	case flags.NArg() > 0:
		return s, usageError{fmt.Errorf("unexpected argument %q: lobby takes only flags, which -h lists", flags.Arg(0))}
	}
	return s, nil
}

// run runs the server until ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	s.connections, s.warning = limitStreams(&s.config)
	if len(s.etcd.Endpoints) > 0 {
		return serveCluster(ctx, s, stdout, stderr)
	}
	hub, err := NewHub(s.config)
	if err != nil {
		return err
	}
	return start(hub).serve(ctx, &s, stdout, stderr)
}

// runningHub is a hub whose Run has been called.
type runningHub struct {
	*Hub
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned
}

// start calls a hub's Run. The hub has its own context: it stops only after the listener is closed,
// so that no accepted connection finds the hub already stopped.
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
		ConnContext:                  prepareConn(stderr),
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
	// Running requests get their responses. Then the streams end, which are hijacked and unknown to
	// Shutdown.
	stopping := time.AfterFunc(requestTimeout, h.stop)
	defer stopping.Stop()
	server.Shutdown(ctx)
	h.stop()
	select {
	case <-h.done:
	case <-ctx.Done():
		server.Close() // closes the remaining requests; streams end with the process
	}
	return nil
}

// prepareConn returns a function that sets on each new connection what net/http has no option for.
// A connection is served even if that fails, since only its limits are weaker then.
func prepareConn(stderr io.Writer) func(context.Context, net.Conn) context.Context {
	var warned time.Time // needs no lock: http.Server calls the function from one goroutine
	return func(ctx context.Context, conn net.Conn) context.Context {
		c := conn.(*conns.Conn)
		err := cmp.Or(c.SetUserTimeout(vanishTimeout), conns.SetUnsentLimit(c.TCPConn, unsentLimit),
			c.SetWriteBuffer(sendBuffer))
		if err != nil && time.Since(warned) >= time.Second {
			warned = time.Now()
			warn(stderr, fmt.Sprintf("cannot limit a connection: %v", err))
		}
		return context.WithValue(ctx, connKey{}, c)
	}
}

// turnAway writes the response for a connection beyond the limit, of which no request is read.
func turnAway(w io.Writer) {
	const body = "There are too many connections; try again later.\n"
	fmt.Fprintf(w, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: %s\r\nContent-Type: %s\r\n"+
		"X-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		retryAfter(), plainText, len(body), body)
}

// serveCluster takes part in a lobby on several machines until ctx is done. If its node loses the
// lobby, it ends everything that is open, and comes back with another node as soon as it can.
func serveCluster(ctx context.Context, s settings, stdout, stderr io.Writer) error {
	listener, err := listen(s.addr) // only to see whether that is possible
	if err != nil {
		return err
	}
	listener.Close()
	say := func(sentence string) { warn(stderr, sentence) }
	lobby := cluster.NewLobby(etcd.New(s.etcd),
		cluster.Settings{History: s.config.History, MaxUsers: s.config.MaxUsers}, say)
	for wasPart, isWaiting := false, false; ; {
		node, reason := lobby.Begin(ctx)
		if reason == nil {
			if reason, err = serveNode(ctx, node, &s, stdout, stderr); err != nil {
				return err
			}
			if lobby.End(node) {
				wasPart, isWaiting = true, false
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(reason, cluster.ErrSettings) || errors.Is(reason, etcd.ErrRefused) && !wasPart {
			return reason // waiting will not help
		}
		if !isWaiting {
			isWaiting = true
			say(fmt.Sprintf("%v; waiting to join the lobby", reason))
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// serveNode serves a hub that is connected to the others through node, until ctx is done or the node
// has lost the lobby for the returned reason.
func serveNode(ctx context.Context, node *cluster.Node, s *settings, stdout, stderr io.Writer) (reason, err error) {
	hub, err := NewHub(s.config)
	if err != nil {
		return nil, err
	}
	hub.Connect(node.Name(), node.Commands(), node.Steps(), node.Results())
	h := start(hub)
	// The node has its own context: the hub needs it until the hub has stopped.
	nodeCtx, stopNode := context.WithCancel(context.Background())
	defer stopNode()
	serving, stopServing := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		defer stopServing()
		ended <- node.Run(nodeCtx)
	}()
	select {
	case <-node.Ready():
		err = h.serve(serving, s, stdout, stderr)
	case <-serving.Done():
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
	// A connection that is being rejected uses a file for a moment, too.
	available := max(files-reservedFiles-min(files/8, conns.MaxRefusals), 2)
	if fitting := available - min(available/4+1, maxOthers); config.MaxStreams > fitting {
		warning = fmt.Sprintf("only %d files may be open, so at most %d streams are allowed instead of %d; "+
			"raise the limit with ulimit -n", files, fitting, config.MaxStreams)
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
		return nil, fmt.Errorf("%q is not a valid address to listen at: %w; try -addr 127.0.0.1:8080", addr, err)
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
	config.SetMultipathTCP(false) // The options that prepareConn sets fail over Multipath TCP.
	listener, err := config.Listen(context.Background(), network, addr)
	if err != nil {
		return nil, fmt.Errorf("%w; try another -addr, such as 127.0.0.1:0 for a free port", err)
	}
	return listener.(*net.TCPListener), nil
}

// reachable returns the address at which a browser on this machine finds the server, which was told
// to listen at wanted and does so at actual: that is actual, except that an empty host becomes
// localhost and [::], which browsers do not open, becomes [::1].
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
