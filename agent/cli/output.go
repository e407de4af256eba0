package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// outputFormat is the value of --output.
type outputFormat string

const (
	outputTable outputFormat = "table"
	outputJSON  outputFormat = "json"
	outputYAML  outputFormat = "yaml"
)

func (o *outputFormat) String() string { return string(*o) }

// Type names the value in the usage text.
func (o *outputFormat) Type() string { return "FORMAT" }

// Set accepts the three formats.
func (o *outputFormat) Set(s string) error {
	switch f := outputFormat(s); f {
	case outputTable, outputJSON, outputYAML:
		*o = f
		return nil
	}
	return errors.New("say table, json or yaml")
}

// print writes a result: for a machine the value as it crosses the wire, for
// a person what table writes.
func (a *app) print(value any, table func(w io.Writer)) error {
	return a.printLaidOut(value, table, func(text []byte) []byte { return text })
}

// printTable is print for a table whose last column is prose: on a terminal
// that column is wrapped.
func (a *app) printTable(value any, table func(w io.Writer)) error {
	return a.printLaidOut(value, table, func(text []byte) []byte { return wrapLastColumn(text, terminalWidth(a.out)) })
}

func (a *app) printLaidOut(value any, table func(w io.Writer), layOut func([]byte) []byte) error {
	var text []byte
	var err error
	switch a.global.output {
	case outputJSON:
		text, err = jsonText(value)
	case outputYAML:
		text, err = yamlText(value)
	default:
		if table == nil {
			return nil
		}
		var b bytes.Buffer
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		table(w)
		if err := w.Flush(); err != nil {
			return err
		}
		text = layOut(trimLines(b.Bytes()))
	}
	if err != nil {
		return err
	}
	if _, err := a.out.Write(text); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func jsonText(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(value); err != nil {
		return nil, fmt.Errorf("encode the result: %w", err)
	}
	return b.Bytes(), nil
}

// yamlText writes the same names in the same order as JSON: JSON is YAML, so
// its tree is read as YAML and printed in block style.
func yamlText(value any) ([]byte, error) {
	text, err := jsonText(value)
	if err != nil {
		return nil, err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, fmt.Errorf("turn the result into YAML: %w", err)
	}
	blockStyle(&node)
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return nil, fmt.Errorf("encode the result: %w", err)
	}
	return b.Bytes(), nil
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// trimLines removes the blanks with which tabwriter fills a last empty cell.
func trimLines(text []byte) []byte {
	lines := bytes.Split(text, []byte("\n"))
	for i := range lines {
		lines[i] = bytes.TrimRight(lines[i], " ")
	}
	return bytes.Join(lines, []byte("\n"))
}
