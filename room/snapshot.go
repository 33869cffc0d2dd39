package room

import (
	"fmt"
	"maps"

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

// maxPage is the number of users in a page of a Snapshot or of a RemoveNode. The owner can serve
// other requests between two pages.
const maxPage = 100

// Snapshot returns a page of the state: the users after the given name, and in the first page,
// which comes after "", LastID and Events too. The next page comes after the name next, which is ""
// if there is none. No command may be applied between the pages of one Snapshot.
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
	if err != nil {
		return err
	}
	r.Chain, err = chain.Restore(last, []byte(s.Events), r.config.History, r.config.KeepAlive)
	if err != nil {
		return err
	}
	for _, p := range s.Users {
		if r.users[p.Name] != nil {
			return fmt.Errorf("the user %.100q is in the snapshot twice", p.Name)
		}
		visit := Visit{chat.UncheckedName(p.Name), p.Arrival}
		r.users[p.Name] = &user{visit, p.Stays, p.Streams}
		r.Roster.Add(p.Name)
	}
	return nil
}

// page returns up to maxPage users in the order of their names, after the given name, and the name
// after which the next page comes, or "" if there is none.
func (r *Room) page(after string) (users []*user, next string) {
	for name := range r.Roster.NamesAfter(after) {
		if len(users) == maxPage {
			return users, users[maxPage-1].Name.String()
		}
		users = append(users, r.users[name])
	}
	return users, ""
}
