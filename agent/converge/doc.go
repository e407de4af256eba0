// Package converge decides what is done about a guest that writes memory
// faster than it can be sent.
//
// [Decide] is the whole policy, a pure function: the passes that QEMU has made
// over memory, what was done so far, and what is allowed in; what is to be done
// now, with the reason and its figures, out. Whoever calls it acts.
//
// It is asked when a pass has ended. Within one, what is left falls and jumps up
// again at its end, so that a look at any other moment says nothing about
// whether the migration gets nearer to its end; and a limit on time alone would
// end those that do.
package converge
