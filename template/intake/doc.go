// Package intake decides whether an image may become a template.
//
// An image comes from anybody. Instances will stand on it, QEMU will read it
// as a user that may read other disks, and what it names could be a file of
// this host. So it is looked into in a fixed order, of which each step is safe
// because of those before it:
//
//  1. The bytes lie in a file of the agent's own, written O_EXCL in a private
//     folder, and have the digest that was asked for (the registry sees to it).
//     The file is examined through the descriptor that it was written through:
//     no name is resolved, and nobody can exchange it meanwhile.
//  2. [github.com/wherry-kvm/wherry/template/sniff] tells what the bytes could
//     be taken for. It must be the declared format and nothing else: a raw
//     image that is a qcow2 one for whoever guesses, and a file that is two
//     things at once, are refused by name.
//  3. Our own reader (package volume) reads the qcow2 header and all tables,
//     bounded, and follows no name. What refers to anything outside of the
//     image, or may not be read by all QEMUs alike, is refused.
//  4. Only what passed that is shown to qemu-img, with an explicit format, to
//     find out whether QEMU reads what we read. It runs as an unprivileged
//     user in namespaces without a network, with no environment, under limits
//     of memory, processor time, files and processes, and under a deadline. It
//     is not given the file but a socket, on which it may ask for bytes of the
//     image (NBD, read-only, within a budget): it needs no permission on any
//     file of the host, and the mode of the image does not matter. Of an agent
//     that is not root it runs as the same user and with the host's network; of
//     one that is, but may not make namespaces, it does not run, and nothing is
//     accepted.
//  5. What it says is held against what we read: format, virtual size, and no
//     word of a backing file, a data file, encryption or snapshots. Its exit
//     status alone proves nothing.
//
// The order, and most rules, come from what happened to others: reading host
// files through a backing file (CVE-2011-3147, CVE-2015-5163), through a VMDK
// descriptor (CVE-2022-47951), through an external data file
// (CVE-2024-32498); guessing the format (CVE-2014-0134, CVE-2015-1850,
// CVE-2015-1851, CVE-2024-40767, CVE-2026-24708); virtual sizes that no disk
// holds (CVE-2013-2096); keeping qemu-img busy (CVE-2015-5162); and qemu-img
// itself opening what an unseen header describes (CVE-2024-4467). The format is
// QEMU's docs/interop/qcow2, the protocol of the socket the NBD specification
// (NetworkBlockDevice/nbd, doc/proto.md).
//
// A medium (ISO 9660, UDF) is refused also where it has a partition table and
// boots as a disk (isohybrid): it is two things at once by intent, and what
// installs a system is no base for instances. A disk with an MBR, a GPT, or a
// file system on the whole of it is what raw images are.
//
// What is not done, and why: `qemu-img check` reads all metadata and compares
// refcounts, which takes as long as the image is large. Refcounts matter to who
// writes, and a template is never written; what a reader needs of the tables,
// step 3 has checked. The bytes of the guest are nobody's business here: a
// guest can write a header of another format into any disk at any time, which
// is why every layer's format is given explicitly everywhere else as well.
package intake
