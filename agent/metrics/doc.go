// Package metrics declares every metric of the agent, in one place, on a
// registry of its own. Nobody else imports prometheus: the rest of the agent
// calls the methods of [Metrics], which say what happened.
//
// A scrape answers from memory. What must be asked of libvirt is gathered
// beforehand by a [Collector], in bulk and with a deadline, so that neither a
// libvirt that hangs nor an instance that is arriving delays a scrape.
//
// Instances are labelled by UUID; their names are on wherry_instance_info
// alone, to be joined where they are wanted.
package metrics
