package main

// This file starts a lobby on several machines, all of which are this one: three etcd servers and
// three nodes.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	trioSize = 3

	// startTime is how long etcd may take until it is healthy.
	startTime = 15 * time.Second

	// pollTime is how long to wait before etcd is asked again.
	pollTime = 10 * time.Millisecond
)

// A trio is one lobby on three nodes, with three etcd servers.
type trio struct {
	dir   string // where the lobby's program is
	etcds []*etcdServer
	nodes []*server
}

// startTrio starts a lobby with an empty log, and returns when all nodes serve.
func startTrio(dir string) (*trio, error) {
	t := &trio{dir: dir}
	err := t.startEtcds()
	for len(t.nodes) < trioSize && err == nil {
		var node *server
		if node, err = t.startNode(); err == nil {
			t.nodes = append(t.nodes, node)
		}
	}
	if err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

// startNode starts one more node, and returns when it serves.
func (t *trio) startNode() (*server, error) {
	var urls []string
	for _, e := range t.etcds {
		urls = append(urls, "http://"+e.addr.String())
	}
	node := lobbySide("-etcd", strings.Join(urls, ","))
	return startServer(&node, t.dir, false)
}

// addrsOf returns where servers listen.
func addrsOf(servers []*server) (addrs []netip.AddrPort) {
	for _, s := range servers {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// etcdServers returns the etcd servers as servers like others.
func (t *trio) etcdServers() (servers []*server) {
	for _, e := range t.etcds {
		servers = append(servers, e.server)
	}
	return servers
}

// mostOf returns a function that measures all etcd servers and returns the greatest result.
func (t *trio) mostOf(measure func(*etcdServer) (int, error)) func() (int, error) {
	return func() (most int, err error) {
		for _, e := range t.etcds {
			n, err := measure(e)
			if err != nil {
				return 0, err
			}
			most = max(most, n)
		}
		return most, nil
	}
}

// stop ends all nodes and etcd servers at once.
func (t *trio) stop() {
	for _, node := range t.nodes {
		node.stop()
	}
	for _, e := range t.etcds {
		e.stop()
		os.RemoveAll(e.dir)
	}
}

// An etcdServer is one of three.
type etcdServer struct {
	*server
	dir  string // for what it keeps
	args []string
}

// startEtcds starts three etcd servers with nothing in them, and returns when they are healthy.
func (t *trio) startEtcds() error {
	addrs, err := freeAddrs(2 * trioSize)
	if err != nil {
		return err
	}
	var all []string
	for i := range trioSize {
		all = append(all, fmt.Sprintf("etcd%d=http://%s", i, addrs[2*i]))
	}
	for i := range trioSize {
		dir, err := os.MkdirTemp(t.dir, "etcd")
		if err != nil {
			return err
		}
		peers, clients := "http://"+addrs[2*i].String(), "http://"+addrs[2*i+1].String()
		e := &etcdServer{dir: dir, args: append([]string{
			"--name", fmt.Sprint("etcd", i), "--data-dir", filepath.Join(dir, "data"),
			"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
			"--listen-client-urls", clients, "--advertise-client-urls", clients,
			"--initial-cluster", strings.Join(all, ","), "--logger", "zap", "--log-level", "error",
		}, etcdFlags...)}
		e.server = &server{side: &side{name: "etcd"}, addr: addrs[2*i+1]}
		if err := e.start(); err != nil {
			return err
		}
		t.etcds = append(t.etcds, e)
	}
	return t.awaitHealth()
}

// etcdFlags are what docs/several-machines.md recommends.
var etcdFlags = []string{"--snapshot-count", "5000"}

// freeAddrs returns n addresses at which nobody listens.
func freeAddrs(n int) (addrs []netip.AddrPort, err error) {
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close() // only at the end, so that no address comes twice
		addrs = append(addrs, listener.Addr().(*net.TCPAddr).AddrPort())
	}
	return addrs, nil
}

// start starts the server, or starts it again after stop, with what it has kept.
func (e *etcdServer) start() error {
	e.cmd = exec.Command("etcd", e.args...)
	output, err := os.Create(filepath.Join(e.dir, "output"))
	if err != nil {
		return err
	}
	defer output.Close()
	e.cmd.Stdout, e.cmd.Stderr = output, output
	contain(e.cmd)
	return e.cmd.Start()
}

// awaitHealth waits until all etcd servers take part in the cluster.
func (t *trio) awaitHealth() error {
	for _, e := range t.etcds {
		deadline := time.Now().Add(startTime)
		for {
			err := e.checkHealth()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("etcd was not healthy after %v: %w\n%s",
					startTime, err, readFile(filepath.Join(e.dir, "output")))
			}
			time.Sleep(pollTime)
		}
	}
	return nil
}

func (e *etcdServer) checkHealth() error {
	response, err := etcdClient.Get("http://" + e.addr.String() + "/health")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

var etcdClient = &http.Client{Timeout: time.Second}

// etcdStatus is what an etcd server says of itself.
type etcdStatus struct {
	Header struct {
		Member string `json:"member_id"`
	} `json:"header"`
	Leader string `json:"leader"`
	Size   string `json:"dbSize"` // bytes of its database
}

func (e *etcdServer) status() (s etcdStatus, err error) {
	response, err := etcdClient.Post("http://"+e.addr.String()+"/v3/maintenance/status",
		"application/json", bytes.NewReader([]byte("{}")))
	if err != nil {
		return s, err
	}
	defer response.Body.Close()
	return s, json.NewDecoder(response.Body).Decode(&s)
}

// databaseSize returns how many bytes the server keeps on disk for its keys.
func (e *etcdServer) databaseSize() (int, error) {
	s, err := e.status()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s.Size)
}

// awaitLeader waits until one of the etcd servers that live leads the others, and returns it.
func (t *trio) awaitLeader() (*etcdServer, error) {
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); {
		for _, e := range t.etcds {
			if s, err := e.status(); err == nil && s.Leader == s.Header.Member {
				return e, nil
			}
		}
		time.Sleep(pollTime)
	}
	return nil, fmt.Errorf("no etcd server led after %v", startTime)
}

// findEtcd returns etcd's version.
func findEtcd() (version string, err error) {
	output, err := exec.Command("etcd", "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", skippedError{errors.New("etcd is not installed (etcd-server in Debian)")}
	}
	line, _, _ := strings.Cut(string(output), "\n")
	_, version, _ = strings.Cut(line, ": ")
	return version, err
}
