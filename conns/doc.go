// Package conns offers four things that an HTTP server of long-lived connections needs and that packages
// net and net/http do not have.
//
// A client can vanish without a word: somebody pulls a cable, or a phone leaves the network. While
// nothing is sent, keep-alive probes find that out. But once something has been sent, the kernel
// repeats it instead of probing, on Linux for some 16 minutes, and all that time the user seems to
// be there. [GiveUpAfter] makes it seconds.
//
// Each connection is an open file, and a process may open only so many. [MaxOpenFiles] tells how
// many, so that a server can choose limits that it can keep.
//
// Once no file is left, accept(2) fails. Everyone who calls then waits in the kernel's queue and
// hears nothing, while idle clients fill the server. [Limit] makes a listener that takes a certain
// number of connections at a time. It tells all others that the server is full, and it tells the
// server when it is time to let idle connections go.
package conns
