package cluster

import (
	"cmp"
	"time"

	"lobby/room"
)

// outbox holds what is on its way from the hub to the log. One entry at a time is being appended;
// commands that arrive in the meantime go into the next one.
type outbox struct {
	commands     []room.Command // in no entry yet
	saved        int            // size of a snapshot, or notSaved, to be reported; 0 for none
	damaged      int64          // the revision of damage that no entry has reported yet, or 0
	removals     []removal      // in no entry yet
	heartbeatDue bool           // whether the next entry is a heartbeat
	limit        int            // maximum bytes of an entry, not counting its last command

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

// hasRetracted reports whether an entry was ever taken back; see retract.
func (o *outbox) hasRetracted() bool { return o.limit < maxEntry }

// hasNext reports whether an entry should be sent now. Once an entry has been retracted, none is
// sent until the last one has been read: etcd may have accepted the retracted one after all. Then
// this node reads that one in place of the next and ends, and a later entry would have repeated its
// commands.
func (o *outbox) hasNext() bool {
	isDue := o.heartbeatDue || o.saved != 0 || o.damaged > 0 || len(o.removals) > 0 || len(o.commands) > 0
	return isDue && !o.inFlight && !o.isVoid && (!o.hasRetracted() || len(o.sent) == 0)
}

// next returns the next entry, with as many commands as fit.
func (o *outbox) next() sentEntry {
	text := content{saved: o.saved, damaged: o.damaged, removals: o.removals}.appendTo(nil)
	count := 0
	for count < len(o.commands) && len(text) < o.limit {
		text = o.commands[count].AppendTo(text)
		count++
	}
	entry := sentEntry{text: text, commands: count, isHeartbeat: o.heartbeatDue}
	o.commands, o.removals, o.saved, o.damaged, o.heartbeatDue = o.commands[count:], nil, 0, 0, false
	return entry
}

// retract takes back the entry in flight, which etcd has rejected as too large, so that smaller
// ones follow. It returns false if the entry has at most one command.
func (o *outbox) retract() bool {
	last := len(o.sent) - 1
	if last < 0 {
		return true // another etcd server had accepted it, and it has been read since
	}
	entry := o.sent[last]
	c, err := parseNext(string(entry.text))
	if err != nil || len(c.commands) < 2 {
		return false
	}
	o.sent, o.number = o.sent[:last], o.number-1
	o.commands, o.removals = append(c.commands, o.commands...), append(c.removals, o.removals...)
	o.saved, o.damaged = cmp.Or(o.saved, c.saved), max(o.damaged, c.damaged)
	o.heartbeatDue = o.heartbeatDue || entry.isHeartbeat
	o.limit = min(o.limit, len(entry.text)) / 2
	return true
}

// unknown returns the number of commands that may be in the log but have not been read.
func (o *outbox) unknown() (count int) {
	for _, entry := range o.sent {
		count += entry.commands
	}
	if o.hasRetracted() {
		count += len(o.commands) // a retracted entry may have had them
	}
	return count
}
