package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// words holds the vectors of equal words that exist so far.
var words = map[uint32]Mem{}

// word returns a constant vector of equal 32-bit words, as long as the widest.
func word(x uint32) Mem {
	if m, ok := words[x]; ok {
		return m
	}
	m := GLOBL(fmt.Sprintf("word_%08x", x), 24)
	for i := range avx512.lanes {
		DATA(4*i, U32(x))
	}
	words[x] = m
	return m
}

// number returns a constant vector of equal numbers.
func number(x float64) Mem { return word(math.Float32bits(float32(x))) }

var maskTable *Mem

// masks returns a table of sixteen words, eight set and eight clear: a vector
// loaded 4·(8-n) bytes into it has n words set.
func masks() Mem {
	if maskTable == nil {
		m := GLOBL("tail_masks", 24)
		for i := range 16 {
			v := uint32(0xffffffff)
			if i >= 8 {
				v = 0
			}
			DATA(4*i, U32(v))
		}
		maskTable = &m
	}
	return *maskTable
}
