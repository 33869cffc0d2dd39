package chat

// Turn is something that happens in the one order that all hubs of a chat share. It is one of the
// types below.
type Turn interface{ isTurn() }

// The turns.
type (
	// Entry is what a hub wanted to happen, in this order.
	Entry struct {
		Node     string // the hub's name among the others
		Commands []Command
	}
	// Burial is the end of a hub that the others have given up. Its streams no longer hold anybody.
	Burial struct {
		Node string
		Page
	}
	// Load is the state from which a hub begins. It comes first.
	Load struct {
		State State
		Done  chan<- error // gets what was wrong with the state, or nil; has room for it
	}
	// Renewal begins the history anew, in another epoch. It comes before there are streams.
	Renewal struct{ Epoch string }
	// Save asks for the state as it is now.
	Save struct{ Page }
	// End is the last turn. The hub has lost the others.
	End struct {
		// Unknown is how many of the hub's waiting commands may still be carried out, of which the hub
		// will not hear. They are the oldest ones. The others never will be.
		Unknown int
	}
)

func (Entry) isTurn()   {}
func (Burial) isTurn()  {}
func (Load) isTurn()    {}
func (Renewal) isTurn() {}
func (Save) isTurn()    {}
func (End) isTurn()     {}

// Page is one part of a turn that goes through all users. The turn comes again for each part, and
// no other turn in between, so that the hub can serve requests meanwhile.
type Page struct {
	After string        // the name after which the part begins; empty for the first
	Done  chan<- Result // gets what came of it; has room for it
}

// Result is what came of a Page.
type Result struct {
	State State  // for Save; LastID and Events are there in that of the first Page
	Next  string // After of the next Page; empty if this was the last
}

// State is all that a hub has to know to go on where another one is.
type State struct {
	LastID string `json:"lastID"` // of the last event
	Events []byte `json:"events"` // from which streams can resume, as they stand on the streams
	Users  []Here `json:"users"`  // sorted by name
}

// Here is a user who is there.
type Here struct {
	Name    Name           `json:"name"`
	Arrival string         `json:"arrival"`           // the id of the event with which the user arrived
	Stays   bool           `json:"stays,omitempty"`   // whether the user stays until Leave
	Streams map[string]int `json:"streams,omitempty"` // how many streams of which hub hold the user
}
