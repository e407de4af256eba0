package http

import "time"

// SetUnread says how long a reader may leave an event unread.
func (s *Server) SetUnread(d time.Duration) { s.unread = d }

// SetPace says how long a reader may take for a MiB of content.
func (s *Server) SetPace(d time.Duration) { s.pace = d }

// Routes gives method and pattern of every route, for the contract's test.
func (s *Server) Routes() [][2]string {
	var out [][2]string
	for _, r := range s.routes() {
		out = append(out, [2]string{r.method, r.path})
	}
	return out
}

// PeerRoutes gives those that a peer may call.
func (s *Server) PeerRoutes() [][2]string {
	var out [][2]string
	for _, r := range s.routes() {
		if r.peer {
			out = append(out, [2]string{r.method, r.path})
		}
	}
	return out
}
