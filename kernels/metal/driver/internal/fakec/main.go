// Command fakec type-checks packages and their tests as a Mac with cgo would
// build them, on any system: it needs no C compiler, no SDK. What the packages take from C is not
// checked, all else is.
//
//	go run ./kernels/metal/driver/internal/fakec ./...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	n, err := check(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(n, "packages of graft are good for darwin/arm64 with cgo")
}

// listed is a package as go list tells.
type listed struct {
	ImportPath, Dir   string
	GoFiles, CgoFiles []string
	SFiles            []string
	ImportMap         map[string]string
	Standard, DepOnly bool
	ForTest           string
	Error             *struct{ Err string }
}

// check type-checks the packages that go list finds, after all that they
// import, and returns how many they are. Its error has a line for each mistake.
func check(patterns []string) (n int, err error) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-deps", "-test", "-json=ImportPath,Dir,GoFiles,CgoFiles,SFiles,ImportMap,Standard,DepOnly,ForTest,Error"}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	c := checker{token.NewFileSet(), map[string]*types.Package{"unsafe": types.Unsafe}}
	var mistakes []error
	known := map[string]bool{}
	for d := json.NewDecoder(out); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return 0, err
		}
		if strings.HasSuffix(p.ImportPath, ".test") { // the main package that go test writes
			continue
		}
		for _, m := range c.check(&p) {
			if !known[m.Error()] { // a package is checked again with its tests
				known[m.Error()] = true
				mistakes = append(mistakes, m)
			}
		}
		if !p.DepOnly && p.ForTest == "" {
			n++
		}
	}
	if n == 0 {
		mistakes = append(mistakes, errors.New("fakec: no packages"))
	}
	return n, errors.Join(append(mistakes, cmd.Wait())...)
}

// checker holds what has been checked.
type checker struct {
	files *token.FileSet
	done  map[string]*types.Package
}

// check checks one package. Of those that were not asked for, only what they
// declare is looked at, and mistakes in Go's own are not reported: go list may
// come from another version than the parser.
func (c checker) check(p *listed) (mistakes []error) {
	if p.ImportPath == "unsafe" {
		return nil
	}
	if p.Error != nil {
		mistakes = append(mistakes, errors.New(p.Error.Err))
	}
	note := func(err error) {
		if !p.Standard {
			mistakes = append(mistakes, err)
		}
	}
	if len(p.CgoFiles) > 0 && len(p.SFiles) > 0 && !p.Standard {
		note(fmt.Errorf("%s: %s uses cgo: Go does not assemble %s", p.ImportPath, p.CgoFiles[0], p.SFiles[0]))
	}
	var files []*ast.File
	for _, name := range append(p.GoFiles, p.CgoFiles...) {
		f, err := parser.ParseFile(c.files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			note(err)
			continue
		}
		files = append(files, f)
	}
	conf := types.Config{
		Importer: importer{c.done, p.ImportMap}, FakeImportC: true, Sizes: types.SizesFor("gc", "arm64"),
		IgnoreFuncBodies: p.DepOnly, Error: note,
	}
	c.done[p.ImportPath], _ = conf.Check(p.ImportPath, c.files, files, nil) // errors went to note
	return mistakes
}

// importer finds packages that were checked before.
type importer struct {
	done    map[string]*types.Package
	vendors map[string]string
}

func (i importer) Import(path string) (*types.Package, error) {
	if real, ok := i.vendors[path]; ok {
		path = real
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no package %s", path)
}
