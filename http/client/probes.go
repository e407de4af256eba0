package client

import "context"

// OpenAPI gives the description of the interface that the agent serves.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	return c.read(ctx, get("v1", "openapi.yaml"))
}

// Live succeeds where an agent answers.
func (c *Client) Live(ctx context.Context) error {
	_, err := c.read(ctx, get("livez"))
	return err
}

// Ready succeeds where the agent can work; else the problem says why not.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.read(ctx, get("readyz"))
	return err
}

// Metrics gives the agent's metrics in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	return c.read(ctx, get("metrics"))
}
