package harness

import (
	"encoding/xml"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
	"text/template"
)

// Domain describes a guest of the lab: emulated, booted from the lab's kernel, its console logged.
type Domain struct {
	Name      string
	UUID      string // chosen by libvirt where empty
	Machine   string // known to both suites; pc-i440fx-7.2 where empty
	MemoryMiB int    // 128 where 0
	Options   string // for the guest, for instance "wherry.pace=20ms"
	Disks     []Disk
	Extra     string // further XML inside <devices>
}

// Disk is one disk of a Domain.
type Disk struct {
	Target   string // "vda"; the letter before last chooses the bus
	Source   string // a path of the host, iscsi://ADDRESS/IQN/LUN, or empty for an empty drive
	Format   string // qcow2 where empty
	Device   string // "disk" where empty, or "cdrom"
	Cache    string // libvirt's default where empty
	ReadOnly bool
	Backing  string // XML of a <backingStore>, where the test wants to say
	Extra    string // further XML inside <disk>
}

// XML is the domain as libvirt takes it.
func (d Domain) XML() string {
	if d.Machine == "" {
		d.Machine = "pc-i440fx-7.2"
	}
	if d.MemoryMiB == 0 {
		d.MemoryMiB = 128
	}
	var out strings.Builder
	if err := domainTemplate.Execute(&out, d); err != nil {
		panic(err) // the template is ours
	}
	return out.String()
}

// Without no_timer_check the kernel panics on a busy machine: it takes a timer that comes late for a broken one.
// The processor model is one that both suites' QEMUs emulate alike, so that instances cross between them.
var domainTemplate = template.Must(template.New("domain").Funcs(template.FuncMap{"x": escape}).Parse(`<domain type='qemu'>
  <name>{{x .Name}}</name>
{{- with .UUID}}
  <uuid>{{x .}}</uuid>
{{- end}}
  <memory unit='MiB'>{{.MemoryMiB}}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{{x .Machine}}'>hvm</type>
    <kernel>/srv/guest/vmlinuz</kernel>
    <initrd>/srv/guest/initrd.img</initrd>
    <cmdline>console=ttyS0 quiet loglevel=1 no_timer_check{{with .Options}} {{x .}}{{end}}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <on_crash>destroy</on_crash>
  <devices>
{{- range .Disks}}
    <disk type='{{.Type}}' device='{{.DeviceName}}'>
      <driver name='qemu' type='{{.FormatName}}'{{with .Cache}} cache='{{x .}}'{{end}}/>
{{- with .SourceXML}}
      {{.}}
{{- end}}
{{- with .Backing}}
      {{.}}
{{- end}}
      <target dev='{{x .Target}}' bus='{{.Bus}}'/>
{{- if .ReadOnly}}
      <readonly/>
{{- end}}
{{- with .Extra}}
      {{.}}
{{- end}}
    </disk>
{{- end}}
    <controller type='scsi' model='virtio-scsi'/>
    <controller type='usb' model='none'/>
    <serial type='pty'>
      <log file='/var/log/wherry-guest/{{x .Name}}.log' append='on'/>
      <target port='0'/>
    </serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
{{- with .Extra}}
    {{.}}
{{- end}}
  </devices>
</domain>
`))

func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text)) // a strings.Builder does not fail
	return out.String()
}

// Type is the type attribute of the disk.
func (d Disk) Type() string {
	switch {
	case strings.HasPrefix(d.Source, "iscsi://"):
		return "network"
	case strings.HasPrefix(d.Source, "/dev/"):
		return "block"
	}
	return "file"
}

// DeviceName is the device attribute of the disk.
func (d Disk) DeviceName() string {
	if d.Device == "" {
		return "disk"
	}
	return d.Device
}

// FormatName is the format of the disk's active layer.
func (d Disk) FormatName() string {
	if d.Format == "" {
		return "qcow2"
	}
	return d.Format
}

// Bus follows from the target's name, as in libvirt.
func (d Disk) Bus() string {
	switch {
	case strings.HasPrefix(d.Target, "sd"):
		return "scsi"
	case strings.HasPrefix(d.Target, "hd"):
		return "ide"
	}
	return "virtio"
}

// SourceXML is the <source> element, empty for an empty drive.
func (d Disk) SourceXML() string {
	switch d.Type() {
	case "network":
		return iscsiSource(d.Source)
	case "block":
		return fmt.Sprintf("<source dev='%s'/>", escape(d.Source))
	}
	if d.Source == "" {
		return ""
	}
	return fmt.Sprintf("<source file='%s'/>", escape(d.Source))
}

// iscsiSource turns iscsi://ADDRESS[:PORT]/IQN/LUN into libvirt's words.
func iscsiSource(source string) string {
	u, err := url.Parse(source)
	if err != nil {
		panic(fmt.Sprintf("harness: disk source %q: %v", source, err))
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		host, port = u.Host, "3260"
	}
	return fmt.Sprintf("<source protocol='iscsi' name='%s'><host name='%s' port='%s'/></source>",
		escape(path.Clean(u.Path)[1:]), escape(host), escape(port))
}
