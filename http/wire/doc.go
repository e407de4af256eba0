// Package wire turns the types of http/api into JSON and back, with the rules
// that encoding/json leaves open: a list is never null on the wire, and a body
// that says anything the type does not know is refused with the field's path.
package wire
