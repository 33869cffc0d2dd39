// Package certs keeps a TLS server's certificate up to date, without a restart and without locks.
//
// A certificate expires within months, and its files are replaced before that, by certbot for
// example. One goroutine owns the current certificate, looks at the files every few seconds, and
// hands the certificate to each handshake:
//
//	keeper, err := certs.Load("cert.pem", "key.pem")
//	…
//	go keeper.Run(ctx, func(sentence string) { log.Print(sentence) })
//	server.TLSConfig = &tls.Config{GetCertificate: keeper.Get}
package certs

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"time"
)

// pause is the time from one look at the files to the next.
const pause = 4 * time.Second

// Keeper keeps a certificate.
type Keeper struct {
	certFile, keyFile string
	first             content
	current           chan *tls.Certificate // from Run to the handshakes
}

// content is what a look at the files has found.
type content struct{ cert, key, err string }

// Load returns a Keeper of the certificate in two files in PEM format. The error names a file.
func Load(certFile, keyFile string) (*Keeper, error) {
	k := &Keeper{certFile: certFile, keyFile: keyFile, current: make(chan *tls.Certificate)}
	k.first = k.look()
	_, err := k.parse(k.first)
	return k, err
}

// Run hands out the certificate until ctx is done. Replaced files are used from the next look on. If
// they cannot be used, the old certificate stays, and Run calls warn with a sentence.
func (k *Keeper) Run(ctx context.Context, warn func(string)) {
	seen := k.first
	current, err := k.parse(seen)
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case k.current <- current:
		case <-ticker.C:
			// Unusable files are reported only at the second look. At the first, perhaps only one of the
			// two files has been replaced.
			if content := k.look(); content != seen {
				seen = content
				var next *tls.Certificate
				if next, err = k.parse(content); err == nil {
					current = next
				}
			} else if err != nil {
				warn(err.Error() + "; the old certificate stays in use")
				err = nil
			}
		case <-ctx.Done():
			return
		}
	}
}

// Get returns the certificate. It is for tls.Config.GetCertificate.
func (k *Keeper) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	select {
	case c := <-k.current:
		return c, nil
	case <-hello.Context().Done():
		return nil, hello.Context().Err()
	}
}

func (k *Keeper) look() content {
	cert, err := os.ReadFile(k.certFile)
	if err != nil {
		return content{err: err.Error()}
	}
	key, err := os.ReadFile(k.keyFile)
	if err != nil {
		return content{err: err.Error()}
	}
	return content{cert: string(cert), key: string(key)}
}

func (k *Keeper) parse(c content) (*tls.Certificate, error) {
	if c.err != "" {
		return nil, fmt.Errorf("cannot read the certificate: %s", c.err)
	}
	pair, err := tls.X509KeyPair([]byte(c.cert), []byte(c.key))
	if err != nil {
		return nil, fmt.Errorf("cannot use the certificate in %s with the key in %s: %w",
			k.certFile, k.keyFile, err)
	}
	return &pair, nil
}
