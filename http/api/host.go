package api

// Host is what an agent says of its own machine.
type Host struct {
	Name     string         `json:"name"`
	UUID     string         `json:"uuid"`
	Versions Versions       `json:"versions"`
	CPU      CPU            `json:"cpu"`
	Memory   int64          `json:"memory"`
	KVM      bool           `json:"kvm"`
	Pools    []Pool         `json:"pools"`
	Counts   map[string]int `json:"counts"`
	Draining bool           `json:"draining"`
}

// Versions of the software on a host.
type Versions struct {
	Agent   string `json:"agent"`
	Libvirt string `json:"libvirt"`
	QEMU    string `json:"qemu"`
}

// CPU of a host.
type CPU struct {
	Model string `json:"model"`
	Arch  string `json:"arch"`
	Count int    `json:"count"`
}

// Pool is a libvirt storage pool. Identity says which physical storage it is;
// empty where the host alone cannot know (then a probe file tells).
type Pool struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Path     string `json:"path,omitempty"`
	Identity string `json:"identity,omitempty"`
	Active   bool   `json:"active"`
	Capacity int64  `json:"capacity"`
	Free     int64  `json:"free"`
}
