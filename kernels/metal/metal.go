// Package metal runs programs on a GPU through the kernels in its .metal files.
package metal

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:generate go run ./gen

//go:embed *.metal *.h
var files embed.FS

// Source is one translation unit: a .metal file with its headers in place.
type Source struct {
	Name string // "softmax.metal"
	Text string
}

// Sources returns the kernels, by file. Metal compiles strings, which have no
// folder to find headers in: an #include "x.h" is replaced by the header, with
// #line directives so that messages name the right file.
func Sources() []Source {
	names, err := fs.Glob(files, "*.metal")
	if err != nil {
		panic(err)
	}
	var out []Source
	for _, name := range names {
		out = append(out, Source{name, expand(name, read(name))})
	}
	return out
}

func read(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// expand replaces the lines that include a file of this folder.
func expand(name, text string) string {
	var b strings.Builder
	for i, line := range strings.SplitAfter(text, "\n") {
		header, ok := strings.CutPrefix(strings.TrimSpace(line), "#include \"")
		if !ok {
			b.WriteString(line)
			continue
		}
		header = strings.TrimSuffix(header, "\"")
		fmt.Fprintf(&b, "#line 1 %q\n%s\n#line %d %q\n", header, expand(header, read(header)), i+2, name)
	}
	return b.String()
}
