package etcd

// What belongs here: tests of what the flags say, URLs and certificates. Those of TLS use sockets.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func ExampleParseURLs() {
	config, err := ParseURLs("http://10.0.0.1:2379/blue,http://10.0.0.2:2379/blue")
	fmt.Println(config.Name, config.Endpoints, err)

	_, err = ParseURLs("10.0.0.1:2379")
	fmt.Println(err)
	// Output:
	// blue [http://10.0.0.1:2379 http://10.0.0.2:2379] <nil>
	// etcd URL 1 does not begin with http:// or https://; an example is http://10.0.0.1:2379
}

func TestURLsNameEndpointsAndLobby(t *testing.T) {
	for list, want := range map[string]Config{
		"http://h:1":                  {Endpoints: []string{"http://h:1"}, Name: "lobby"},
		"http://h:1/":                 {Endpoints: []string{"http://h:1"}, Name: "lobby"},
		"http://h/etcd/eu/blue/":      {Endpoints: []string{"http://h/etcd/eu"}, Name: "blue"},
		"HTTPS://h:1/blue/":           {Endpoints: []string{"https://h:1"}, Name: "blue"},
		"http://[::1]:1/A.b_c-9":      {Endpoints: []string{"http://[::1]:1"}, Name: "A.b_c-9"},
		"http://h:65535":              {Endpoints: []string{"http://h:65535"}, Name: "lobby"},
		"http://h:1, https://i/lobby": {Endpoints: []string{"http://h:1", "https://i"}, Name: "lobby"},
		"http://a:p%2Cw@h,http://a:p%2Cw@i": {
			Endpoints: []string{"http://h", "http://i"}, Name: "lobby", User: "a", Password: "p,w",
		},
	} {
		if got, err := ParseURLs(list); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", list, got, err)
		}
	}
}

func TestInvalidURLIsExplained(t *testing.T) {
	for list, want := range map[string]string{
		"":                                    "etcd URL 1 is empty",
		"http://h:1,":                         "etcd URL 2 is empty",
		"h:1":                                 "http:// or https://",
		"ftp://h":                             "http:// or https://",
		"http:h:1":                            "http://",
		"http://:2379":                        "no host",
		"http://h:port":                       "is not valid",
		"http://h:65536":                      "the highest port is 65535",
		"http://a:sec/ret@h":                  "is not valid",
		"http://a:12/secret@h":                "is not valid",
		"http://a:123456/secret@h":            "is not valid",
		"http://a:123456?secret@h":            "is not valid",
		"http://a:123456#secret@h":            "is not valid",
		"http://h/a b":                        "names the lobby",
		"http://h/ä":                          "names the lobby",
		"http://h/a%2Fb":                      "names the lobby",
		"http://h?x":                          "a query or a fragment",
		"http://h?":                           "a query or a fragment",
		"http://h#x":                          "a query or a fragment",
		"http://a@h":                          "USER:PASSWORD",
		"http://:secret@h":                    "USER:PASSWORD",
		"http://h/a,http://i/b":               "use one name",
		"http://h/a,http://i":                 "use one name",
		"http://a:secret@h,http://i":          "the same in each",
		"http://a:secret@h,http://a:pin@i":    "the same in each",
		"http://a:secret@h,http://b:secret@i": "the same in each",
		"http://a:secret@h,%":                 "URL 2",
	} {
		_, err := ParseURLs(list)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", list, err, want)
		} else if text := err.Error(); strings.Contains(text, "sec") || strings.ContainsAny(text, "\n") {
			t.Errorf("%s: %q has several lines or contains the password", list, text)
		}
	}
}

// pki is a CA that also serves as a client's certificate.
type pki struct {
	ca, cert, key string // file names
	pool          *x509.CertPool
}

