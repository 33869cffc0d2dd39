package certs

// What belongs here: when a certificate is replaced, and what happens if it cannot be.

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pair returns a certificate with a serial number, and its key, in PEM format.
func pair(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serial returns the serial number of the certificate in a handshake.
func serial(t *testing.T, k *Keeper) int64 {
	t.Helper()
	clientConn, serverConn := net.Pipe()
	defer clientConn.Close()
	defer serverConn.Close()
	go tls.Server(serverConn, &tls.Config{GetCertificate: k.Get}).HandshakeContext(t.Context())
	client := tls.Client(clientConn, &tls.Config{InsecureSkipVerify: true})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestNewFilesCountWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		certFile, keyFile := filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
		cert1, key1 := pair(t, 1)
		cert2, key2 := pair(t, 2)
		write(t, certFile, cert1)
		write(t, keyFile, key1)
		keeper, err := Load(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		warnings := make(chan string, 1000) // more than there could be
		go keeper.Run(t.Context(), func(s string) { warnings <- s })
		for _, c := range []struct {
			what       string
			file, text string
			pause      time.Duration
			serial     int64
			warning    string // "" if there is none
		}{
			{"nothing has changed", certFile, cert1, time.Hour, 1, ""},
			{"only one of the two is new", certFile, cert2, 2*pause - 1, 1, ""},
			{"both are new", keyFile, key2, pause, 2, ""},
			{"one is spoiled", certFile, "spoiled", 9 * time.Second, 2, "cannot use the certificate in"},
			{"it stays so", certFile, "spoiled", time.Hour, 2, ""},
			{"it is spoiled in another way", certFile, cert1, 9 * time.Second, 2, "does not match"},
			{"both are old", keyFile, key1, pause, 1, ""},
			{"one is gone", keyFile, "", 9 * time.Second, 1, "cannot read the certificate: open " + keyFile},
			{"it is back", keyFile, key1, pause, 1, ""},
		} {
			if c.text == "" {
				os.Remove(c.file)
			} else {
				write(t, c.file, c.text)
			}
			time.Sleep(c.pause)
			synctest.Wait()
			if got := serial(t, keeper); got != c.serial {
				t.Errorf("%s: the certificate is number %d, want %d", c.what, got, c.serial)
			}
			if c.warning != "" {
				if got := <-warnings; !strings.Contains(got, c.warning) {
					t.Errorf("%s: got the warning %q, want %q", c.what, got, c.warning)
				}
			}
			if len(warnings) > 0 {
				t.Errorf("%s: got the warning %q", c.what, <-warnings)
			}
		}
	})
}

func TestHandshakeEndsWithoutACertificate(t *testing.T) {
	serverConn, clientConn := net.Pipe()
	go tls.Client(clientConn, &tls.Config{InsecureSkipVerify: true}).Handshake()
	k := &Keeper{current: make(chan *tls.Certificate)} // its Run does not run
	ctx, cancel := context.WithCancel(t.Context())
	config := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cancel()
		return k.Get(hello)
	}}
	if err := tls.Server(serverConn, config).HandshakeContext(ctx); err == nil {
		t.Error("the handshake succeeded")
	}
}

func TestUnusableFilesAreNamed(t *testing.T) {
	certFile, keyFile := filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key")
	cert, _ := pair(t, 1)
	_, otherKey := pair(t, 2)
	write(t, certFile, cert)
	for _, c := range []struct{ key, want string }{
		{"", "cannot read the certificate: open " + keyFile},
		{"spoiled", "cannot use the certificate in " + certFile + " with the key in " + keyFile},
		{otherKey, "cannot use the certificate in " + certFile + " with the key in " + keyFile},
	} {
		if c.key != "" {
			write(t, keyFile, c.key)
		}
		if _, err := Load(certFile, keyFile); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("key %.10q: got %v, want %q", c.key, err, c.want)
		}
	}
}
