package http_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	wherry "github.com/wherry-kvm/wherry/http"
	"github.com/wherry-kvm/wherry/http/api"
	"github.com/wherry-kvm/wherry/template/fault"
)

func TestEveryRouteIsDescribedAndEveryDescriptionIsARoute(t *testing.T) {
	server, err := wherry.New(newAgent(t).options)
	if err != nil {
		t.Fatal(err)
	}
	var served, described []string
	parameter := regexp.MustCompile(`:([a-z]+)`)
	for _, r := range server.Routes() {
		served = append(served, r[0]+" "+parameter.ReplaceAllString(r[1], "{$1}"))
	}
	for path, item := range theContract(t).doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if d := cmp.Diff(served, described); d != "" {
		t.Errorf("served (-) and described (+): %s", d)
	}
}

func TestEveryCodeIsDescribed(t *testing.T) {
	var described []string
	schema := theContract(t).doc.Components.Schemas["ProblemCode"].Value
	for _, v := range schema.Enum {
		described = append(described, v.(string))
	}
	codes := api.Codes()
	slices.Sort(codes)
	if d := cmp.Diff(codes, described); d != "" {
		t.Errorf("codes (-) and described (+): %s", d)
	}
	for _, code := range codes {
		p := api.NewProblem(code, "x")
		row := regexp.MustCompile("(?m)^\\| `" + code + "` \\| ([0-9]+) \\| (.*) \\|$").FindStringSubmatch(schema.Description)
		if row == nil || row[1] != strconv.Itoa(p.Status) || row[2] != p.Title {
			t.Errorf("the table says %q of %q, which is %d %q", row, code, p.Status, p.Title)
		}
	}
}

func TestEveryFaultIsDescribed(t *testing.T) {
	table := theContract(t).doc.Components.Schemas["FaultCode"].Value.Description
	var described []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([a-z]+)[a-z, ]* \\| .").FindAllStringSubmatch(table, -1) {
		described = append(described, row[1])
		if want := string(fault.ClassOf(row[1])); row[2] != want {
			t.Errorf("the table says that %s is of the class %s, not %s", row[1], row[2], want)
		}
	}
	slices.Sort(described)
	if d := cmp.Diff(fault.Codes(), described); d != "" {
		t.Errorf("codes (-) and described (+): %s", d)
	}
}

// TestTypesAndSchemasAgree reads the types' source, so that no type can be
// forgotten: fields by name and kind, both ways.
func TestTypesAndSchemasAgree(t *testing.T) {
	types := wireTypes(t)
	// What the description has beside the types: words and patterns.
	words := []string{
		"InstanceName", "NewName", "ProjectName", "Identifier", "DiskTarget", "UUID", "Checksum", "Duration", "Nothing", "ProblemCode", "FaultCode",
	}
	var described []string
	for name := range theContract(t).doc.Components.Schemas {
		if !slices.Contains(words, name) {
			described = append(described, name)
		}
	}
	slices.Sort(described)
	if d := cmp.Diff(slices.Sorted(maps.Keys(types)), described); d != "" {
		t.Fatalf("types (-) and schemas (+): %s", d)
	}
	for name, fields := range types {
		schema := theContract(t).doc.Components.Schemas[name].Value
		got := map[string]string{}
		for field, ref := range schema.Properties {
			property := ref.Value
			if len(property.AllOf) > 0 {
				property = property.AllOf[0].Value
			}
			got[field] = strings.Join(property.Type.Slice(), ",")
		}
		if d := cmp.Diff(fields, got); d != "" {
			t.Errorf("%s: type (-) and schema (+): %s", name, d)
		}
		for _, field := range schema.Required {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s requires %q, which is no field", name, field)
			}
		}
	}
}

// wireTypes gives the struct types of http/api: JSON name to JSON kind.
func wireTypes(t *testing.T) map[string]map[string]string {
	t.Helper()
	files, err := filepath.Glob("api/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no types: %v", err)
	}
	out := map[string]map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				if fields := jsonFields(s); len(fields) > 0 && spec.Name.Name != "Ref" { // a Ref is path and query
					out[spec.Name.Name] = fields
				}
			}
			return false
		})
	}
	return out
}

func jsonFields(s *ast.StructType) map[string]string {
	out := map[string]string{}
	for _, f := range s.Fields.List {
		if f.Tag == nil {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
		if name != "" && name != "-" {
			out[name] = jsonKind(f.Type)
		}
	}
	return out
}

func jsonKind(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return jsonKind(e.X)
	case *ast.ArrayType:
		return "array"
	case *ast.MapType:
		return "object"
	case *ast.SelectorExpr:
		if e.Sel.Name == "RawMessage" {
			return "" // anything
		}
		return "string" // time.Time
	case *ast.Ident:
		switch e.Name {
		case "string", "Duration":
			return "string"
		case "bool":
			return "boolean"
		case "int", "int64", "uint64":
			return "integer"
		case "float64":
			return "number"
		}
	}
	return "object"
}

func TestContractIsServed(t *testing.T) {
	a := newAgent(t)
	a.serve(t, wherry.Listeners{})
	got, err := a.client(t).OpenAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the served description is not the file")
	}
}
