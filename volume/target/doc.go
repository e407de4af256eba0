// Package target connects storage endpoints to this host, so that a path to a
// volume exists here before an instance needs it: ModifyTargets, in the words
// of the wire contract. Each type of endpoint has a Connector; a Set connects
// several targets as one, and undoes what it did when one of them fails.
package target
