// Package chain broadcasts numbered events to any number of readers, each at its own pace, in the
// format of Server-Sent Events (HTML standard, section 9.2).
//
// A textbook broadcaster keeps a queue for each client. When a queue is full, it has to drop the
// event or the client, and each event costs it one send per client. Here the events stand in a
// chain that all readers share:
//
//	┌────────┐      ┌────────┐      ┌────────┐
//	│ 17…25  │┄┄┄┄┄▶│ 26…40  │┄┄┄┄┄▶│ 41…    │   batches of events
//	└────────┘      └────────┘      └────────┘
//	    ▲               ▲               ▲
//	 a reader        a reader       all other readers, who wait until it is sealed
//
// The chain has one owner, a goroutine that appends events to the last batch. To seal a batch, the
// owner links an empty one behind it and closes one channel, which wakes every waiting reader,
// however many there are. A reader then sends the bytes of the batch as they are, steps to the next
// batch, and waits again. No event is copied for a reader, and nothing is locked.
//
// An event that comes after a quiet spell leaves at once. After that the chain gathers: the events
// of the next milliseconds leave together, so that a busy server makes few and large writes.
//
// The links are weak pointers. The owner alone keeps batches: the last 64, and all that hold one of
// the last events from which readers can resume, the history. So a reader that has stalled keeps
// the one batch that it is sending, and not everything that came after it. If it comes back so late
// that the next batch is gone, it asks the owner where to go on, by the id of the last event that
// it has. A client that lost its connection asks the same. The answer is a Start: where the next
// event begins. If the history no longer has that event, it is the end of the chain, and the client
// is told of a gap.
//
// Another process can go on where a chain is: [Chain.History] returns the events of the history as
// they stand on the streams, and [Restore] makes a chain of them.
package chain
