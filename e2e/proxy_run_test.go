// This file has the helpers that put the server behind each proxy of docs/proxies.md, configured as
// that page says.
package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// proxyPatience limits how long a test behind a proxy may take.
const proxyPatience = 2 * time.Minute

// proxy is a program that docs/proxies.md shows how to put in front of the server. The page's
// configuration goes into a file named "block".
type proxy struct {
	name    string   // of its section in docs/proxies.md
	command string   // runs it in the foreground, in the folder with its configuration
	config  string   // the file of testdata/proxies that includes the block, if it needs one
	set     []string // strings in command and configuration, alternating with their replacements
	host    string   // where the proxy and the server listen, in place of 127.0.0.1
	silence string   // the setting that ends a stream after 60 s of silence, if there is one

	rewritesPaths bool // it changes or rejects paths with %2F or //, which contain no name
	noticesLate   bool // it notices that a client has left only when it writes to that client
	hidesCrashes  bool // it ends a stream properly even if the server was killed
}

var (
	nginx = proxy{
		name:    "nginx",
		command: "nginx -p . -c nginx.conf -e stderr",
		config:  "nginx.conf",
		set:     []string{"listen 80;", "listen LISTEN;"},
		silence: "proxy_read_timeout 60",
	}
	caddy = proxy{
		name:         "Caddy",
		command:      "caddy run --adapter caddyfile --config Caddyfile",
		config:       "Caddyfile",
		set:          []string{"chat.example {", "http://:PORT {"},
		hidesCrashes: true,
	}
	haproxy = proxy{
		name:    "HAProxy",
		command: "haproxy -db -f block",
		set:     []string{"bind :80", "bind LISTEN"},
		silence: "timeout server 60",
	}
	apache = proxy{
		name:          "Apache",
		command:       "apache2 -DFOREGROUND -d . -f apache.conf",
		config:        "apache.conf",
		set:           []string{"*:80>", "*:PORT>"},
		silence:       "Timeout 60",
		rewritesPaths: true,
		noticesLate:   true,
	}
	lighttpd = proxy{
		name:          "lighttpd",
		command:       "lighttpd -D -f lighttpd.conf",
		config:        "lighttpd.conf",
		silence:       "max-write-idle = 60",
		rewritesPaths: true,
	}
	varnish = proxy{
		name:    "Varnish",
		command: "varnishd -F -j none -n DIR/run -a LISTEN -T none -p pipe_timeout=60 -f DIR/block",
		silence: "pipe_timeout=60",
	}
	proxies = []proxy{nginx, caddy, haproxy, apache, lighttpd, varnish}
)

// with returns p with more replacements.
func (p proxy) with(set ...string) proxy {
	p.set = slices.Concat(p.set, set)
	return p
}

// at returns p for a proxy and a server that listen at host.
func (p proxy) at(host string) proxy {
	p = p.with("127.0.0.1", host)
	p.host = host
	return p
}

// configure writes the files with which the proxy listens at addr, in front of the server at
// serverAddr, into the directory dir. It returns the fields of the command.
func (p proxy) configure(t *testing.T, dir, addr, serverAddr string) []string {
	t.Helper()
	_, block, _ := strings.Cut(readFile(t, "../docs/proxies.md"), "\n## "+p.name+"\n")
	_, block, _ = strings.Cut(block, "\n```")
	_, block, _ = strings.Cut(block, "\n") // the language
	block, _, _ = strings.Cut(block, "```")
	files := map[string]string{"block": block}
	if p.config != "" {
		files[p.config] = readFile(t, "testdata/proxies/"+p.config)
	}
	for i := 0; i < len(p.set); i += 2 {
		if !strings.Contains(p.command+block+files[p.config], p.set[i]) {
			t.Fatalf("the configuration of %s has no %q", p.name, p.set[i])
		}
	}
	_, port, _ := net.SplitHostPort(addr)
	_, serverPort, _ := net.SplitHostPort(serverAddr)
	set := func(text string) string {
		text = strings.NewReplacer(p.set...).Replace(text)
		return strings.NewReplacer(
			"8080", serverPort, "LISTEN", addr, "PORT", port, "DIR", dir).Replace(text)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(set(content)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Fields(set(p.command))
}

// before puts the proxy in front of s and returns s as seen through the proxy. The proxy ends with
// the test, or after proxyPatience, so that no test waits forever for data that it holds back.
func (p proxy) before(t *testing.T, s *server) *server {
	t.Helper()
	program, _, _ := strings.Cut(p.command, " ")
	needs(t, program)
	dir, addr := t.TempDir(), reserve(t)
	// If root starts the proxy, its workers run as another user, who must be able to get in.
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if p.host != "" {
		addr = strings.Replace(addr, "127.0.0.1", p.host, 1)
	}
	args := p.configure(t, dir, addr, s.addr)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME=", "XDG_DATA_HOME=")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	end := func() { cmd.Process.Signal(syscall.SIGTERM) } // ends its workers too
	limit := time.AfterFunc(proxyPatience, func() {
		t.Errorf("not done after %v", proxyPatience)
		end()
	})
	t.Cleanup(func() {
		limit.Stop()
		s.kill() // Otherwise Apache would wait for its open streams.
		end()
		<-exited
		http.DefaultClient.CloseIdleConnections()
	})
	eventually(t, time.Minute, p.name+" to listen", func() bool {
		select {
		case <-exited:
			t.Fatalf("%s ended by itself", p.name)
		default:
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return &server{url: "http://" + addr, addr: addr}
}

// reserve returns a free address for a program that the test starts. Until the test ends, a socket
// is bound to the address but does not listen. So the system does not give the port to anyone who
// asks for any free one, but a program that asks for this port may listen there.
func reserve(t *testing.T) (addr string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

// behindEach runs the test behind every proxy.
func behindEach(t *testing.T, test func(*testing.T, proxy)) {
	t.Parallel()
	for _, p := range proxies {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}
