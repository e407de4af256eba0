// Wherry carries KVM instances between hosts: the node agent and its command
// line in one program.
package main

import (
	"os"

	"github.com/wherry-kvm/wherry/agent/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
