package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
)

// decodeHook reads the spellings that YAML has no type for. Durations and
// sizes are told apart by the Go type of the field: every int64 of a Config is
// a size in bytes.
var decodeHook = mapstructure.ComposeDecodeHookFunc(decodeBool, decodeInt, decodeDuration, decodeSize, decodeList)

var (
	durationType = reflect.TypeFor[time.Duration]()
	poolsType    = reflect.TypeFor[[]Pool]()
	stringsType  = reflect.TypeFor[[]string]()
)

// decodeBool refuses numbers, of which the decoder would take any but 0 as true.
func decodeBool(from, to reflect.Type, data any) (any, error) {
	if to.Kind() == reflect.Bool && from.Kind() != reflect.Bool && from.Kind() != reflect.String {
		return nil, fmt.Errorf("%v is not true or false", data)
	}
	return data, nil
}

// decodeInt refuses what the decoder would round or take for 0 or 1.
func decodeInt(from, to reflect.Type, data any) (any, error) {
	if to.Kind() == reflect.Int && from.Kind() != reflect.Int && from.Kind() != reflect.String {
		return nil, fmt.Errorf("%v is not a whole number", data)
	}
	return data, nil
}

// decodeDuration refuses a bare number: its unit would be a guess.
func decodeDuration(_, to reflect.Type, data any) (any, error) {
	if to != durationType {
		return data, nil
	}
	switch d := data.(type) {
	case time.Duration:
		return d, nil
	case string:
		v, err := time.ParseDuration(d)
		if err != nil {
			return nil, fmt.Errorf("%q is not a duration such as \"90s\"", d)
		}
		return v, nil
	default:
		return nil, fmt.Errorf("%v is not a duration such as \"90s\"", data)
	}
}

func decodeSize(_, to reflect.Type, data any) (any, error) {
	s, text := data.(string)
	if to.Kind() != reflect.Int64 || to == durationType || !text {
		return data, nil
	}
	return ParseSize(s)
}

// decodeList reads the lists of the environment and of --set: words split at
// commas, and pools as name=identity.
func decodeList(_, to reflect.Type, data any) (any, error) {
	s, text := data.(string)
	if !text || to != stringsType && to != poolsType {
		return data, nil
	}
	words := []string{}
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	if to == stringsType {
		return words, nil
	}
	pools := []Pool{}
	for _, word := range words {
		name, identity, found := strings.Cut(word, "=")
		if !found {
			return nil, fmt.Errorf("%q is not name=identity", word)
		}
		pools = append(pools, Pool{name, identity})
	}
	return pools, nil
}

// decodeFaults turns the decoder's errors into one line for each key.
func decodeFaults(err error) error {
	if many, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		var faults []error
		for _, e := range many.Unwrap() {
			faults = append(faults, decodeFaults(e))
		}
		return errors.Join(faults...)
	}
	if one, ok := errors.AsType[*mapstructure.DecodeError](err); ok {
		return decodeFault(one)
	}
	return err
}

func decodeFault(e *mapstructure.DecodeError) error {
	if odd, ok := errors.AsType[*mapstructure.UnconvertibleTypeError](e); ok {
		return fmt.Errorf("%s: %v is not %s", e.Name(), odd.Value, plainType(odd.Expected.Type()))
	}
	if odd, ok := errors.AsType[*mapstructure.ParseError](e); ok {
		return fmt.Errorf("%s: %q is not %s", e.Name(), odd.Value, plainType(odd.Expected.Type()))
	}
	// The innermost decode error knows the whole path of the key.
	if inner, ok := errors.AsType[*mapstructure.DecodeError](e.Unwrap()); ok {
		return decodeFault(inner)
	}
	return fmt.Errorf("%s: %w", e.Name(), e.Unwrap())
}

// plainType names a type as the documentation does.
func plainType(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Int64:
		return "a size"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Struct:
		return "a section"
	default:
		return "text"
	}
}
