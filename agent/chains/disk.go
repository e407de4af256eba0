package chains

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/hypervisor"
	"github.com/wherry-kvm/wherry/hypervisor/domainxml"
	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/volume"
)

// anywhere: a chain may leave the pools and come back. Headers are all that is
// read, and nothing of them is shown but names.
var anywhere = []string{"/"}

// standAlone are formats that name no backing file, or none of another format.
var standAlone = []string{"raw", "vmdk", "vdi", "vpc", "vhdx", "luks", "iso", "dmg", "bochs", "cloop", "parallels", "dir", "fat"}

// disk adds what one disk stands on by all witnesses together: node is QEMU's,
// nil where it was not asked, and then the headers must tell it all.
func (in *instance) disk(x domainxml.Disk, node *hypervisor.BlockNode) {
	source, err := resolve(x, in.pools)
	if err != nil {
		in.unread("disk %q: %v", x.Target, err)
		return
	}
	var files []string
	add := func(path string) {
		if filepath.IsAbs(path) && !slices.Contains(files, filepath.Clean(path)) {
			files = append(files, filepath.Clean(path))
		}
	}
	add(source)
	known := node != nil
	if known {
		for _, l := range node.Layers {
			add(l.Path)
			if strings.HasPrefix(l.Path, "json:") {
				known = false
			}
		}
	}
	for _, b := range x.Chain {
		add(b.Path)
	}
	why := in.headers(x, source, add)
	switch {
	case x.Mirror:
		// What is being written may stand on other layers than what is read.
		in.unread("disk %q is being copied", x.Target)
	case !known && why != nil:
		in.unread("disk %q: %v", x.Target, why)
	}
	if len(files) == 0 {
		return
	}
	u := template.Use{Project: in.project, Instance: in.domain.Name, Disk: x.Target, Volume: files[0]}
	for _, path := range files {
		u.Layers = append(u.Layers, template.FileAt(path))
	}
	in.put(u)
}

// put joins the use to what another definition said of the same disk.
func (in *instance) put(u template.Use) {
	for i, have := range in.out.Uses {
		if have.Project == u.Project && have.Instance == u.Instance && have.Disk == u.Disk && have.Volume == u.Volume {
			for _, f := range u.Layers {
				if !slices.Contains(have.Layers, f) {
					have.Layers = append(have.Layers, f)
				}
			}
			in.out.Uses[i] = have
			return
		}
	}
	in.out.Uses = append(in.out.Uses, u)
}

// headers follows the images' headers. An error says that more may lie below.
func (in *instance) headers(x domainxml.Disk, source string, add func(string)) error {
	if !filepath.IsAbs(source) || x.Type != "file" && x.Type != "block" && x.Type != "volume" {
		return nil // on storage where no template lies
	}
	if x.Device == "cdrom" || x.Device == "floppy" || slices.Contains(standAlone, x.Format) || x.Format == "" {
		return nil
	}
	chain, err := volume.Walk(source, volume.Format(x.Format), anywhere)
	for _, l := range chain {
		add(l.Path)
		add(l.Real)
		data, derr := dataFile(l)
		if derr != nil {
			return derr
		}
		add(data)
	}
	if err == nil {
		return nil
	}
	layer, ok := errors.AsType[*volume.LayerError](err)
	if !ok {
		return err
	}
	add(layer.Path)
	switch {
	case in.IsCopy(layer.Path):
		return nil
	case len(chain) == 0 && errors.Is(err, fs.ErrNotExist) && inPool(source, in.pools):
		return nil // the volume itself is gone, and with it what it stood on
	case len(chain) > 0 && slices.Contains(standAlone, string(chain[len(chain)-1].BackingFormat)) && errors.Is(err, volume.ErrFormatUnsupported):
		return nil
	}
	return err
}

// resolve gives the path of a disk's source; of a volume, by its pool.
func resolve(x domainxml.Disk, pools []api.Pool) (string, error) {
	if x.Type != "volume" {
		return x.Source, nil
	}
	for _, p := range pools {
		if p.Name == x.Pool && p.Path != "" {
			return filepath.Join(p.Path, x.Volume), nil
		}
	}
	return "", fmt.Errorf("its pool %q is not here", x.Pool)
}

// inPool tells whether a file that is not there would lie in the folder of a
// pool that is: elsewhere, a file system may only not be mounted.
func inPool(path string, pools []api.Pool) bool {
	return slices.ContainsFunc(pools, func(p api.Pool) bool {
		return p.Active && p.Path != "" && filepath.Dir(path) == filepath.Clean(p.Path)
	})
}

// isFolder tells whether a pool's volumes are files in one folder.
func isFolder(p api.Pool) bool {
	info, err := os.Stat(p.Path)
	return err == nil && info.IsDir() && !strings.HasPrefix(filepath.Clean(p.Path)+"/", "/dev/")
}
