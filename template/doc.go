// Package template keeps the base images of a host: what is registered, which
// copy lies on which pool, which volume stands on which copy, and that an
// image was downloaded by the host itself, for as long as anyone may ask.
//
// An image becomes a template only by one way: written to a partial file that
// nobody else can name, hashed while it is written, compared with its
// checksum, looked into, and only then renamed to its final name, read-only,
// where nothing is ever replaced. The name carries the digest. Partial and
// published files are journalled with path and inode before they appear, and
// nothing else is ever deleted.
//
// The package knows neither the agent nor libvirt nor HTTP serving: pools, the
// look into an image, the download and the store are small interfaces.
package template
