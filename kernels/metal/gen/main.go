// Gen writes params.go: the Go twins of the kernels' parameter structures. It
// runs in the folder of the .metal files.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"graft/kernels/metal/msl"
)

func main() {
	text, err := params(os.DirFS("."))
	if err == nil {
		err = os.WriteFile("params.go", text, 0o666)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// params returns params.go for the .metal files of a folder.
func params(dir fs.FS) ([]byte, error) {
	headers, err := headers(dir)
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(dir, "*.metal")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("// Code generated from the .metal files by gen; DO NOT EDIT.\n\npackage metal\n\nimport \"unsafe\"\n")
	seen := map[string]msl.Struct{}
	for _, name := range names {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		u, err := msl.Parse(name, headers.Replace(headers.Replace(string(text)))) // twice: headers in headers
		if err != nil {
			return nil, err
		}
		for _, s := range u.Structs() {
			was, again := seen[s.Name]
			if again && !reflect.DeepEqual(was, s) {
				return nil, fmt.Errorf("%s: structure %s has other fields in another file", name, s.Name)
			}
			if !again {
				write(&b, name, s)
			}
			seen[s.Name] = s
		}
	}
	return format.Source(b.Bytes())
}

// headers replaces the lines that include a header of the folder by the header.
func headers(dir fs.FS) (*strings.Replacer, error) {
	names, err := fs.Glob(dir, "*.h")
	if err != nil {
		return nil, err
	}
	var pairs []string
	for _, name := range names {
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, "#include \""+name+"\"", string(text))
	}
	return strings.NewReplacer(pairs...), nil
}

// write writes one structure and a line that compiles only if Go gives it the
// size that Metal does.
func write(b *bytes.Buffer, file string, s msl.Struct) {
	fmt.Fprintf(b, "\n// %s is %s of %s.\ntype %[1]s struct {\n", goName(s.Name), s.Name, file)
	for _, f := range s.Fields {
		fmt.Fprintf(b, "%s %s\n", f.Name, goType(f))
	}
	fmt.Fprintf(b, "}\n\nvar _ = [1]struct{}{}[unsafe.Sizeof(%s{})-%d]\n", goName(s.Name), s.Size)
}

// goName is a name with its first letter small.
func goName(name string) string { return strings.ToLower(name[:1]) + name[1:] }

func goType(f msl.Field) string {
	dims := ""
	for _, d := range f.Dims {
		dims += fmt.Sprintf("[%d]", d)
	}
	switch f.Type {
	case "uint":
		return dims + "uint32"
	case "int":
		return dims + "int32"
	case "float":
		return dims + "float32"
	}
	return dims + goName(f.Type)
}
