package main

// This file lists the servers: how each is built and started, and what it can do.

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"

	"lobby/bench/peers"
)

// A server is one of the programs that are compared.
type server struct {
	name    string
	about   string // how it broadcasts, briefly
	version string // of the library it is made of; may be empty

	// build puts the files that command needs into the folder dir, or returns a skippedError if
	// this machine lacks something. It may be nil.
	build func(ctx context.Context, dir string) error
	// command returns the command that starts the server. If prints is set, the server prints its
	// address once it is ready; otherwise it listens on the socket that is its descriptor 3.
	command func(start) (*exec.Cmd, error)
	prints  bool

	alwaysAnnounces bool
	neverAnnounces  bool
	mayLose         bool // whether lost messages are a figure, not a failure
	hasUsers        bool // whether it serves GET /users and POST /users/NAME
	webSocket       bool
	prefixed        bool // whether the text of a message must begin with "alice: "
	needsCargo      bool
}

// A start says how to start a server.
type start struct {
	dir      string // where build has put files
	announce bool   // whether to announce each new stream to all
	addr     string // of the socket, if the server inherits one
}

// A skippedError says why a server cannot run on this machine.
type skippedError struct{ error }

func allServers() []server {
	servers := []server{lobbyServer()}
	for _, peer := range peers.All {
		servers = append(servers, server{
			name:      peer.Name,
			mayLose:   true,
			about:     peer.About,
			version:   moduleVersion(peer.Uses),
			hasUsers:  peer.Name == "bare",
			webSocket: peer.Name == "gorilla",
			command: func(s start) (*exec.Cmd, error) {
				self, err := os.Executable()
				return exec.Command(self, "peer", peer.Name, s.announcement()), err
			},
		})
	}
	return append(servers, server{
		name:           "nchan",
		version:        nginxVersion(),
		mayLose:        true,
		about:          "nginx's module for channels; one worker process, because two were slower",
		neverAnnounces: true,
		prefixed:       true,
		build: func(context.Context, string) error {
			_, err := findNchan()
			return err
		},
		command: nginxCommand,
	}, rustServer("axum", "Rust; one tokio broadcast channel of 4,096 events for all streams"),
		rustServer("warp", "Rust, modeled on warp's chat example; a mutex, and a list with an "+
			"unbounded channel for each stream"))
}

// announcement returns the argument that tells peers whether to announce streams.
func (s start) announcement() string {
	if s.announce {
		return "announce"
	}
	return "quiet"
}

// servePeer runs this process as one of the Go peers.
func servePeer(name, announce string) error {
	for _, peer := range peers.All {
		if peer.Name == name {
			listener, err := net.FileListener(os.NewFile(3, "socket"))
			if err != nil {
				return err
			}
			return peer.Serve(listener, announce == "announce")
		}
	}
	return fmt.Errorf("there is no peer %q", name)
}

// lobbyServer returns lobby with additional flags.
func lobbyServer(flags ...string) server {
	return server{
		name:            "lobby",
		about:           "this repository",
		prints:          true,
		build:           buildLobby,
		alwaysAnnounces: true,
		hasUsers:        true,
		command: func(s start) (*exec.Cmd, error) {
			flags := append([]string{"-addr", "127.0.0.1:0"}, flags...)
			return exec.Command(filepath.Join(s.dir, "lobby"), flags...), nil
		},
	}
}

func moduleVersion(path string) string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == path {
			return module.Version
		}
	}
	return ""
}

func buildLobby(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(dir, "lobby"), ".")
	cmd.Dir = ".."
	return run(cmd)
}

// findNchan returns the file name of nginx's module nchan.
func findNchan() (string, error) {
	if _, err := exec.LookPath("nginx"); err != nil {
		return "", skippedError{errors.New("nginx is not installed")}
	}
	found, err := filepath.Glob("/usr/lib*/nginx/modules/ngx_nchan_module.so")
	if err == nil && len(found) == 0 {
		err = skippedError{errors.New("nginx's module nchan is not installed")}
	}
	return strings.Join(found, ""), err
}

// nginxVersion returns a version such as "nginx/1.22.1", or "".
func nginxVersion() string {
	output, _ := exec.Command("nginx", "-v").CombinedOutput()
	_, version, _ := strings.Cut(strings.TrimSpace(string(output)), ": ")
	return version
}

//go:embed peers/nchan/nginx.conf
var nginxConfig string

func nginxCommand(s start) (*exec.Cmd, error) {
	module, err := findNchan()
	if err != nil {
		return nil, err
	}
	config := strings.NewReplacer("MODULE", module, "ADDRESS", s.addr).Replace(nginxConfig)
	file := filepath.Join(s.dir, "nginx.conf")
	cmd := exec.Command("nginx", "-p", s.dir, "-e", "/dev/null", "-c", file)
	cmd.Env = append(os.Environ(), "NGINX=3;") // tells nginx which descriptor is its socket
	return cmd, os.WriteFile(file, []byte(config), 0o666)
}

const rustDir = "peers/rust"

func rustServer(name, about string) server {
	return server{
		name:       name,
		mayLose:    true,
		about:      about,
		version:    lockedVersion(name),
		hasUsers:   true,
		needsCargo: true,
		build: func(ctx context.Context, _ string) error {
			if _, err := exec.LookPath("cargo"); err != nil {
				return skippedError{errors.New("cargo is not installed")}
			}
			cmd := exec.CommandContext(ctx, "cargo", "build", "--release", "--locked", "--quiet")
			cmd.Dir = rustDir
			return run(cmd)
		},
		command: func(s start) (*exec.Cmd, error) {
			program := filepath.Join(rustDir, "target", "release", name)
			return exec.Command(program, s.announcement()), nil
		},
	}
}

// lockedVersion returns the version of a package in Cargo.lock.
func lockedVersion(name string) string {
	lock, err := os.ReadFile(filepath.Join(rustDir, "Cargo.lock"))
	if err != nil {
		return ""
	}
	version := regexp.MustCompile(`name = "` + name + `"\nversion = "([^"]*)"`)
	if found := version.FindSubmatch(lock); found != nil {
		return "v" + string(found[1])
	}
	return ""
}

// run runs a command. If it fails, the error contains its output.
func run(cmd *exec.Cmd) error {
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, output)
	}
	return nil
}
