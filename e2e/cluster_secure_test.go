// Here belongs what a node needs to be let in by etcd: passwords and certificates.
package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A node without the right password says so in one line.
func TestEtcdAsksForAPassword(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	endpoint := "http://" + e.members[0].client
	for _, args := range [][]string{
		{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"},
		{"user", "add", "joe:word"}, {"role", "add", "lobby"},
		{"role", "grant-permission", "lobby", "--prefix=true", "readwrite", "lobby/"},
		{"user", "grant-role", "joe", "lobby"}, {"auth", "enable"},
	} {
		etcdctl(t, append([]string{"--endpoints", endpoint}, args...)...)
	}
	as := func(user string) *node {
		return newNode(t, strings.Replace(e.url(), "http://", "http://"+user+"@", 1))
	}
	for _, user := range []string{"joe:word", "root:secret"} {
		n := as(user)
		n.start(t)
		n.mustServe(t, 1, 10*time.Second+slack)
		mustSayEverywhere(t, []*node{n})
	}
	for _, n := range []*node{as("joe:wrong"), as("nobody:word"), newNode(t, e.url())} {
		mustSayWhyNot(t, n, "password")
		if regexp.MustCompile(`:(wrong|word)`).MatchString(n.errs.String()) {
			t.Errorf("%q shows a password", n.errs)
		}
	}
}

// authority signs certificates, and writes everything into files.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newAuthority returns an authority whose certificate is in the file NAME.pem.
func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{dir: dir}
	a.key, a.cert = a.sign(t, name, &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue makes the files NAME.pem and NAME-key.pem, for servers and clients on this machine.
func (a *authority) issue(t *testing.T, name string) {
	t.Helper()
	a.sign(t, name, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// sign makes a certificate. The first one signs itself.
func (a *authority) sign(
	t *testing.T, name string, c *x509.Certificate,
) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	c.Subject = pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	write := func(file, kind string, bytes []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes})
		must(os.WriteFile(filepath.Join(a.dir, file), text, 0o600))
	}
	write(name+".pem", "CERTIFICATE", der)
	write(name+"-key.pem", "PRIVATE KEY", private)
	cert, err := x509.ParseCertificate(der)
	must(err)
	return key, cert
}

// A node speaks TLS, trusts the authority that it is told to, and shows its own certificate.
// Without these it says in one line what is wrong, and ends.
func TestEtcdAsksForACertificate(t *testing.T) {
	t.Parallel()
	needs(t, "etcd")
	dir := t.TempDir()
	ours, others := newAuthority(t, dir, "ca"), newAuthority(t, dir, "other-ca")
	ours.issue(t, "server")
	ours.issue(t, "node")
	others.issue(t, "stranger")
	file := func(name string) string { return filepath.Join(dir, name) }
	e := &etcd{program: "etcd", scheme: "https", flags: []string{
		"--cert-file", file("server.pem"), "--key-file", file("server-key.pem"),
		"--trusted-ca-file", file("ca.pem"), "--client-cert-auth",
	}}
	e.prepare(t, 3)
	own, err := tls.LoadX509KeyPair(file("node.pem"), file("node-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	e.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{own},
	}
	e.start(t)
	e.mustWork(t)
	ca := []string{"-etcd-ca", file("ca.pem")}
	pair := func(name string) []string {
		return []string{"-etcd-cert", file(name + ".pem"), "-etcd-key", file(name + "-key.pem")}
	}
	var nodes []*node
	for range 2 {
		nodes = append(nodes, startNode(t, e, append(pair("node"), ca...)...))
	}
	mustSayEverywhere(t, nodes)
	e.kill(e.leader(t))
	mustSayEverywhere(t, nodes)

	for name, args := range map[string][]string{
		"no certificate":         ca,
		"a stranger's":           append(pair("stranger"), ca...),
		"an authority of others": append(pair("node"), "-etcd-ca", file("other-ca.pem")),
		"no authority":           pair("node"),
	} {
		t.Run(name, func(t *testing.T) { mustSayWhyNot(t, newNode(t, e.url(), args...), "certificate") })
	}
	for pattern, args := range map[string][]string{
		"-etcd-ca":   {"-etcd-ca", file("none.pem")},
		"-etcd-cert": {"-etcd-cert", file("none.pem"), "-etcd-key", file("node-key.pem")},
		"-etcd-key":  {"-etcd-cert", file("node.pem")},
	} {
		args = append([]string{"-addr", "127.0.0.1:0", "-etcd", e.url()}, args...)
		_, stderr, status := run(t, args...)
		if status == 0 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, pattern) {
			t.Errorf("%q: got %d and %q, want an error and one line with %s", args, status, stderr, pattern)
		}
	}
}

// mustSayWhyNot fails the test unless the node ends with a line that says why etcd does not let it
// in, which has that word.
func mustSayWhyNot(t *testing.T, n *node, word string) {
	t.Helper()
	n.start(t)
	var failure *exec.ExitError
	exit, ended := n.wait(10*time.Second + slack)
	if !ended || !errors.As(exit, &failure) || failure.ExitCode() != 1 {
		t.Errorf("the node has ended: %v, with %v, want status 1", ended, exit)
	}
	n.mustHaveSaid(t)
	if said := n.errs.String(); n.lives() > 0 || !strings.Contains(said, word) {
		t.Errorf("the node has said %q and %q, want why it is not let in", n.out, said)
	}
}
