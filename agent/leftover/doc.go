// Package leftover finds files in this host's pools that nothing owns: no
// instance, record, template, reservation or unfinished operation names them.
// It deletes them on request only, each by its identity and after another look.
//
// A name is no proof that a file is needed by nobody: what cannot be read makes
// the whole answer an error, and pools that other hosts may have too are left
// out.
package leftover
