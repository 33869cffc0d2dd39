package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"lobby/certs"
	"lobby/cluster"
	"lobby/conns"
	"lobby/etcd"
	"lobby/lines"
	"lobby/metrics"
	"lobby/origin"
)

const (
	headTimeout     = 5 * time.Second // for a request's head, from its first byte
	shutdownTimeout = 3 * time.Second // for everything that is open when the server is told to stop
	requestTimeout  = time.Second / 4 // for running requests before streams are ended
	retryPause      = time.Second / 2 // between attempts to join the lobby
	flushTimeout    = time.Second / 4 // for the last lines to be printed

	// A second signal within sameSignal is taken for a copy of the first, forwarded by a parent
	// such as npm.
	sameSignal = time.Second / 2

	// idleTimeout is longer than the idle timeouts of load balancers (600 s), proxies and clients, so
	// that they close first: a request that they send while the server closes is lost.
	idleTimeout = 11 * time.Minute

	// vanishTimeout is how long sent data may stay unacknowledged before the connection is closed. An
	// outage of 15 s loses nothing: the kernel waits twice as long before each retry, so one retry
	// falls between 15 and 30 s.
	//
	// By default a vanished client stays present for at most 51 s: 15 s until a comment is sent, 31 s
	// of retries (the kernel may be a second late), and 5 s of grace period. With -keepalive 30s or
	// longer it is at most 66 s: 30 s until something is sent (or else the probes of conns.Listen end
	// the connection), 31 s, and 5 s.
	vanishTimeout = 30 * time.Second

	// The kernel accepts at most unsentLimit beyond what it can send, so a client that does not read
	// costs little memory. sendBuffer also limits what has been sent but not acknowledged. Linux
	// doubles it, to what a client must read in writeTimeout at streaming.MinRate. Otherwise a write
	// could return while megabytes of it are still on their way to a client behind a slow link.
	unsentLimit = 16 << 10
	sendBuffer  = 320 << 10

	// Over HTTP/2, a connection on which nothing has arrived for pingAfter gets a ping, which the
	// client must answer within vanishTimeout.
	pingAfter = 15 * time.Second

	reservedFiles = 10   // files that are not connections, besides those that are open at the start
	maxOthers     = 4096 // connections that are not streams
	maxScrapes    = 8    // connections at the address for metrics
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup makes processes ignore it
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		var first time.Time
		for range signals {
			if first.IsZero() {
				first = time.Now()
				stop()
			} else if time.Since(first) >= sameSignal {
				os.Exit(1)
			}
		}
	}()
	// net/http's client logs when etcd sends what is not HTTP. Package etcd explains that anyway.
	log.SetOutput(io.Discard)
	stdout, stderr := lines.NewWriter(os.Stdout), lines.NewWriter(os.Stderr)
	err := run(ctx, os.Args[1:], stdout, stderr)
	status := 0
	if err != nil {
		warn(stderr, err.Error())
		status = 1
		if _, ok := errors.AsType[usageError](err); ok {
			status = 2
		}
	}
	stdout.Flush(flushTimeout)
	stderr.Flush(flushTimeout)
	os.Exit(status)
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

	tlsCert, tlsKey string // files; "" for plain http
	metricsAddr     string // "" for none

	certificate *certs.Keeper    // nil for plain http
	monitor     *metrics.Monitor // nil without metricsAddr
	connections int              // how many may be open
	warning     string           // to print once the server listens; "" if there is none
}

