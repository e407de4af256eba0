// Package template keeps the base images of a host: what is registered, which
// copy lies on which pool, which volume stands on which copy, and that an
// image was downloaded by the host itself, for as long as anyone may ask.
//
// An image becomes a template only by one way: written into a private folder
// that nobody else can name, hashed while it is written, synced, compared with
// its checksum, looked into, made read-only, and only then renamed to its final
// name, where nothing of anybody's is ever replaced. The name carries the
// digest. A copy is ready when the name has reached the disk. Partial folders
// and published files are journalled with path and inode before they appear,
// and nothing else is ever deleted.
//
// A copy comes by attempts. An attempt asks one origin after another: other
// pools of this host and peers for what was ready once, then the URL and its
// mirrors, and at last the peers for what was not. One that fails leaves nothing but why, by code and class (package
// fault), and when the next one is; Run makes that by itself, also where the
// agent was down meanwhile. What an attempt has brought when the agent stops is
// kept with how far it is (package partial), and the next goes on there.
//
// The package knows neither the agent nor libvirt nor HTTP serving: pools, the
// look into an image, where images come from and the store are small
// interfaces.
package template
