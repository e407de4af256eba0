package target

import (
	"time"

	"github.com/wherry-kvm/wherry/volume"
	"github.com/wherry-kvm/wherry/volume/target"
)

// Connectors are the settings of the connectors of this host.
type Connectors struct {
	FileFolders      []string
	ISCSITimeout     time.Duration
	PowerFlexRoot    string
	PowerFlexRescan  []string
	PowerFlexTimeout time.Duration
}

// Service makes the service. Secrets keeps the passwords of iSCSI logins; nil =
// nobody does.
func (c Connectors) Service(runner volume.Runner, secrets target.Secrets) *Service {
	return &Service{Set: target.Set{
		target.TypeFile:      target.File{Folders: c.FileFolders},
		target.TypeISCSI:     target.ISCSI{Runner: runner, Secrets: secrets, Timeout: c.ISCSITimeout},
		target.TypePowerFlex: target.PowerFlex{Runner: runner, Root: c.PowerFlexRoot, Rescan: c.PowerFlexRescan, Timeout: c.PowerFlexTimeout},
		target.TypeRBD:       target.RBD{Runner: runner},
	}}
}
