// Tests that nodes use the passwords and certificates that etcd requires.
package e2e

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commands in docs/several-machines.md make a user of etcd whom a node of that lobby can be,
// before and after etcd requires passwords. Other users and other lobbies are rejected, in one line
// that shows no password.
func TestEtcdRequiresAPassword(t *testing.T) {
	t.Parallel()
	needs(t, "etcdctl")
	e := startEtcd(t, 1)
	as := func(user string) string { return strings.Replace(e.url(), "//", "//"+user, 1) }
	first := startNode(t, as("lobby:PASSWORD@"))
	runBash(t, t.TempDir(), "set -e\nexport ETCDCTL_ENDPOINTS="+e.url()+"\n"+etcdUserCommands(t))
	mustBeOneLobby(t, first, startNode(t, as("lobby:PASSWORD@")))
	for url, word := range map[string]string{
		e.url():                         "password",
		as("lobby:WRONG@"):              "password",
		as("lobby:PASSWORD@") + "/blue": "blue/",
	} {
		n := newNode(t, url)
		n.mustBeTurnedAway(t, word)
		if regexp.MustCompile(`WRONG|lobby:PASSWORD`).MatchString(n.errs.String()) {
			t.Errorf("%q shows a password", n.errs)
		}
	}
	mustNotHaveStartedOver(t, []*node{first})
}

// certificateCommands make an authority of the certificates of etcd and of the nodes, one that etcd
// also trusts at first and that has issued the node's first certificate, and those certificates.
const certificateCommands = `set -e
for ca in ca former-ca; do
    openssl req -x509 -newkey rsa:2048 -nodes -subj /O=$ca -keyout $ca-key.pem -out $ca.pem
done
issue() { # NAME CA
    openssl req -new -newkey rsa:2048 -nodes -subj /O=$1 -keyout $1-key.pem -out $1.csr
    openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2-key.pem -CAcreateserial -out $1.pem \
        -extfile <(echo subjectAltName=IP:127.0.0.1)
}
issue server ca
issue lobby former-ca
cat ca.pem former-ca.pem >both.pem
`

// A node speaks TLS, trusts the authority that it is told to trust, and presents its own
// certificate. Otherwise it says in one line what is wrong, and exits. After the certificate was
// renewed with the commands in docs/operating.md, etcd stops trusting the authority of the old one,
// and the node stays in the lobby.
func TestEtcdRequiresACertificate(t *testing.T) {
	t.Parallel()
	needs(t, "openssl")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	runBash(t, dir, certificateCommands)
	own, err := tls.LoadX509KeyPair(file("server.pem"), file("server-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	e := newEtcd(t, 3)
	e.scheme = "https"
	e.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{own},
	}
	flags := []string{"--cert-file", file("server.pem"), "--key-file", file("server-key.pem"),
		"--client-cert-auth", "--trusted-ca-file"}
	e.flags = append(flags, file("both.pem"))
	e.start(t)
	ca := []string{"-etcd-ca", file("ca.pem")}
	pair := []string{"-etcd-cert", file("lobby.pem"), "-etcd-key", file("lobby-key.pem")}
	n := startNode(t, e.url(), append(ca, pair...)...)
	mustBeOneLobby(t, n)
	newNode(t, e.url(), ca...).mustBeTurnedAway(t, "certificate")
	newNode(t, e.url(), pair...).mustBeTurnedAway(t, "certificate")
	mustExit(t, 2, "-etcd-ca", "-etcd-ca", file("none.pem"), "-addr", "127.0.0.1:0", "-etcd", e.url())

	runBash(t, dir, "set -e\n"+commandsOf(t, "Renew a certificate")[0])
	e.flags = append(flags, file("ca.pem"))
	for i := range e.members {
		e.kill(i)
		e.restart(t, i)
		e.mustWork(t)
	}
	mustBeOneLobby(t, n)
	if n.starts() != 1 || n.errs.String() != "" {
		t.Errorf("the node started %d times and printed %q", n.starts(), n.errs)
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