// parse reads the command line. The error is flag.ErrHelp after -h, or else a usageError.
func parse(args []string, out io.Writer) (settings, error) {
	s := settings{config: DefaultConfig}
	config := &s.config
	flags := flag.NewFlagSet("lobby", flag.ContinueOnError)
	flags.StringVar(&s.addr, "addr", "127.0.0.1:8080", "listen at `address`; port 0 picks a free port")
	flags.IntVar(&config.History, "history", config.History,
		"keep the last `n` events for resuming; each needs its text and up to 300 bytes of memory")
	flags.IntVar(&config.MaxUsers, "max-users", config.MaxUsers,
		"reject new users by POST once there are `n`")
	flags.IntVar(&config.MaxStreams, "max-streams", config.MaxStreams,
		"reject new streams once `n` are open")
	flags.DurationVar(&config.Grace, "grace", config.Grace,
		"keep users present for `duration` after their last stream closes; 0 means none")
	flags.DurationVar(&config.KeepAlive, "keepalive", config.KeepAlive,
		"send streams a comment after `duration` without an event")
	flags.Func("host", "also answer to Host `name`; may be repeated", func(name string) error {
		host, err := origin.ParseHost(name)
		s.hosts = append(s.hosts, host)
		return err
	})
	var urls []string // parsed later: flag errors quote the value, which may hold a password
	flags.Func("etcd", "join the lobby of several machines whose log is in etcd at `URL`[,URL…]",
		func(value string) error {
			urls = []string{value}
			return nil
		})
	var ca, cert, key string
	flags.StringVar(&ca, "etcd-ca", "", "PEM `file` with the CA certificates that signed etcd's certificate")
	flags.StringVar(&cert, "etcd-cert", "", "PEM `file` with this server's client certificate for etcd")
	flags.StringVar(&key, "etcd-key", "", "PEM `file` with the key of that certificate")
	flags.StringVar(&s.tlsCert, "tls-cert", "", "speak https, with the certificate (and its chain) in this PEM `file`")
	flags.StringVar(&s.tlsKey, "tls-key", "", "PEM `file` with the key of -tls-cert")
	flags.StringVar(&s.metricsAddr, "metrics", "", "listen at `address` for GET /metrics, in Prometheus's text format")
	flags.SetOutput(io.Discard) // errors are printed once, by main
	err := flags.Parse(args)
	if err == nil && urls != nil {
		s.etcd, err = etcd.ParseURLs(urls[0])
	}
	if err == nil {
		s.etcd.TLS, err = etcd.LoadTLS(ca, cert, key)
	}
	if err == nil {
		err = config.check()
	}
	if err == nil && (s.tlsCert == "") != (s.tlsKey == "") {
		err = errors.New("-tls-cert and -tls-key belong together; give both or neither")
	}
	s.config.Counts = s.metricsAddr != ""
	switch argument := flags.Arg(0); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(out)
		flags.PrintDefaults()
		return s, err
	case err == nil && strings.Contains(argument, "@"):
		err = errors.New("unexpected argument, which may contain a password: lobby takes only flags")
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q: lobby takes only flags", argument)
	}
	if err != nil {
		return s, usageError{fmt.Errorf("%w; -h lists the flags", err)}
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
	if err := s.limitStreams(); err != nil {
		return err
	}
	if s.tlsCert != "" {
		if s.certificate, err = certs.Load(s.tlsCert, s.tlsKey); err != nil {
			return err
		}
		go s.certificate.Run(context.Background(), func(sentence string) { warn(stderr, sentence) })
	}
	if s.metricsAddr != "" {
		stop, err := s.serveMetrics(stderr)
		if err != nil {
			return err
		}
		defer stop()
	}
	if len(s.etcd.Endpoints) > 0 {
		return serveCluster(ctx, s, stdout, stderr)
	}
	hub, err := NewHub(s.config)
	if err != nil {
		return err
	}
	return start(hub, nil).serve(ctx, &s, stdout, stderr)
}

// serveMetrics listens and serves at metricsAddr, until stop is called.
func (s *settings) serveMetrics(stderr io.Writer) (stop func() error, err error) {
	tcpListener, err := listen("-metrics", s.metricsAddr, "127.0.0.1:9090", "127.0.0.1:9091")
	if err != nil {
		return nil, err
	}
	s.monitor = metrics.NewMonitor("connections", "users", "streams", "lists", "head", "body")
	listener := conns.Limit(tcpListener, maxScrapes, refuse)
	handler := newMetricsServer(s.monitor, origin.Check(listener.Addr(), s.hosts), listener.Crowded)
	server := newHTTPServer(handler, stderr)
	go server.Serve(listener)
	return server.Close, nil
}

func newHTTPServer(handler http.Handler, stderr io.Writer) *http.Server {
	return &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            headTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHead - 4<<10, // net/http adds 4 KiB
		DisableGeneralOptionsHandler: true,            // "OPTIONS *" is checked like every other request
		ConnContext:                  prepareConn(stderr),
		ErrorLog:                     log.New(errorLog{stderr}, "lobby: ", 0),
	}
}

