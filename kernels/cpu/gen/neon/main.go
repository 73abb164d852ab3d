// Command neon writes the NEON kernels of package cpu: assembly and its Go
// declarations. Run it with go generate in the folder two above.
//
// It is a small assembler's front: kernels are written with vector registers
// that have no numbers yet, one straight stretch of code gets them at a time
// (assembler.go), and instructions that Go's assembler lacks are written as
// words (instructions.go).
package main

import (
	"flag"
	"log"
	"os"
)

func main() {
	out := flag.String("out", "", "assembly to write")
	stubs := flag.String("stubs", "", "Go declarations to write")
	flag.Parse()
	a := &assembly{}
	a.tiles()
	a.outer()
	a.packing()
	a.maps()
	a.reductions()
	a.activations()
	a.optimizer()
	a.quantised()
	a.dropout()
	a.peak()
	a.pause()
	for name, text := range map[string]string{*out: a.text(), *stubs: a.declarations()} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
