// Package migrate moves an instance to another host.
//
// [Decide] is the whole policy, a pure function: facts of both hosts in, a
// plan with reasons out. Everything else in the package gathers the facts or
// acts on the plan.
package migrate
