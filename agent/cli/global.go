package cli

import (
	"cmp"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wherry-kvm/wherry/http/api"
)

const defaultAgent = "unix:/run/wherry/agent.sock"

// globalFlags hold for every command that talks to an agent.
type globalFlags struct {
	agent                  string
	tlsCA, tlsCert, tlsKey string
	output                 outputFormat
	project                string
}

func (g *globalFlags) register(root *cobra.Command) {
	g.output = outputTable
	f := root.PersistentFlags()
	f.StringVar(&g.agent, "agent", cmp.Or(os.Getenv("WHERRY_AGENT"), defaultAgent),
		"agent to talk to: unix:PATH or https://HOST:8470 (env WHERRY_AGENT)")
	f.StringVar(&g.tlsCA, "tls-ca", os.Getenv("WHERRY_TLS_CA"), "CA that signs the agent's certificate")
	f.StringVar(&g.tlsCert, "tls-cert", os.Getenv("WHERRY_TLS_CERT"), "client certificate")
	f.StringVar(&g.tlsKey, "tls-key", os.Getenv("WHERRY_TLS_KEY"), "key of the client certificate")
	f.VarP(&g.output, "output", "o", "form of the result: table, json or yaml")
	f.StringVar(&g.project, "project", "", "project of the instance (default: "+api.DefaultProject+"; in lists: all)")
}

// ref names the instance of an argument: NAME, or PROJECT/NAME as lists of
// several projects print it.
func (g *globalFlags) ref(argument string) api.Ref {
	if project, name, found := strings.Cut(argument, "/"); found && g.project == "" {
		return api.Ref{Project: project, Name: name}
	}
	return api.Ref{Project: cmp.Or(g.project, api.DefaultProject), Name: argument}
}
