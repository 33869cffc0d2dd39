package main

// This file measures requests to a lobby on three nodes and to a single server.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A way is one of the ways to send requests to a lobby.
type way struct {
	row            string
	to             []netip.AddrPort
	lobbies, etcds []*process
	followers      []*process // nodes that receive no requests
}

// The rows of the tables of requests.
const (
	oneServer  = "single server"
	oneOfThree = "through one of three nodes"
	allThree   = "through all three nodes"
)

// Additional columns of those tables.
const (
	timesSingle = "× single"
	cpuLobbies  = "lobby CPU µs/request"
	cpuEtcds    = "etcd CPU µs/request"
	cpuCommand  = "CPU µs/command"
)

// A requestLoad is a request that each client repeats as soon as it has the last response.
type requestLoad struct {
	title     string
	clients   int
	request   []byte
	isCommand bool // whether every node applies a command for the request
}

func postTitle(clients int) string {
	return fmt.Sprintf("POST /chat/%s, %d clients", speaker, clients)
}

const (
	listOfOneTitle = "GET /users with one user, 50 clients"
	followerTitle  = "Processor time of a node that receives no requests"
)

var (
	requestToJoin = newRequest("POST", "/users/"+speaker, host, "")
	requestToSay  = newRequest("POST", "/chat/"+speaker, host, "hello")
	requestOfList = newRequest("GET", "/users", host, "")

	requestLoads = []requestLoad{
		{postTitle(50), 50, requestToSay, true},
		{postTitle(500), 500, requestToSay, true},
		{listOfOneTitle, 50, requestOfList, false},
	}
)

// An outcome is the result of one load sent in one way.
type outcome struct {
	rate     float64 // requests per second
	figures  []figure
	follower float64 // processor time of a node that receives no requests, in µs per request
}

// requests sends each load in one way after another.
func (b *clusterBench) requests(round int, c *cluster) error {
	lobby := lobbyServer()
	single, err := startProcess(&lobby, b.dir, false)
	if err != nil {
		return err
	}
	defer single.stop()
	for _, node := range []*process{single, c.nodes[0]} {
		if err := askOnce(node, requestToJoin); err != nil {
			return err
		}
	}
	ways := []way{
		{row: oneServer, to: []netip.AddrPort{single.addr}, lobbies: []*process{single}},
		{row: oneOfThree, to: addrsOf(c.nodes[:1]), lobbies: c.nodes, etcds: c.etcdServers(),
			followers: c.nodes[1:]},
		{row: allThree, to: addrsOf(c.nodes), lobbies: c.nodes, etcds: c.etcdServers()},
	}
	followed := map[string]float64{}
	for _, load := range requestLoads {
		outcomes := map[string]outcome{}
		for i := range ways {
			w := ways[(round+i)%len(ways)] // so that none is always the first
			if outcomes[w.row], err = b.send(load, w); err != nil {
				return fmt.Errorf("%s, %s: %w", load.title, w.row, err)
			}
		}
		for _, w := range ways {
			o := outcomes[w.row]
			ratio := figure{timesSingle, o.rate / outcomes[oneServer].rate}
			b.results.record(load.title, w.row, slices.Insert(o.figures, 1, ratio)...)
		}
		followed[load.title] = outcomes[oneOfThree].follower
	}
	for _, load := range requestLoads {
		if load.isCommand {
			b.results.record(followerTitle, load.title, figure{cpuCommand, followed[load.title]})
		}
	}
	return nil
}

// send sends a load in one way.
func (b *clusterBench) send(load requestLoad, w way) (o outcome, err error) {
	r, err := newRequester(load.clients, w.to...)
	if err != nil {
		return o, err
	}
	defer r.close()
	groups := [][]*process{w.lobbies, w.etcds, w.followers}
	before, err := cpuOf(groups)
	if err != nil {
		return o, err
	}
	var latencies []float64
	answered, took, err := r.do(job{
		request: func() []byte { return load.request },
		length:  b.length,
		stop:    b.ctx.Done(),
		heard:   func(sent, now time.Time) { latencies = append(latencies, millis(now.Sub(sent))) },
	})
	if err != nil {
		return o, err
	}
	after, err := cpuOf(groups)
	if err != nil {
		return o, err
	}
	perRequest := func(group int) float64 {
		return micros(after[group]-before[group]) / float64(max(answered, 1))
	}
	slices.Sort(latencies)
	o.rate = float64(answered) / took.Seconds()
	o.figures = []figure{
		{requests, o.rate},
		{p50, quantile(latencies, 0.5)},
		{p99, quantile(latencies, 0.99)},
		{cpuLobbies, perRequest(0)},
		{cpuEtcds, perRequest(1)},
	}
	o.follower = perRequest(2) / float64(max(len(w.followers), 1))
	return o, nil
}

// cpuOf returns the processor time that each group has used.
func cpuOf(groups [][]*process) ([]time.Duration, error) {
	used := make([]time.Duration, len(groups))
	for i, group := range groups {
		for _, s := range group {
			cpu, err := s.cpu()
			if err != nil {
				return nil, err
			}
			used[i] += cpu
		}
	}
	return used, nil
}

// The table of memory has a row for each figure.
const (
	amount    = "figure"
	fullRate  = "requests/s"
	etcdRSS   = "memory of the largest etcd server, MB"
	etcdPeak  = "its peak, MB"
	etcdDisk  = "largest etcd database on disk, MB"
	askedRSS  = "memory of the node that receives the requests, MB"
	followRSS = "memory of a node that receives no requests, MB"
)

// A memoryLoad is what clients say for a long time, as fast as it is accepted.
type memoryLoad struct {
	what    string // they say
	clients int    // more of them would not raise the rate
	text    string
	flags   []string // of the nodes
}

var (
	longText    = strings.Repeat("x", 4000)
	memoryLoads = []memoryLoad{
		{"", 500, "hello", nil},
		{", 4,000 bytes", 60, longText, nil},
		{", 4,000 bytes, -history 20000", 60, longText, []string{"-history", "20000"}},
	}
)

func (l memoryLoad) title(full time.Duration) string {
	return fmt.Sprintf("After %v of POST /chat/%s%s, %d clients through one of three nodes",
		strings.Replace(full.String(), "m0s", "m", 1), speaker, l.what, l.clients)
}

// memory records how much memory everything uses after a long time under a load.
func (b *clusterBench) memory(l memoryLoad, c *cluster) error {
	if err := askOnce(c.nodes[0], requestToJoin); err != nil {
		return err
	}
	r, err := newRequester(l.clients, c.nodes[0].addr)
	if err != nil {
		return err
	}
	defer r.close()
	request := newRequest("POST", "/chat/"+speaker, host, l.text)
	answered, took, err := r.do(job{
		request: func() []byte { return request },
		length:  b.full,
		stop:    b.ctx.Done(),
	})
	if err != nil {
		return err
	}
	asked, follower := c.nodes[0], c.nodes[1]
	rows := []struct {
		name string
		of   func() (int, error)
	}{
		{etcdRSS, c.mostOf((*etcdServer).memory)},
		{etcdPeak, c.mostOf((*etcdServer).mostMemory)},
		{etcdDisk, c.mostOf((*etcdServer).databaseSize)},
		{askedRSS, asked.memory},
		{followRSS, follower.memory},
	}
	title := l.title(b.full)
	b.results.record(title, fullRate, figure{amount, float64(answered) / took.Seconds()})
	for _, row := range rows {
		bytes, err := row.of()
		if err != nil {
			return err
		}
		b.results.record(title, row.name, figure{amount, float64(bytes) / 1e6})
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
