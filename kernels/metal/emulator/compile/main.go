// Compile builds the emulator of the Metal kernels and prints its path, for
//
//	GRAFT_METAL_EMULATOR=$(go run ./kernels/metal/emulator/compile) train -set backend=metal …
package main

import (
	"flag"
	"fmt"
	"os"

	"graft/kernels/metal/emulator"
)

func main() {
	checked := flag.Bool("checked", false, "check every access of every kernel, which takes a hundred times as long")
	flag.Parse()
	mode := emulator.Fast
	if *checked {
		mode = emulator.Checked
	}
	program, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Mode: mode})
	if err != nil {
		fmt.Fprintln(os.Stderr, "compile:", err)
		os.Exit(1)
	}
	fmt.Println(program)
}
