// Package cli is the command line of Wherry: the agent itself (serve) and the
// client of a running one.
//
// [Main] is all that the program calls. Results go to standard output, in the
// form that --output names; progress, questions and errors go to standard
// error, so that a result can be piped while its progress is watched. What a
// command's end means as an exit status is decided in one function, exitStatus.
package cli