// errorLog prints what net/http logs, except clients' failed TLS handshakes and HTTP/2 errors.
type errorLog struct{ io.Writer }

func (l errorLog) Write(line []byte) (int, error) {
	text := string(line)
	if strings.Contains(text, "TLS handshake error") || strings.Contains(text, "http2: server") {
		return len(line), nil
	}
	return l.Writer.Write(line)
}

// runningHub is a hub whose Run has been called.
type runningHub struct {
	*Hub
	node *cluster.Node // nil on a single machine
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned
}

// start calls a hub's Run. The hub has its own context, so that running requests get their results:
// serve stops the hub only after the listener is closed. On several machines, the end of the
// node stops the hub earlier.
func start(hub *Hub, node *cluster.Node) runningHub {
	ctx, stop := context.WithCancel(context.Background())
	h := runningHub{hub, node, stop, make(chan struct{})}
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
	tcpListener, err := listen("-addr", s.addr, "127.0.0.1:8080", "127.0.0.1:0 for a free port")
	if err != nil {
		return err
	}
	listener := conns.Limit(tcpListener, s.connections, func(w io.Writer) {
		s.monitor.Count(http.StatusServiceUnavailable, "connections")
		if s.certificate != nil { // Without NextProtos, the client cannot choose HTTP/2.
			w = tls.Server(w.(net.Conn), &tls.Config{GetCertificate: s.certificate.Get})
		}
		refuse(w)
	})
	addr := tcpListener.Addr().String()
	handler := newServer(h.Hub, origin.Check(tcpListener.Addr(), s.hosts), listener.Crowded)
	server := newHTTPServer(s.monitor.Handler(handler), stderr)
	scheme, serve := "http", func() error { return server.Serve(listener) }
	if s.certificate != nil {
		server.TLSConfig = &tls.Config{GetCertificate: s.certificate.Get}
		server.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: vanishTimeout}
		server.MaxHeaderBytes = maxHead + 32*maxHeadLines // HTTP/2 counts 32 bytes more for each line
		scheme, serve = "https", func() error { return server.ServeTLS(listener, "", "") }
	}
	s.monitor.Watch(func(text *metrics.Text) { h.report(text, listener) })
	failed := make(chan error, 1)
	go func() { failed <- serve() }()
	if s.warning != "" {
		warn(stderr, s.warning)
		s.warning = ""
	}
	fmt.Fprintf(stdout, "Starting server at %s://%s\n", scheme, conns.URLHost(s.addr, addr))
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
	// Running requests get their responses. Then the hub ends the streams: over HTTP/1.1, Shutdown
	// does not know them, because they are hijacked; over HTTP/2, it would wait for them.
	time.AfterFunc(requestTimeout, h.stop)
	server.Shutdown(ctx)
	h.stop()
	select {
	case <-h.done:
	case <-ctx.Done():
	}
	// This closes the remaining requests. A hijacked stream whose client is stalled ends at its write
	// timeout, or with the process.
	server.Close()
	return nil
}

// report appends the figures of the hub, of its node, and of the listener in front of it.
func (h runningHub) report(text *metrics.Text, listener *conns.Limited) {
	if h.node != nil {
		h.node.Report(text)
	}
	f, err := h.Figures()
	if err != nil {
		return // the hub has stopped
	}
	one := func(n int) metrics.Sample { return metrics.Sample{Value: float64(n)} }
	kind := func(of string, n int) metrics.Sample {
		return metrics.Sample{Label: "kind", LabelValue: of, Value: float64(n)}
	}
	text.Gauge("lobby_users", "Users who are present.", one(f.Users))
	text.Gauge("lobby_streams", "Open streams.", one(f.Streams))
	text.Gauge("lobby_connections", "Open connections.", one(listener.Connections()))
	text.Counter("lobby_events_total", "Events, by kind.", kind("arrival", f.Counts.Arrivals),
		kind("departure", f.Counts.Departures), kind("message", f.Counts.Messages))
	text.Counter("lobby_lags_total", "Times that a stream had fallen behind.", one(f.Counts.Lags))
	text.Counter("lobby_gaps_total", "Gaps that streams were sent.", one(f.Counts.Gaps))
}

