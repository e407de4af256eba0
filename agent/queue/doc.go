// Package queue lets so many in at once, and has the others wait in order.
//
// A [Line] is for the work of this host: who enters waits until it is its turn.
// A [Door] is for work that others bring, who cannot be kept waiting over a
// network: they are told that it is full, ask again, and find their place kept.
//
// Two hosts that each fill up cannot keep each other for ever: a place in a
// line is taken first and one behind a door last, and who is through the door
// waits for nobody else.
package queue
