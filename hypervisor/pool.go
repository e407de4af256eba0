package hypervisor

import (
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"libvirt.org/go/libvirt"
)

// Pool is a libvirt storage pool.
type Pool struct {
	Name, UUID string
	Type       string // dir, fs, netfs, logical, iscsi, iscsi-direct, rbd, gluster, ...
	Path       string // target path; "" where volumes have none
	Active     bool
	Capacity   int64 // bytes, as of the last refresh
	Available  int64 // bytes, as of the last refresh

	SourceHosts   []string // host or host:port
	SourceName    string   // rbd pool, volume group, gluster volume
	SourceDir     string   // exported directory
	SourceDevices []string // device paths; the IQN for iscsi
	SourceFormat  string
}

// Identity says which physical storage a network pool is: equal identities on
// two hosts mean the same bytes. It is "" for storage that belongs to one host.
func (p Pool) Identity() string {
	if slices.ContainsFunc(p.SourceHosts, thisHost) {
		return "" // that name is another machine on every host
	}
	switch p.Type {
	case "netfs":
		if len(p.SourceHosts) == 0 || p.SourceDir == "" {
			return ""
		}
		kind := "nfs"
		if p.SourceFormat == "glusterfs" || p.SourceFormat == "cifs" {
			kind = p.SourceFormat
		}
		return kind + ":" + p.SourceHosts[0] + ":" + cleanDir(p.SourceDir)
	case "rbd":
		if p.SourceName == "" || len(p.SourceHosts) == 0 {
			return ""
		}
		return "rbd:" + hostList(p.SourceHosts, "6789") + "/" + p.SourceName
	case "iscsi", "iscsi-direct":
		if len(p.SourceHosts) == 0 || len(p.SourceDevices) == 0 {
			return ""
		}
		return "iscsi:" + hostList(p.SourceHosts[:1], "3260") + "/" + p.SourceDevices[0]
	case "gluster":
		if p.SourceName == "" || len(p.SourceHosts) == 0 {
			return ""
		}
		return "gluster:" + p.SourceHosts[0] + "/" + p.SourceName + cleanDir(p.SourceDir)
	}
	return ""
}

// thisHost tells whether a server's name, with or without a port, means the
// host that uses it.
func thisHost(server string) bool {
	if h, _, err := net.SplitHostPort(server); err == nil {
		server = h
	}
	server = strings.ToLower(strings.Trim(server, "[]"))
	if a, err := netip.ParseAddr(server); err == nil {
		return a.Unmap().IsLoopback() || a.IsUnspecified()
	}
	return server == "localhost" || strings.HasPrefix(server, "localhost.") || strings.HasSuffix(server, ".localhost")
}

func cleanDir(dir string) string {
	if dir == "" || dir == "/" {
		return dir
	}
	return strings.TrimRight(dir, "/")
}

// hostList is order-free, and the same with the default port as without.
func hostList(hosts []string, port string) string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), port)
		}
		out[i] = h
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// Pools lists every pool of this host, with one list call.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	return onControl(ctx, c, "list pools", "", func(l *link) ([]Pool, error) {
		pools, err := l.conn.ListAllStoragePools(0)
		if err != nil {
			return nil, err
		}
		frees := make([]func(), len(pools))
		for i := range pools {
			frees[i] = l.own(&pools[i])
		}
		defer func() {
			for _, free := range frees {
				free()
			}
		}()
		out := make([]Pool, 0, len(pools))
		for i := range pools {
			p, err := readPool(&pools[i])
			if isCode(err, libvirt.ERR_NO_STORAGE_POOL) {
				continue // went away since the list was made
			}
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		return out, nil
	})
}

func readPool(sp *libvirt.StoragePool) (Pool, error) {
	text, err := sp.GetXMLDesc(0)
	if err != nil {
		return Pool{}, err
	}
	p, err := parsePool([]byte(text))
	if err != nil {
		return Pool{}, err
	}
	p.Active, err = sp.IsActive()
	return p, err
}

// RefreshPool makes libvirt list the pool's volumes anew. libvirt decides from
// that list, not from the folder, whether a migration's destination exists.
func (c *Client) RefreshPool(ctx context.Context, name string) error {
	_, err := onControl(ctx, c, "refresh pool", name, func(l *link) (none, error) {
		p, err := l.conn.LookupStoragePoolByName(name)
		if err != nil {
			return none{}, err
		}
		defer l.own(p)()
		return none{}, p.Refresh(0)
	})
	return err
}

// parsePool reads a pool's XML; capacity and available are bytes there.
func parsePool(text []byte) (Pool, error) {
	var x struct {
		Type      string `xml:"type,attr"`
		Name      string `xml:"name"`
		UUID      string `xml:"uuid"`
		Capacity  int64  `xml:"capacity"`
		Available int64  `xml:"available"`
		Path      string `xml:"target>path"`
		Source    struct {
			Name  string `xml:"name"`
			Hosts []struct {
				Name string `xml:"name,attr"`
				Port string `xml:"port,attr"`
			} `xml:"host"`
			Dir struct {
				Path string `xml:"path,attr"`
			} `xml:"dir"`
			Devices []struct {
				Path string `xml:"path,attr"`
			} `xml:"device"`
			Format struct {
				Type string `xml:"type,attr"`
			} `xml:"format"`
		} `xml:"source"`
	}
	if err := xml.Unmarshal(text, &x); err != nil {
		return Pool{}, fmt.Errorf("parse pool: %w", err)
	}
	p := Pool{
		Name: x.Name, UUID: x.UUID, Type: x.Type, Path: x.Path, Capacity: x.Capacity, Available: x.Available,
		SourceName: x.Source.Name, SourceDir: x.Source.Dir.Path, SourceFormat: x.Source.Format.Type,
	}
	for _, h := range x.Source.Hosts {
		if h.Port != "" {
			h.Name = net.JoinHostPort(strings.Trim(h.Name, "[]"), h.Port)
		}
		p.SourceHosts = append(p.SourceHosts, h.Name)
	}
	for _, d := range x.Source.Devices {
		p.SourceDevices = append(p.SourceDevices, d.Path)
	}
	return p, nil
}
