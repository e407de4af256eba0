package volume

// RemoveWhile is Remove beside what others do at the same time.
func (o Owned) RemoveWhile(looked, asided func()) error { return o.removeWhile(looked, asided) }
