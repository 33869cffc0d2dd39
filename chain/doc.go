// Package chain broadcasts numbered events to any number of readers, each at its own pace, in the
// format of Server-Sent Events (HTML standard, section 9.2).
//
// A textbook broadcaster keeps a queue for each client. When a queue is full, it must drop either
// the event or the client, and every event costs it one channel send per client. Here all readers
// share one chain of events:
//
//	┌────────┐      ┌────────┐      ┌────────┐
//	│ 17…25  │┄┄┄┄┄▶│ 26…40  │┄┄┄┄┄▶│ 41…    │   batches of events
//	└────────┘      └────────┘      └────────┘
//	    ▲               ▲               ▲
//	 a reader        a reader       all other readers, waiting until it is sealed
//
// One goroutine owns the chain and appends events to the last batch. To seal a batch, it links an
// empty one behind it and closes one channel, which wakes every waiting reader, however many there
// are. A reader then sends the bytes of the batch as they are, moves to the next batch, and waits
// again. No event is copied for a reader, and nothing is locked.
//
// An event that follows a quiet spell is sent at once. After that the chain gathers: the events of
// the next 4 to 16 ms (more with thousands of readers) are sent together, so that a busy server
// makes few, large writes.
//
// The links between batches are weak pointers. The owner keeps the last 64 batches alive, and those
// that hold the history: the last events, from which readers can resume. A stalled reader keeps
// only the batch that it is sending, not everything after it. If the next batch is gone by the time
// the reader needs it, the reader asks the owner where to continue after the last event that it
// has. A reconnecting client asks the same question. The answer is a Start: the position of the
// next event. If that event has left the history, the Start is the end of the chain, and the client
// receives a gap.
//
// A chain can be continued in another process: [Chain.History] returns the events of the history as
// they appear on the streams, and [Restore] makes a chain from them.
package chain
