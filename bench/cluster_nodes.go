package main

// This file starts a lobby on several machines, all of which are this one: three nodes and three
// etcd servers.

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
	clusterSize = 3

	// startTime is how long etcd may take to become healthy.
	startTime = 15 * time.Second

	// pollTime is the time between two requests for etcd's state.
	pollTime = 10 * time.Millisecond
)

// A cluster is one lobby on three nodes with three etcd servers.
type cluster struct {
	dir   string   // where the lobby's program is
	flags []string // of each node, in addition to those about addresses
	etcds []*etcdServer
	nodes []*process
}

// startCluster starts a lobby with an empty log, and returns once all nodes serve.
func startCluster(dir string, flags ...string) (*cluster, error) {
	c := &cluster{dir: dir, flags: flags}
	err := c.startEtcds()
	for len(c.nodes) < clusterSize && err == nil {
		var node *process
		if node, err = c.startNode(); err == nil {
			c.nodes = append(c.nodes, node)
		}
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// startNode starts another node, and returns once it serves.
func (c *cluster) startNode() (*process, error) {
	var urls []string
	for _, e := range c.etcds {
		urls = append(urls, "http://"+e.addr.String())
	}
	lobby := lobbyServer(append([]string{"-etcd", strings.Join(urls, ",")}, c.flags...)...)
	return startProcess(&lobby, c.dir, false)
}

// addrsOf returns the addresses of servers.
func addrsOf(servers []*process) (addrs []netip.AddrPort) {
	for _, s := range servers {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// etcdServers returns the processes of the etcd servers.
func (c *cluster) etcdServers() (servers []*process) {
	for _, e := range c.etcds {
		servers = append(servers, e.process)
	}
	return servers
}

// mostOf returns a function that measures each etcd server and returns the largest result.
func (c *cluster) mostOf(measure func(*etcdServer) (int, error)) func() (int, error) {
	return func() (most int, err error) {
		for _, e := range c.etcds {
			n, err := measure(e)
			if err != nil {
				return 0, err
			}
			most = max(most, n)
		}
		return most, nil
	}
}

// stop kills all nodes and etcd servers.
func (c *cluster) stop() {
	for _, node := range c.nodes {
		node.stop()
	}
	for _, e := range c.etcds {
		e.stop()
		os.RemoveAll(e.dir)
	}
}

// An etcdServer is one of three.
type etcdServer struct {
	*process
	dir  string // for its data
	args []string
}

// startEtcds starts three empty etcd servers, and returns once they are healthy.
func (c *cluster) startEtcds() error {
	addrs, err := freeAddrs(2 * clusterSize)
	if err != nil {
		return err
	}
	var all []string
	for i := range clusterSize {
		all = append(all, fmt.Sprintf("etcd%d=http://%s", i, addrs[2*i]))
	}
	for i := range clusterSize {
		dir, err := os.MkdirTemp(c.dir, "etcd")
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
		e.process = &process{server: &server{name: "etcd"}, addr: addrs[2*i+1]}
		if err := e.start(); err != nil {
			return err
		}
		c.etcds = append(c.etcds, e)
	}
	return c.awaitHealth()
}

// etcdFlags are what docs/several-machines.md recommends.
var etcdFlags = []string{"--snapshot-count", "5000"}

// freeAddrs returns n addresses on which nothing listens.
func freeAddrs(n int) (addrs []netip.AddrPort, err error) {
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close() // only at the end, so that all addresses differ
		addrs = append(addrs, listener.Addr().(*net.TCPAddr).AddrPort())
	}
	return addrs, nil
}

// start starts the server. After stop it starts the server again, with the data of before.
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

// awaitHealth waits until all etcd servers are healthy.
func (c *cluster) awaitHealth() error {
	for _, e := range c.etcds {
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

// etcdStatus is an etcd server's report about itself.
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

// databaseSize returns the size of the server's database on disk, in bytes.
func (e *etcdServer) databaseSize() (int, error) {
	s, err := e.status()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s.Size)
}

// awaitLeader waits until one of the running etcd servers is the leader, and returns it.
func (c *cluster) awaitLeader() (*etcdServer, error) {
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); {
		for _, e := range c.etcds {
			if s, err := e.status(); err == nil && s.Leader == s.Header.Member {
				return e, nil
			}
		}
		time.Sleep(pollTime)
	}
	return nil, fmt.Errorf("no etcd server became leader within %v", startTime)
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
