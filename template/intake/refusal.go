package intake

import (
	"fmt"

	"github.com/wherry-kvm/wherry/template"
	"github.com/wherry-kvm/wherry/template/fault"
)

// refusal is a leaf of its chain of errors, so that its sentence is the deepest
// cause: what is to be read by the one who registered the image.
type refusal string

func (r refusal) Error() string { return "image refused: " + string(r) }

// Is lets callers of the registry recognise a refusal.
func (r refusal) Is(target error) bool { return target == template.ErrImage }

// refuse is for an image that breaks a rule. It stays refused however often it
// is fetched.
func refuse(why string, args ...any) error {
	return &fault.Fault{Code: fault.Image, Class: fault.Policy, Permanent: true, Err: refusal(fmt.Sprintf(why, args...))}
}

// foreign is for bytes that are something else than was declared.
func foreign(why string, args ...any) error {
	return &fault.Fault{Code: fault.NotAnImage, Class: fault.Policy, Permanent: true, Err: refusal(fmt.Sprintf(why, args...))}
}
