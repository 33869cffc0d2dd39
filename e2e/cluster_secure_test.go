// Tests that nodes use the passwords and certificates that etcd requires.
package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
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

// The commands in docs/several-machines.md make a user of etcd whom a node of that lobby can be,
// before and after etcd requires passwords. Other users and other lobbies are rejected, in one line
// that shows no password.
func TestEtcdRequiresAPassword(t *testing.T) {
	t.Parallel()
	e := startEtcd(t, 1)
	_, commands, _ := strings.Cut(readFile(t, clusterPage), "\n    etcdctl user add root:")
	commands, _, _ = strings.Cut(commands, "\n\n")
	if !strings.HasSuffix(commands, "etcdctl auth enable") {
		t.Fatalf("%s does not say how to enable passwords", clusterPage)
	}
	needs(t, "etcdctl")
	run := func(commands string) {
		t.Helper()
		cmd := exec.Command("bash", "-ec", commands)
		cmd.Env = append(os.Environ(), "ETCDCTL_ENDPOINTS="+e.url())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", commands, err, out)
		}
	}
	as := func(user string) string { return strings.Replace(e.url(), "//", "//"+user, 1) }
	first := startNode(t, as("lobby:PASSWORD@"))
	run("etcdctl user add root:" + commands)
	mustBeOneLobby(t, first, startNode(t, as("lobby:PASSWORD@")), startNode(t, as("root:ROOTPASSWORD@")))
	for url, word := range map[string]string{
		e.url():                         "password",
		as("lobby:WRONG@"):              "password",
		as("other:WRONG@"):              "password",
		as("lobby:PASSWORD@") + "/blue": "blue/",
	} {
		n := newNode(t, url)
		n.mustBeTurnedAway(t, word)
		if regexp.MustCompile(`WRONG|lobby:PASSWORD`).MatchString(n.errs.String()) {
			t.Errorf("%q shows a password", n.errs)
		}
	}
	run("etcdctl --user root:ROOTPASSWORD auth disable")
	mustBeOneLobby(t, first, startNode(t, e.url()))
	mustNotHaveStartedOver(t, []*node{first})
}

// authority signs certificates and writes them to files.
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

// issue writes the files NAME.pem and NAME-key.pem, for servers and clients on this machine.
func (a *authority) issue(t *testing.T, name string) {
	t.Helper()
	a.sign(t, name, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// sign makes a certificate and writes it to files. The first one signs itself.
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

// secure makes each member require certificates of a, and use the one called server. The client
// uses the one called node.
func (e *etcd) secure(t *testing.T, a *authority) {
	t.Helper()
	file := func(name string) string { return filepath.Join(a.dir, name) }
	e.scheme = "https"
	e.flags = []string{
		"--cert-file", file("server.pem"), "--key-file", file("server-key.pem"),
		"--trusted-ca-file", file("ca.pem"), "--client-cert-auth",
	}
	own, err := tls.LoadX509KeyPair(file("node.pem"), file("node-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	e.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{own},
	}
}

// A node speaks TLS, trusts the authority that it is told to trust, and presents its own
// certificate. Otherwise it says in one line what is wrong, and exits.
func TestEtcdRequiresACertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, others := newAuthority(t, dir, "ca"), newAuthority(t, dir, "other-ca")
	ours.issue(t, "server")
	ours.issue(t, "node")
	others.issue(t, "stranger")
	file := func(name string) string { return filepath.Join(dir, name) }
	e := newEtcd(t, 3)
	e.secure(t, ours)
	e.start(t)
	ca := []string{"-etcd-ca", file("ca.pem")}
	pair := func(name string) []string {
		return []string{"-etcd-cert", file(name + ".pem"), "-etcd-key", file(name + "-key.pem")}
	}
	nodes := startNodes(t, e, 2, append(pair("node"), ca...)...)
	mustBeOneLobby(t, nodes...)
	e.kill(e.leader(t))
	mustBeOneLobby(t, nodes...)

	for name, args := range map[string][]string{
		"no certificate":           ca,
		"a stranger's certificate": append(pair("stranger"), ca...),
		"another authority":        append(pair("node"), "-etcd-ca", file("other-ca.pem")),
		"no authority":             pair("node"),
	} {
		t.Run(name, func(t *testing.T) {
			newNode(t, e.url(), args...).mustBeTurnedAway(t, "certificate")
		})
	}
	for pattern, args := range map[string][]string{
		"-etcd-ca":   {"-etcd-ca", file("none.pem")},
		"-etcd-cert": {"-etcd-cert", file("none.pem"), "-etcd-key", file("node-key.pem")},
		"-etcd-key":  {"-etcd-cert", file("node.pem")},
	} {
		mustExit(t, 2, pattern, append(args, "-addr", "127.0.0.1:0", "-etcd", e.url())...)
	}
}

// The gateway of an etcd that requires certificates presents etcd's own certificate to etcd.
func TestCertificateOfEtcdIsForServersOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	ca.issue(t, "node")
	ca.sign(t, "server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	e := newEtcd(t, 1)
	e.secure(t, ca)
	e.start(t)
	n := newNode(t, e.url(), "-etcd-ca", filepath.Join(dir, "ca.pem"),
		"-etcd-cert", filepath.Join(dir, "node.pem"), "-etcd-key", filepath.Join(dir, "node-key.pem"))
	n.start(t)
	eventually(t, startLimit, "a line on standard error", func() bool { return n.errs.String() != "" })
	n.mustHaveWarnedOnce(t)
	if printed := n.errs.String(); !strings.Contains(printed, "not for servers only") {
		t.Errorf("the node printed %q", printed)
	}
}

// mustBeTurnedAway fails the test unless the node exits with status 1 and one line that has the
// word and says why etcd rejects it.
func (n *node) mustBeTurnedAway(t *testing.T, word string) {
	t.Helper()
	n.start(t)
	exit, ended := n.wait(startLimit)
	if !ended || n.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the node ended: %v, with %v, want status 1", ended, exit)
	}
	n.mustHaveWarnedOnce(t)
	if printed := n.errs.String(); n.starts() > 0 || !strings.Contains(printed, word) {
		t.Errorf("the node printed %q and %q, want a line with %q", n.out, printed, word)
	}
}
