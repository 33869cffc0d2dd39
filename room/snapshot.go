package room

import (
	"fmt"
	"maps"
	"strings"

	"lobby/chain"
	"lobby/chat"
)

// Snapshot is the whole state of a Room as data, or one page of it: what another Room needs to
// continue from there.
type Snapshot struct {
	LastID string     `json:"lastID"` // id of the last event
	Events string     `json:"events"` // the history, as it stands on the streams
	Users  []Presence `json:"users"`  // sorted by name
}

// Presence is a present user in a Snapshot.
type Presence struct {
	Name    string         `json:"name"`
	Arrival uint64         `json:"arrival"`           // the visit's
	Stays   bool           `json:"stays,omitempty"`   // whether the user stays until Leave
	Streams map[string]int `json:"streams,omitempty"` // how many keep the user present, by node
}

// maxPage is the number of users in a page of a Snapshot or of a RemoveNode. Between two pages the
// owner can do other work, but it applies no command and carries out no other step.
const maxPage = 100

// Snapshot returns a page of the state: the users after the given name and, in the first page,
// LastID and Events too. The first page comes after "". Pass next as after to get the next page; it
// is "" after the last one. No command may be applied between the pages of one Snapshot.
func (r *Room) Snapshot(after string) (page Snapshot, next string) {
	if after == "" {
		page = Snapshot{LastID: r.Chain.LastID().String(), Events: string(r.Chain.History())}
	}
	users, next := r.page(after)
	for _, u := range users {
		page.Users = append(page.Users, Presence{u.Name.String(), u.Arrival, u.stays, maps.Clone(u.streams)})
	}
	return page, next
}

// Restore replaces the state of an empty Room by a Snapshot, possibly that of another Room. The
// error says what is wrong with the Snapshot; the Room is then unusable.
func (r *Room) Restore(s Snapshot) error {
	last, err := chain.ParseID(s.LastID)
	if epoch, _, _ := strings.Cut(s.LastID, "-"); err != nil || !IsEpoch(epoch) {
		return fmt.Errorf("%.100q is not an event id", s.LastID)
	}
	r.Chain, err = chain.Restore(last, []byte(s.Events), r.config.History, r.config.KeepAlive)
	if err != nil {
		return err
	}
	for i, p := range s.Users {
		switch {
		case !isName(p.Name):
			return fmt.Errorf("the snapshot has the invalid name %.100q", p.Name)
		case i > 0 && p.Name <= s.Users[i-1].Name:
			return fmt.Errorf("the snapshot has the user %.100q twice or out of order", p.Name)
		}
		for _, count := range p.Streams {
			if count < 1 {
				return fmt.Errorf("the snapshot has the user %.100q with %d streams", p.Name, count)
			}
		}
		// The arrival may have a number above the last event's, if it was in an earlier epoch.
		visit := Visit{chat.UncheckedName(p.Name), p.Arrival}
		r.users[p.Name] = &user{visit, p.Stays, p.Streams}
		r.Roster.Add(p.Name)
	}
	return nil
}

// IsEpoch reports whether s can be the epoch of an id on several machines.
func IsEpoch(s string) bool {
	const allowed = "0123456789abcdefghijklmnopqrstuvwxyz"
	return s != "" && len(s) <= 64 && strings.Trim(s, allowed) == ""
}

// page returns up to maxPage users in the order of their names, after the given name. The next page
// starts after the name next, which is "" after the last page.
func (r *Room) page(after string) (users []*user, next string) {
	for name := range r.Roster.NamesAfter(after) {
		if len(users) == maxPage {
			return users, users[maxPage-1].Name.String()
		}
		users = append(users, r.users[name])
	}
	return users, ""
}
