package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Config says where a lobby's log is.
type Config struct {
	Endpoints      []string // base URLs, "http://10.0.0.1:2379"; at least one
	Name           string   // the lobby's name
	User, Password string   // empty if etcd requires none

	// TLS is called for each connection over https. Nil means the system's defaults.
	TLS func() (*tls.Config, error)

	// dial replaces TCP in tests.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	// defaultName is the name of a lobby whose URL has no path.
	defaultName = "lobby"

	// nodeBytes and nameBytes are the bytes allowed in the names of nodes and of lobbies.
	nodeBytes = "0123456789abcdefghijklmnopqrstuvwxyz"
	nameBytes = nodeBytes + "ABCDEFGHIJKLMNOPQRSTUVWXYZ._-"
)

// ParseURLs parses "URL[,URL…]", one URL for each etcd server. The last element of a URL's path is
// the lobby's name; the part before it leads to an etcd behind a proxy. The error is one sentence
// that says what to write instead. It never quotes a URL, because a URL may contain a password.
func ParseURLs(list string) (Config, error) {
	var config Config
	for i, text := range strings.Split(list, ",") {
		invalid := func(format string, args ...any) (Config, error) {
			return Config{}, fmt.Errorf("etcd URL %d %s", i+1, fmt.Sprintf(format, args...))
		}
		text = strings.TrimSpace(text)
		scheme, _, _ := strings.Cut(text, "://")
		u, err := url.Parse(text)
		switch {
		case text == "":
			return invalid("is empty; write URLs such as http://10.0.0.1:2379, separated by single commas")
		case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
			return invalid("does not begin with http:// or https://; an example is http://10.0.0.1:2379")
		case err != nil || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@"):
			return invalid("is not valid; an example is http://10.0.0.1:2379, and in a password " +
				"/ is written %%2F, : is %%3A, and so on")
		case u.Hostname() == "":
			return invalid("has no host; an example is http://10.0.0.1:2379")
		case len(u.Port()) > 5 || len(u.Port()) == 5 && u.Port() > "65535":
			return invalid("has the port %s; the highest port is 65535", u.Port())
		case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			return invalid("has a query or a fragment; end it after the path, as in http://10.0.0.1/blue")
		}
		prefix, name := path.Split(strings.TrimRight(u.EscapedPath(), "/"))
		if name == "" {
			name = defaultName
		}
		if strings.Trim(name, nameBytes) != "" {
			return invalid("names the lobby %q; use only ASCII letters and digits, '.', '_' and '-'", name)
		}
		user := u.User.Username()
		password, hasPassword := u.User.Password()
		if u.User != nil && (user == "" || !hasPassword) {
			return invalid("has only a user or only a password; write http://USER:PASSWORD@HOST:PORT")
		}
		if i == 0 {
			config.Name, config.User, config.Password = name, user, password
		}
		switch {
		case name != config.Name:
			return invalid("names the lobby %q, and URL 1 %q; use one name in all", name, config.Name)
		case user != config.User || password != config.Password:
			return invalid("has a user or password that differs from URL 1's; use the same in each")
		}
		config.Endpoints = append(config.Endpoints, u.Scheme+"://"+u.Host+strings.TrimRight(prefix, "/"))
	}
	return config, nil
}

// LoadTLS returns a function for Config.TLS. It reads the files named by -etcd-ca, -etcd-cert and
// -etcd-key each time, so renewed files need no restart: the CA certificates for checking the etcd
// servers' certificates, and this program's own certificate and key. Each name may be empty. The
// error is one sentence.
func LoadTLS(ca, cert, key string) (func() (*tls.Config, error), error) {
	if (cert == "") != (key == "") {
		return nil, errors.New("-etcd-cert and -etcd-key belong together; set both or neither")
	}
	load := func() (*tls.Config, error) {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if ca != "" {
			pem, err := os.ReadFile(ca)
			if err != nil {
				return nil, fmt.Errorf("-etcd-ca: %v", err)
			}
			config.RootCAs = x509.NewCertPool()
			if !config.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("-etcd-ca: %s contains no certificate in PEM format", ca)
			}
		}
		if cert != "" {
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("-etcd-cert and -etcd-key: %v", err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		return config, nil
	}
	_, err := load()
	return load, err
}

// Log is a lobby's log in etcd. Its methods may be called from any goroutine.
type Log struct {
	Warn func(sentence string) // is called with what an operator should know

	config      Config
	http        *http.Client
	maxResponse int64        // maximum bytes of a response, or of one message of a watch
	maxPiece    int          // maximum bytes in a piece of a snapshot
	states      chan []state // holds the state of each endpoint; see client.note
}

// New returns the log described by config. It does not contact etcd.
func New(config Config) *Log {
	if config.Name == "" {
		config.Name = defaultName
	}
	if config.TLS == nil {
		config.TLS, _ = LoadTLS("", "", "")
	}
	if config.dial == nil {
		config.dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	// Only HTTP/1.1, because over HTTP/2 a watch and all requests would share one connection, and a
	// large response would hold up the small ones.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	l := &Log{Warn: func(string) {}, config: config, maxResponse: maxResponse, maxPiece: maxPiece}
	l.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         config.dial,
			DialTLSContext:      config.dialTLS,
			Protocols:           protocols,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     30 * time.Second,

			ResponseHeaderTimeout: requestTimeout, // also for a watch, which has no other timeout
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	l.states = make(chan []state, 1)
	l.states <- make([]state, len(config.Endpoints))
	return l
}

// dialTLS connects to address over TLS, with the certificates that the files contain now.
func (c Config) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	config, err := c.TLS()
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * dialTimeout}, Config: config}
	return d.DialContext(ctx, network, address)
}

// key returns the lobby's key with this path, such as "nodes/n1".
func (l *Log) key(path string) []byte { return []byte(l.config.Name + "/" + path) }

// entry returns the key of an entry.
func (l *Log) entry(node string, number int) []byte {
	return l.key("log/" + node + "/" + strconv.Itoa(number))
}
