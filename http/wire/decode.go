package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// maxDepth bounds the nesting of a body. The deepest request has 6 levels.
const maxDepth = 32

// FieldError says which part of a body is wrong. Field is a path such as
// "disks[0].target", empty when the whole body is meant.
type FieldError struct {
	Field  string
	Detail string
}

// Error gives the field and what is wrong with it.
func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Detail
	}
	return fmt.Sprintf("field %q: %s", e.Field, e.Detail)
}

// Unmarshal decodes one JSON value into dst, a pointer. Unlike encoding/json
// it refuses unknown fields, names in another case, duplicate names, null for
// a value that cannot be absent, and anything after the value: each of these
// is a caller's mistake that would otherwise pass in silence. It returns a
// [*FieldError]; dst is then to be thrown away.
func Unmarshal(b []byte, dst any) error {
	var raw json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return &FieldError{Detail: syntax(err)}
	}
	if err := check(raw, reflect.TypeOf(dst).Elem(), "", 0); err != nil {
		return err
	}
	if err := json.Unmarshal(b, dst); err != nil {
		return &FieldError{Detail: err.Error()}
	}
	return nil
}

func syntax(err error) string {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("not JSON, at byte %d: %s", e.Offset, e)
	}
	return "not JSON: " + err.Error()
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// check compares one JSON value with type t.
func check(raw json.RawMessage, t reflect.Type, path string, depth int) error {
	if depth > maxDepth {
		return &FieldError{Field: path, Detail: "nested too deeply"}
	}
	raw = bytes.TrimSpace(raw)
	null := string(raw) == "null"
	switch {
	case null && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map):
		return nil
	case t.Kind() == reflect.Pointer:
		return check(raw, t.Elem(), path, depth)
	case null:
		return &FieldError{Field: path, Detail: "may be left out, but not be null"}
	case reflect.PointerTo(t).Implements(unmarshaler):
		return leaf(raw, t, path)
	case t.Kind() == reflect.Struct:
		return object(raw, path, depth, fieldsOf(t))
	case t.Kind() == reflect.Map:
		return object(raw, path, depth, func(string) (reflect.Type, bool) { return t.Elem(), true })
	case t.Kind() == reflect.Slice:
		return list(raw, t.Elem(), path, depth)
	}
	return leaf(raw, t, path)
}

// leaf tries the value on its own, so that the error can name its path.
func leaf(raw json.RawMessage, t reflect.Type, path string) error {
	err := json.Unmarshal(raw, reflect.New(t).Interface())
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &FieldError{Field: path, Detail: fmt.Sprintf("is a %s, must be %s", e.Value, wants(t))}
	}
	return &FieldError{Field: path, Detail: err.Error()}
}

func object(raw json.RawMessage, path string, depth int, typeOf func(string) (reflect.Type, bool)) error {
	if raw[0] != '{' {
		return &FieldError{Field: path, Detail: "must be an object"}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return &FieldError{Field: path, Detail: syntax(err)}
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return &FieldError{Field: path, Detail: syntax(err)}
		}
		name, _ := token.(string)
		field := strings.TrimPrefix(path+"."+name, ".")
		if seen[name] {
			return &FieldError{Field: field, Detail: "is given twice"}
		}
		seen[name] = true
		t, known := typeOf(name)
		if !known {
			return &FieldError{Field: field, Detail: "is not known here"}
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return &FieldError{Field: field, Detail: syntax(err)}
		}
		if err := check(value, t, field, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func list(raw json.RawMessage, elem reflect.Type, path string, depth int) error {
	var values []json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return &FieldError{Field: path, Detail: "must be a list"}
	}
	for i, value := range values {
		if err := check(value, elem, fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf looks a struct's fields up by their exact JSON names. The types of
// http/api embed nothing.
func fieldsOf(t reflect.Type) func(string) (reflect.Type, bool) {
	types := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && name != "" && name != "-" {
			types[name] = f.Type
		}
	}
	return func(name string) (reflect.Type, bool) { t, ok := types[name]; return t, ok }
}

func wants(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, not negative"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number within range"
	}
	return t.String()
}
