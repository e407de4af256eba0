package intake

import (
	"fmt"

	"github.com/wherry-kvm/wherry/template/fault"
)

// refuse is for an image that breaks a rule. It stays refused however often it
// is fetched.
func refuse(why string, args ...any) error { return refusal(fault.Image, why, args...) }

// foreign is for bytes that are something else than was declared, although they
// are those that were asked for: it is not the source's doing.
func foreign(why string, args ...any) error { return refusal(fault.NotAnImage, why, args...) }

// refusal has a leaf for its cause, so that the whole sentence is the deepest
// one: it is what the one who registered the image has to read.
func refusal(code, why string, args ...any) error {
	return &fault.Fault{Code: code, Class: fault.Policy, Permanent: true, Err: fmt.Errorf("image refused: %s", fmt.Sprintf(why, args...))}
}
