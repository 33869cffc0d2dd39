package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"lobby/chain"
	"lobby/room"
)

// version is the format of entries, settings and saved states. A program of another version must
// not take part.
const version = 2

// An entry begins with the news of nodes, if there are any. Commands of the hub follow. Fields and
// records are separated as those of commands are; see room.Command.AppendTo.
const (
	// VERSION, LOST, EPOCH: the node is here. LOST are epochs, separated by spaces, of which the
	// node's process has seen events that etcd has lost since, because it was restored from a backup.
	// If the history is of one of them, it begins anew as EPOCH, so that no id is given twice.
	hello = "hello"
	// NODE, NUMBER: the node is dead, if its last entry is still that one.
	bury = "bury"

	recordEnd = "\x1e"
	fieldEnd  = "\x1f"
)

// news is something that an entry says about nodes.
type news struct {
	burial string // the name of the node that is dead; empty if this is a hello
	last   int    // the number of the dead node's last entry

	version     int // of the node that is here
	lost, epoch string
}

// appendTo appends the news as text.
func (n news) appendTo(b []byte) []byte {
	fields := []string{hello, strconv.Itoa(n.version), n.lost, n.epoch}
	if n.burial != "" {
		fields = []string{bury, n.burial, strconv.Itoa(n.last)}
	}
	return append(append(b, strings.Join(fields, fieldEnd)...), recordEnd...)
}

var errNoEntry = errors.New("it is no entry of a lobby")

// parse returns what the text of an entry says.
func parse(text string) (all []news, commands []room.Command, err error) {
	for {
		record, rest, _ := strings.Cut(text, recordEnd)
		fields := strings.Split(record, fieldEnd)
		switch {
		case fields[0] == hello && len(fields) >= 4: // a later version may say more
			number, err := strconv.Atoi(fields[1])
			if err != nil || number < 1 || !isEpoch(fields[3]) {
				return nil, nil, errNoEntry
			}
			all = append(all, news{version: number, lost: fields[2], epoch: fields[3]})
		case fields[0] == bury && len(fields) == 3:
			number, err := strconv.Atoi(fields[2])
			if err != nil || fields[1] == "" {
				return nil, nil, errNoEntry
			}
			all = append(all, news{burial: fields[1], last: number})
		default:
			commands, err = room.ParseCommands(text)
			return all, commands, err
		}
		text = rest
	}
}

// isEpoch reports whether s can be the epoch of an id.
func isEpoch(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// Settings are what all nodes of a lobby must agree on. The first node sets them.
type Settings struct {
	History  int // how many events a stream can resume from
	MaxUsers int // how many users there may be before Join refuses new ones
}

// lobbyKey is what the lobby's first key in etcd says.
type lobbyKey struct {
	Version  int    `json:"version"`
	Epoch    string `json:"epoch"` // of the history, until a hello changes it
	History  int    `json:"history"`
	MaxUsers int    `json:"maxUsers"`
}

// saved is a saved state as it stands in the log.
type saved struct {
	Lobby string         `json:"lobby"` // the epoch that the lobby's first key said
	Nodes map[string]int `json:"nodes"` // the number of the last entry of each node
	State room.Snapshot  `json:"state"`
}

// first returns the state from which a node begins.
func first(key lobbyKey, state []byte) (s saved, err error) {
	if state == nil {
		s.Lobby, s.State.LastID = key.Epoch, key.Epoch+"-0"
		return s, nil
	}
	if err := json.Unmarshal(state, &s); err != nil {
		return s, fmt.Errorf("the saved state cannot be read: %w", err)
	}
	if _, err := chain.ParseID(s.State.LastID); err != nil {
		return s, fmt.Errorf("the saved state cannot be read: %w", err)
	}
	return s, nil
}
