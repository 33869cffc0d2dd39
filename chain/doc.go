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
// batch, and waits again. Nothing is copied, nothing is counted, nothing is locked.
//
// An event that comes after a quiet spell leaves at once. After that the chain gathers: the events
// of the next milliseconds leave together, so that a busy server makes few and large writes.
//
// The links are weak pointers. The owner alone keeps batches: the last 64 and those of the history,
// the last events from which a reader can resume. So a reader that has stalled keeps the one batch
// that it is sending, and not everything that came after it. If it comes back so late that the next
// batch is gone, it asks the owner where to go on, by the id of the last event that it has. A client
// that lost its connection asks the same question. The answer is a Start: the event after that one,
// or, if the history no longer has it, the end of the chain and a gap, of which the client is told.
package chain
