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
	"lobby/room"
)

// maxEpochs bounds how many epochs a process remembers. A new one starts only when etcd is restored
// or emptied.
const maxEpochs = 16

// Lobby is what a process remembers of its lobby between its successive nodes. It belongs to one
// goroutine.
type Lobby struct {
	log      *etcd.Log
	settings Settings
	warn     func(string)

	seen   etcd.Entry // the last entry that its nodes have read or appended, without its text
	epochs []string   // the last maxEpochs epochs of which it has sent events to its clients

	// What the last node was missing, or nil, and where it had started.
	incomplete  error
	created, at int64
}

// NewLobby returns a Lobby whose log is log. It calls warn with a sentence for everything that an
// operator should know.
func NewLobby(log *etcd.Log, settings Settings, warn func(string)) *Lobby {
	log.Warn = warn
	return &Lobby{log: log, settings: settings, warn: warn}
}

// ErrSettings is matched by errors that waiting does not cure: the lobby has other settings or
// another version.
var ErrSettings = errors.New("this node's settings do not match the lobby's")

// Begin returns a new node that starts from what is now in the log. The error matches ErrSettings,
// or etcd.ErrRefused if etcd rejects this process, or says why the log cannot be used now.
func (l *Lobby) Begin(ctx context.Context) (*Node, error) {
	key, err := json.Marshal(lobbyKey{version, chain.RandomEpoch(), l.settings})
	if err != nil {
		return nil, err
	}
	session, err := l.log.Begin(ctx, string(key), l.seen)
	if err != nil {
		return nil, err
	}
	if l.incomplete != nil && session.Created == l.created && session.At == l.at {
		return nil, l.incomplete // Only another snapshot helps.
	}
	n, err := NewNode(session, session, l.settings, l.warn)
	if err != nil {
		return nil, err
	}
	n.explain = l.log.Explain
	if session.Restored {
		n.lost = strings.Join(l.epochs, " ")
	}
	return n, nil
}

// End remembers what a node has seen, once its Run has returned for this reason. It reports whether
// the node had read its own registration.
func (l *Lobby) End(n *Node, reason error) (wasKnown bool) {
	l.incomplete = nil
	if errors.Is(reason, etcd.ErrIncomplete) {
		l.incomplete, l.created, l.at = reason, n.created, n.startedAt
	}
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

// check parses the settings key. The error matches ErrSettings if the node does not fit it.
func check(text string, settings Settings) (key lobbyKey, err error) {
	err = json.Unmarshal([]byte(text), &key)
	if err == nil && !room.IsEpoch(key.Epoch) {
		err = fmt.Errorf("%q is not a valid epoch", key.Epoch)
	}
	switch {
	case err != nil:
		return key, fmt.Errorf("the lobby's settings key is damaged: %w", err)
	case key.Version != version:
		return key, fmt.Errorf("%w: the lobby has version %d, this program %d; use one on all machines",
			ErrSettings, key.Version, version)
	case key.Settings != settings:
		return key, fmt.Errorf("%w: its first node was started with -history %d -max-users %d; use those",
			ErrSettings, key.History, key.MaxUsers)
	}
	return key, nil
}