// prepareConn returns a function that sets the options of a new connection that net/http does not.
// If that fails, the connection is served with weaker limits.
func prepareConn(stderr io.Writer) func(context.Context, net.Conn) context.Context {
	var warned time.Time // needs no lock: http.Server calls the function from one goroutine
	return func(ctx context.Context, conn net.Conn) context.Context {
		if overTLS, ok := conn.(*tls.Conn); ok {
			conn = overTLS.NetConn()
		}
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

// serveCluster takes part in a lobby on several machines until ctx is done. If its node ends, it
// ends everything that is open, and comes back with another node as soon as it can.
func serveCluster(ctx context.Context, s settings, stdout, stderr io.Writer) error {
	// This listens only to see whether that is possible.
	listener, err := listen("-addr", s.addr, "127.0.0.1:8080", "127.0.0.1:0 for a free port")
	if err != nil {
		return err
	}
	listener.Close()
	say := func(sentence string) { warn(stderr, sentence) }
	lobby := cluster.NewLobby(etcd.New(s.etcd),
		cluster.Settings{History: s.config.History, MaxUsers: s.config.MaxUsers}, say)
	s.monitor.Watch((*cluster.Node)(nil).Report) // until there is a node
	wasPart := false                             // whether this process has been part of the lobby
	said := ""                                   // the last sentence, which is not repeated
	for {
		node, reason := lobby.Begin(ctx)
		if reason == nil {
			if reason, err = serveNode(ctx, node, &s, stdout, stderr); err != nil {
				return err
			}
			if wasKnown := lobby.End(node, reason); wasKnown {
				wasPart, said = true, ""
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(reason, cluster.ErrSettings) || errors.Is(reason, etcd.ErrRefused) && !wasPart {
			return reason // Waiting will not help. Once part of the lobby, a node waits for its operator.
		}
		if sentence := fmt.Sprintf("%v; waiting to join the lobby", reason); sentence != said {
			said = sentence
			say(sentence)
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// serveNode serves a hub that is connected to the others through node, until ctx is done or the
// node ends for the returned reason.
func serveNode(
	ctx context.Context, node *cluster.Node, s *settings, stdout, stderr io.Writer,
) (reason, err error) {
	hub, err := NewHub(s.config)
	if err != nil {
		return nil, err
	}
	if s.monitor != nil {
		node.Count()
	}
	hub.Connect(node.Name(), node.Commands(), node.Steps(), node.Results())
	h := start(hub, node)
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
		<-h.done
	}
	stopNode()
	return <-ended, err
}

// limitStreams lowers the limit of streams to what the process may open, so that there are always
// connections for other requests. It fails if too few files may be open to serve anyone.
func (s *settings) limitStreams() error {
	files := conns.MaxOpenFiles()
	// A connection that is being refused uses a file for a moment, too.
	available := files - conns.OpenFiles() - reservedFiles - min(files/8, conns.MaxRefusals)
	if s.metricsAddr != "" {
		available -= 2 * maxScrapes // and as many that are being refused
	}
	if available < 2 {
		return fmt.Errorf("only %d files may be open, which is too few to serve anyone; "+
			"raise the limit with ulimit -n", files)
	}
	if fitting := available - min(available/4+1, maxOthers); s.config.MaxStreams > fitting {
		s.warning = fmt.Sprintf("only %d files may be open, so at most %d streams are allowed instead of %d; "+
			"raise the limit with ulimit -n", files, fitting, s.config.MaxStreams)
		s.config.MaxStreams = fitting
	}
	s.connections = min(available, s.config.MaxStreams+maxOthers)
	return nil
}

// listen listens at the address that a flag gives. The error suggests what to try: example in place
// of an invalid address, other in place of one that cannot be used.
func listen(flag, addr, example, other string) (*net.TCPListener, error) {
	listener, err := conns.Listen(addr)
	if invalid, ok := errors.AsType[*net.AddrError](err); ok {
		return nil, fmt.Errorf("%q is not a valid address to listen at: %s; try %s %s",
			addr, invalid.Err, flag, example)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; try another %s, such as %s", err, flag, other)
	}
	return listener, nil
}
