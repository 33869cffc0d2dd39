// Package conns limits a server's connections and detects dead ones. A server of long-lived
// connections needs this in addition to net and net/http.
//
// A client can vanish without closing its connection: a cable is pulled, or a phone leaves the
// network. While nothing is sent, the keep-alive probes of [Listen] detect that. But once something
// has been sent, the kernel retransmits instead of probing, on Linux for about 16 minutes, during
// which the user seems present. [SetUserTimeout] reduces that to seconds.
//
// Each connection is an open file, and a process may have only so many. [MaxOpenFiles] returns the
// number, so that a server can choose limits that it can keep.
//
// When no more files can be opened, accept(2) fails. New clients then hang in the kernel's backlog
// while idle ones occupy the server. [Limit] returns a listener that admits a limited number of
// connections. It tells other clients that the server is full (or only closes their connections, if
// they are many), tells the server when idle connections should go, and closes those on which no
// first byte arrives.
package conns
