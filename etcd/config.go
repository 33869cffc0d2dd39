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
	"strings"
	"time"
)

// Config says where a lobby's log is.
type Config struct {
	Endpoints      []string    // base URLs, "http://10.0.0.1:2379"; at least one
	Name           string      // of the lobby
	User, Password string      // empty if etcd asks for none
	TLS            *tls.Config // for https; nil for the system's defaults

	dial func(ctx context.Context, network, address string) (net.Conn, error) // for tests; nil for TCP
}

// defaultName is the name of a lobby whose URL has no path.
const defaultName = "lobby"

// ParseURLs reads "URL[,URL…]", one URL for each etcd server. The last element of a URL's path is
// the lobby's name; what comes before it leads to etcd, if that is behind a proxy. The error is one
// sentence, which says what to write instead. It never quotes a URL, because a URL may hold a
// password.
func ParseURLs(list string) (Config, error) {
	var config Config
	for i, text := range strings.Split(list, ",") {
		wrong := func(format string, args ...any) (Config, error) {
			return Config{}, fmt.Errorf("URL %d of etcd %s", i+1, fmt.Sprintf(format, args...))
		}
		text = strings.TrimSpace(text)
		scheme, _, _ := strings.Cut(text, "://")
		u, err := url.Parse(text)
		switch {
		case text == "":
			return wrong("is empty; write URLs such as http://10.0.0.1:2379, with one comma between two")
		case !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https"):
			return wrong("does not begin with http:// or https://; write one such as http://10.0.0.1:2379")
		case err != nil:
			return wrong("cannot be read; write one such as http://10.0.0.1:2379, and characters " +
				"of a password that have a meaning in URLs as %%2F, %%3A and so on")
		case u.Hostname() == "":
			return wrong("has no host; write one such as http://10.0.0.1:2379")
		case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
			return wrong("has more than a path; end it after the lobby's name, as in http://10.0.0.1:2379/blue")
		}
		way, name := path.Split(strings.TrimRight(u.EscapedPath(), "/"))
		if name == "" {
			name = defaultName
		}
		if strings.ContainsFunc(name, isNotOfName) {
			return wrong("names the lobby %q; write a name of letters and digits of ASCII, '.', '_' and '-'", name)
		}
		user := u.User.Username()
		password, hasPassword := u.User.Password()
		if u.User != nil && (user == "" || !hasPassword) {
			return wrong("has a user without a password, or a password without a user; write http://USER:PASSWORD@HOST:PORT")
		}
		if i == 0 {
			config.Name, config.User, config.Password = name, user, password
		}
		switch {
		case name != config.Name:
			return wrong("names the lobby %q and the first URL %q; write the same name in each", name, config.Name)
		case user != config.User || password != config.Password:
			return wrong("has another user or password than the first; write the same in each")
		}
		config.Endpoints = append(config.Endpoints, u.Scheme+"://"+u.Host+strings.TrimRight(way, "/"))
	}
	return config, nil
}

func isNotOfName(c rune) bool {
	return !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '.' || c == '_' || c == '-')
}

// LoadTLS reads what -etcd-ca, -etcd-cert and -etcd-key name: a file with the certificates that
// vouch for the etcd servers, and the certificate and the key that lobby shows them. Each may be
// empty; it returns nil if all are. The error is one sentence.
func LoadTLS(ca, cert, key string) (*tls.Config, error) {
	if ca == "" && cert == "" && key == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("-etcd-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("-etcd-ca: there is no certificate in %s; name a file in PEM format", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("-etcd-cert and -etcd-key belong together; give both or neither")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("-etcd-cert and -etcd-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Log is a lobby's log in etcd. Its methods may be called from any goroutine.
type Log struct {
	config    Config
	http      *http.Client
	maxAnswer int64 // how many bytes of an answer, or of a message of a watch, are read
	maxPiece  int   // how many bytes a piece of a state has
}

// New returns the log that config describes. It does not look whether that exists.
func New(config Config) *Log {
	if config.Name == "" {
		config.Name = defaultName
	}
	if config.dial == nil {
		config.dial = (&net.Dialer{Timeout: dialTime}).DialContext
	}
	// Only HTTP/1.1: over HTTP/2 a watch and the requests beside it would share one connection, and
	// a large answer would hold up the small ones.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Log{config: config, maxAnswer: maxAnswer, maxPiece: maxPiece, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         config.dial,
			TLSClientConfig:     config.TLS,
			TLSHandshakeTimeout: dialTime,
			Protocols:           protocols,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// key returns the lobby's key whose name in the lobby is path.
func (l *Log) key(path string) []byte {
	return []byte(l.config.Name + "/" + path)
}
