package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lobby/chain"
	"lobby/etcd"
)

// maxEpochs is how many epochs a process remembers. There is a new one only when etcd was restored
// or emptied.
const maxEpochs = 16

// Lobby is what a process knows of its lobby from one life of its node to the next. It belongs to
// one goroutine.
type Lobby struct {
	log      *etcd.Log
	settings Settings
	warn     func(string)

	seen   etcd.Entry // the last that a node of this process has read or appended, without its text
	epochs []string   // of the events that its streams had, each once, the last maxEpochs
}

// NewLobby returns a Lobby that is kept in log. It calls warn with a sentence for each thing that
// an operator should know.
func NewLobby(log *etcd.Log, settings Settings, warn func(string)) *Lobby {
	return &Lobby{log: log, settings: settings, warn: warn}
}

// ErrSettings is wrapped by errors that no waiting will cure: the lobby has other settings, or is
// of another version.
var ErrSettings = errors.New("this node does not fit the lobby")

// Begin begins a life: it finds out where the lobby is. The error is ErrSettings, etcd.ErrRefused
// if etcd does not let this process in, or that the log cannot be reached or read now.
func (l *Lobby) Begin(ctx context.Context) (*Node, error) {
	proposal, err := json.Marshal(lobbyKey{version, chain.RandomEpoch(), l.settings.History, l.settings.MaxUsers})
	if err != nil {
		return nil, err
	}
	session, err := l.log.Begin(ctx, string(proposal), l.seen)
	if err != nil {
		return nil, err
	}
	n, err := NewNode(session, session, l.settings, l.warn)
	if err != nil {
		return nil, err
	}
	if session.Restored {
		n.lost = strings.Join(l.epochs, " ")
	}
	return n, nil
}

// End remembers what a node has seen, when its life is over, and reports whether the node was one
// of the lobby's.
func (l *Lobby) End(n *Node) (wasKnown bool) {
	if !n.isKnown {
		return false
	}
	l.seen = n.seen
	if !slices.Contains(l.epochs, n.epoch) {
		l.epochs = append(l.epochs, n.epoch)
		l.epochs = l.epochs[max(0, len(l.epochs)-maxEpochs):]
	}
	return true
}

// check returns what the lobby's first key says, or ErrSettings if the node does not fit it.
func check(text string, settings Settings) (lobbyKey, error) {
	var key lobbyKey
	if err := json.Unmarshal([]byte(text), &key); err != nil {
		return key, fmt.Errorf("the lobby's first key is damaged: %w", err)
	}
	switch {
	case !isEpoch(key.Epoch):
		return key, fmt.Errorf("the lobby's first key is damaged: %q is no epoch", key.Epoch)
	case key.Version != version:
		return key, fmt.Errorf("%w: it is of version %d and this program of version %d; use the same version on all machines",
			ErrSettings, key.Version, version)
	case key.History != settings.History:
		return key, fmt.Errorf("%w: its first node was started with -history %d; use that, not %d",
			ErrSettings, key.History, settings.History)
	case key.MaxUsers != settings.MaxUsers:
		return key, fmt.Errorf("%w: its first node was started with -max-users %d; use that, not %d",
			ErrSettings, key.MaxUsers, settings.MaxUsers)
	}
	return key, nil
}