func newPKI(t *testing.T) pki {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	p := pki{pool: x509.NewCertPool()}
	p.pool.AppendCertsFromPEM(certPEM)
	dir := t.TempDir()
	p.ca, p.cert, p.key = filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for name, text := range map[string][]byte{p.ca: certPEM, p.cert: certPEM, p.key: keyPEM} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestCertificateFilesAreChecked(t *testing.T) {
	p := newPKI(t)
	load, err := LoadTLS(p.ca, p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	if config, err := load(); err != nil || config.RootCAs == nil || len(config.Certificates) != 1 {
		t.Errorf("with all files: %v, %v", config, err)
	}
	for _, test := range []struct{ ca, cert, key, want string }{
		{"missing", "", "", "-etcd-ca"},
		{p.key, "", "", "contains no certificate"},
		{"", p.cert, "", "belong together"},
		{p.ca, "", p.key, "belong together"},
		{"", p.key, p.cert, "-etcd-cert and -etcd-key"},
	} {
		if _, err := LoadTLS(test.ca, test.cert, test.key); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v", test, err)
		}
	}
}

// startEtcd starts a server that executes everything, for clients with the same pki as its current
// one.
func startEtcd(t *testing.T, current func() *pki) *httptest.Server {
	etcd := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"header":{"revision":"2"},"succeeded":true}`)
	}))
	etcd.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		p := current()
		pair, err := tls.LoadX509KeyPair(p.cert, p.key)
		return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: p.pool,
			ClientAuth: tls.RequireAndVerifyClientCert}, err
	}}
	etcd.Config.ErrorLog = log.New(io.Discard, "", 0)
	etcd.StartTLS()
	t.Cleanup(etcd.Close)
	return etcd
}

func TestTLSErrorsNameTheFlag(t *testing.T) {
	p := newPKI(t)
	etcd := startEtcd(t, func() *pki { return &p })
	plain := httptest.NewServer(etcd.Config.Handler)
	defer plain.Close()

	for _, test := range []struct{ url, ca, cert, key, want string }{
		{etcd.URL, p.ca, p.cert, p.key, ""},
		{etcd.URL, p.ca, "", "", "-etcd-cert and -etcd-key"},
		{etcd.URL, "", p.cert, p.key, "-etcd-ca"},
		{etcd.URL, "", "", "", "-etcd-ca"},
		{strings.Replace(plain.URL, "http:", "https:", 1), "", "", "", "use http://"},
	} {
		config, err := ParseURLs(test.url)
		if err != nil {
			t.Fatal(err)
		}
		if config.TLS, err = LoadTLS(test.ca, test.cert, test.key); err != nil {
			t.Fatal(err)
		}
		l := New(config)
		_, err = l.Begin(t.Context(), "", Entry{})
		// A server that rejects the client closes the connection, and net/http sometimes sees that
		// before it reads the alert that says why. Callers of Begin retry.
		for test.want != "" && strings.HasSuffix(fmt.Sprint(err), "the connection was closed") {
			_, err = l.Begin(t.Context(), "", Entry{})
		}
		l.http.CloseIdleConnections()
		if test.want == "" && err != nil ||
			test.want != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v: got %v", test, err)
		}
	}
}

// The server gets a new certificate of a new CA, and accepts only clients that have one as well.
func TestRenewedFilesAreUsedWithoutARestart(t *testing.T) {
	old, renewed := newPKI(t), newPKI(t)
	var current atomic.Pointer[pki] // the server's
	current.Store(&old)
	etcd := startEtcd(t, current.Load)

	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	install := func(p pki) {
		for to, from := range map[string]string{ca: p.ca, cert: p.cert, key: p.key} {
			if text, err := os.ReadFile(from); err != nil || os.WriteFile(to, text, 0o600) != nil {
				t.Fatalf("cannot copy %s: %v", from, err)
			}
		}
	}
	config, err := ParseURLs(etcd.URL)
	if err != nil {
		t.Fatal(err)
	}
	install(old)
	if config.TLS, err = LoadTLS(ca, cert, key); err != nil {
		t.Fatal(err)
	}
	l := New(config)
	try := func() error {
		defer l.http.CloseIdleConnections()
		_, err := l.Begin(t.Context(), "", Entry{})
		return err
	}
	if err := try(); err != nil {
		t.Fatal(err)
	}
	current.Store(&renewed)
	if err := try(); err == nil {
		t.Error("the old certificates still work")
	}
	os.Remove(cert) // while they are being renewed
	if err := try(); err == nil || !strings.Contains(err.Error(), "-etcd-cert and -etcd-key: open "+cert) {
		t.Errorf("without a certificate: %v", err)
	}
	install(renewed)
	if err := try(); err != nil {
		t.Errorf("the renewed certificates are not used: %v", err)
	}
}
