package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// OriginRequest is a request that an Origin has answered. nginx notes it when the answer has ended, however it ended.
type OriginRequest struct {
	At            float64 `json:"at"` // seconds since 1970, at the end
	Port          string  `json:"port"`
	Method        string  `json:"method"`
	URI           string  `json:"uri"` // with the query, as it was sent
	Status        int     `json:"status"`
	Sent          int64   `json:"sent"`     // bytes of the body
	Finished      string  `json:"finished"` // "OK" where the answer was sent whole
	Range         string  `json:"range"`
	IfRange       string  `json:"if_range"`
	Encoding      string  `json:"encoding"` // Accept-Encoding
	Authorization string  `json:"authorization"`
	Referer       string  `json:"referer"`
}

// Requests lists what was asked of the server so far, in the order in which the answers ended.
func (o *Origin) Requests() ([]OriginRequest, error) {
	text, err := os.ReadFile(filepath.Join(o.folder, "access.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []OriginRequest
	for line := range bytes.Lines(text) {
		var r OriginRequest
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("access log %q: %w", line, err)
		}
		out = append(out, r)
	}
	return out, nil
}
