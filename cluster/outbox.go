package cluster

import (
	"strconv"
	"time"

	"lobby/room"
)

// outbox holds what is on its way from the hub to the log. One entry at a time is being appended;
// commands that arrive in the meantime go into the next one.
type outbox struct {
	commands     []room.Command // in no entry yet
	saved        int            // what came of a snapshot, if no entry has said it yet; see content
	damaged      int64          // the revision of damage that no entry has reported yet, or 0
	removals     []removal      // in no entry yet
	heartbeatDue bool           // whether the next entry is a heartbeat

	number   int         // of the last entry that was sent
	sent     []sentEntry // entries that have not been read yet, in order
	inFlight bool        // whether the last of them is being appended
	isVoid   bool        // whether the log accepts no more entries of this node
}

// sentEntry is an entry that was sent to the log.
type sentEntry struct {
	text        []byte
	commands    int // number of commands in text
	isHeartbeat bool
	at          time.Time // when it was sent
}

// hasNext reports whether an entry should be sent now.
func (o *outbox) hasNext() bool {
	isDue := o.heartbeatDue || o.saved != 0 || o.damaged > 0 || len(o.removals) > 0 || len(o.commands) > 0
	return isDue && !o.inFlight && !o.isVoid
}

// next returns the next entry, with as many commands as fit.
func (o *outbox) next() sentEntry {
	var text []byte
	if o.saved != 0 {
		text = appendRecord(text, saved, strconv.Itoa(o.saved))
	}
	if o.damaged > 0 {
		text = appendRecord(text, damaged, strconv.FormatInt(o.damaged, 10))
	}
	for _, r := range o.removals {
		text = r.appendTo(text)
	}
	count := 0
	for count < len(o.commands) && len(text) < maxEntry {
		text = o.commands[count].AppendTo(text)
		count++
	}
	entry := sentEntry{text: text, commands: count, isHeartbeat: o.heartbeatDue}
	o.commands, o.removals, o.saved, o.damaged, o.heartbeatDue = o.commands[count:], nil, 0, 0, false
	return entry
}

// unknown returns the number of commands that may be in the log but have not been read.
func (o *outbox) unknown() (count int) {
	for _, entry := range o.sent {
		count += entry.commands
	}
	return count
}
