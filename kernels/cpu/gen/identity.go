package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// identity is what a processor says of itself.
func identity() {
	TEXT("cpuid", NOSPLIT|NOFRAME, "func(leaf uint32) (a, b, c, d uint32)")
	Doc("cpuid is the instruction of that name, for subleaf 0.")
	Load(Param("leaf"), EAX)
	MOVL(U32(0), ECX)
	CPUID()
	for i, r := range []Register{EAX, EBX, ECX, EDX} {
		Store(r, ReturnIndex(i))
	}
	RET()
}

// pause is for threads that wait.
func pause() {
	TEXT("pause", NOSPLIT|NOFRAME, "func()")
	Doc("pause leaves a core that two threads share to the other for a moment.")
	PAUSE()
	RET()
}
