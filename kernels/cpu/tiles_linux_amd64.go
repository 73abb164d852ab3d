package cpu

import (
	"sync"

	"golang.org/x/sys/unix"
)

// permitTiles asks for the registers of the unit for matrices, which Linux gives to who asks: they make
// what it saves of a thread ten kilobytes larger.
var permitTiles = sync.OnceValue(func() bool {
	const request, tiles = 0x1023, 18 // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
	_, _, err := unix.RawSyscall(unix.SYS_ARCH_PRCTL, request, tiles, 0)
	return err == 0
})
