package migrate

// Rows names the lines of the decision table.
func Rows() (out []string) {
	for _, r := range table {
		out = append(out, r.name)
	}
	return out
}
