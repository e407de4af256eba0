package api

// Idempotency identifies a request that changes state: the same Key with the
// same Fingerprint (a digest of method, path and body) is the same request and
// gets the same operation. An empty Key means that the caller sent none.
type Idempotency struct {
	Key         string
	Fingerprint string
}
