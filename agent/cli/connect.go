package cli

import "errors"

// dialAgent gives the agent that the flags name.
func dialAgent(globalFlags) (agent, error) { return nil, errors.New("not wired up yet") }
