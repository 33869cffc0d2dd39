package room

import "lobby/chain"

// Step is one item of the sequence that a node of a lobby gives to its Room: one of the types
// below. After Restore, those that change users or events (Entry, RemoveNode and NewEpoch) are the
// same on all nodes, and in the same order.
type Step interface{ isStep() }

// The steps.
type (
	// Entry is an entry of the log: commands from one node.
	Entry struct {
		Node     string
		Commands []Command
	}
	// RemoveNode removes the streams of a node that the others have declared dead, for one page of
	// users: those after the name After, or the first ones if After is empty.
	RemoveNode struct{ Node, After string }
	// TakeSnapshot asks for a page of a Snapshot.
	TakeSnapshot struct{ After string }
	// Restore is the first step of a node.
	Restore struct{ Snapshot Snapshot }
	// NewEpoch starts the history over in another epoch. It comes only before there are streams.
	NewEpoch struct{ Epoch string }
	// End is the last step, after which the node is no longer part of the lobby.
	End struct {
		// Unknown is the number of the node's oldest pending commands that may still take effect. The
		// others never will.
		Unknown int
	}
)

func (Entry) isStep()        {}
func (RemoveNode) isStep()   {}
func (TakeSnapshot) isStep() {}
func (Restore) isStep()      {}
func (NewEpoch) isStep()     {}
func (End) isStep()          {}

// StepResult is what came of a step other than Entry and End. If the result of a RemoveNode or
// TakeSnapshot has a Next, the next step must be the same one with After set to Next.
type StepResult struct {
	Snapshot Snapshot // of TakeSnapshot: the page
	Err      error    // of Restore: what is wrong with the snapshot

	// Next, of RemoveNode and TakeSnapshot, is the name after which the next page starts; "" after the
	// last page.
	Next string
}

// ApplyStep carries out a step other than Entry and End.
func (r *Room) ApplyStep(step Step) (result StepResult) {
	switch step := step.(type) {
	case RemoveNode:
		users, next := r.page(step.After)
		for _, u := range users {
			r.removeStreams(u, step.Node, u.streams[step.Node])
		}
		result.Next = next
	case TakeSnapshot:
		result.Snapshot, result.Next = r.Snapshot(step.After)
	case Restore:
		result.Err = r.Restore(step.Snapshot)
	case NewEpoch:
		r.Chain = chain.NewEpoch(step.Epoch, r.config.History, r.config.KeepAlive)
	}
	return result
}
