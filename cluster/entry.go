package cluster

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"lobby/chain"
	"lobby/room"
)

// version is the format of entries, settings and snapshots. All nodes of a lobby have the same.
const version = 2

// A node's first entry is a registration. Each of its other entries may say what came of a snapshot
// and that the log was damaged, then has any number of removals, and then any number of its hub's
// commands. Records look like those of commands; see package room.
const (
	register = "register" // VERSION, LOST, EPOCH
	saved    = "saved"    // SIZE
	damaged  = "damaged"  // REVISION
	remove   = "remove"   // NODE, LAST
)

// registration makes a node known.
type registration struct {
	// lost lists epochs, separated by spaces, of which the node's process has seen events that etcd no
	// longer has, because it was restored from a backup. If the history is in one of them, it starts
	// over in the new epoch, so that no id is used twice.
	lost, epoch string
}

// removal declares a node dead, if its last entry is still the one with this number.
type removal struct {
	node string
	last int
}

// content is what an entry says.
type content struct {
	registration       // only in a node's first entry
	saved        int   // bytes of the snapshot that its node has saved, notSaved, or 0
	damaged      int64 // the revision at which an entry was changed or removed by hand, or 0
	removals     []removal
	commands     []room.Command
}

// notSaved in place of a snapshot's size means that it could not be saved.
const notSaved = -1

// appendTo appends the text of an entry that says c.
func (c content) appendTo(b []byte) []byte {
	if c.epoch != "" {
		b = appendRecord(b, register, strconv.Itoa(version), c.lost, c.epoch)
	}
	if c.saved != 0 {
		b = appendRecord(b, saved, strconv.Itoa(c.saved))
	}
	if c.damaged > 0 {
		b = appendRecord(b, damaged, strconv.FormatInt(c.damaged, 10))
	}
	for _, r := range c.removals {
		b = appendRecord(b, remove, r.node, strconv.Itoa(r.last))
	}
	for _, command := range c.commands {
		b = command.AppendTo(b)
	}
	return b
}

func appendRecord(b []byte, fields ...string) []byte {
	return append(append(b, strings.Join(fields, room.FieldSeparator)...), room.RecordEnd...)
}

// parseFirst parses a node's first entry. Its version must be this program's: a node of another
// version sees in the settings key that the lobby has this one, and never registers.
func parseFirst(text string) (content, error) {
	record, rest, isWhole := strings.Cut(text, room.RecordEnd)
	f := strings.Split(record, room.FieldSeparator)
	if isWhole && rest == "" && len(f) == 4 && f[0] == register && f[1] == strconv.Itoa(version) &&
		room.IsEpoch(f[3]) {
		return content{registration: registration{f[2], f[3]}}, nil
	}
	return content{}, fmt.Errorf("%.100q is not a valid registration", record)
}

// parseNext parses any other entry.
func parseNext(text string) (c content, err error) {
	if after, ok := strings.CutPrefix(text, saved+room.FieldSeparator); ok {
		size, rest, isWhole := strings.Cut(after, room.RecordEnd)
		c.saved, err = strconv.Atoi(size)
		if err != nil || !isWhole || c.saved < 1 && c.saved != notSaved {
			return content{}, fmt.Errorf("%.100q is not a valid size of a snapshot", size)
		}
		text = rest
	}
	if after, ok := strings.CutPrefix(text, damaged+room.FieldSeparator); ok {
		revision, rest, isWhole := strings.Cut(after, room.RecordEnd)
		c.damaged, err = strconv.ParseInt(revision, 10, 64)
		if err != nil || !isWhole || c.damaged < 1 {
			return content{}, fmt.Errorf("%.100q is not a valid revision", revision)
		}
		text = rest
	}
	for strings.HasPrefix(text, remove+room.FieldSeparator) {
		record, rest, isWhole := strings.Cut(text, room.RecordEnd)
		fields := strings.Split(record, room.FieldSeparator)
		last, err := strconv.Atoi(fields[len(fields)-1])
		if !isWhole || len(fields) != 3 || fields[1] == "" || err != nil {
			return content{}, fmt.Errorf("%.100q is not a valid removal", record)
		}
		c.removals = append(c.removals, removal{fields[1], last})
		text = rest
	}
	c.commands, err = room.ParseCommands(text)
	return c, err
}

// Settings are what all nodes of a lobby must agree on. The first node sets them.
type Settings struct {
	History  int `json:"history"`  // number of past events kept for resuming
	MaxUsers int `json:"maxUsers"` // number of users at which Join rejects new ones
}

// lobbyKey is the content of the settings key.
type lobbyKey struct {
	Version int    `json:"version"`
	Epoch   string `json:"epoch"` // of the history, until a registration starts another one
	Settings
}

// snapshot is a snapshot in the log.
type snapshot struct {
	Lobby string         `json:"lobby"` // the epoch in the settings key
	Nodes map[string]int `json:"nodes"` // the number of each node's last entry
	Due   int            `json:"due"`   // bytes of entries after which the next snapshot is due
	Saver string         `json:"saver"` // the node that saves this snapshot
	Room  room.Snapshot  `json:"room"`
}

// initial returns the snapshot from which a node starts: the one in data or, if that is nil, that
// of a new lobby.
func initial(key lobbyKey, data []byte) (s snapshot, err error) {
	if data == nil {
		s.Lobby, s.Room.LastID = key.Epoch, key.Epoch+"-0"
		return s, nil
	}
	if err = json.Unmarshal(data, &s); err == nil {
		_, err = chain.ParseID(s.Room.LastID)
	}
	for name, last := range s.Nodes {
		if name == "" || strings.ContainsAny(name, room.FieldSeparator+room.RecordEnd) || last < 1 {
			err = fmt.Errorf("it has the node %.100q with %d entries", name, last)
		}
	}
	if err != nil {
		return s, fmt.Errorf("the snapshot cannot be read: %w", err)
	}
	return s, nil
}
