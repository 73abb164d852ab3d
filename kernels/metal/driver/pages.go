package driver

// worthMapping is the size from which memory is used in place: setting up a
// mapping takes the time of copying about as much.
const worthMapping = 1 << 18

// window says how the GPU can see n bytes at an address in place: through the
// whole pages that hold them, size bytes from start on, where they begin at
// byte before. ok is false where they must be copied: they are few, or begin
// where words cannot be read.
//
// The bytes around, which the pages hold as well, are never touched: bindings
// are checked against n. They can be seen without a fault, because a page of
// which a byte is mapped is mapped whole, also beyond the end of a file.
func window(address uintptr, n, page int) (start uintptr, size, before int, ok bool) {
	if n < worthMapping || address%4 != 0 {
		return 0, 0, 0, false
	}
	before = int(address % uintptr(page))
	return address - uintptr(before), roundUp(before+n, page), before, true
}

// roundUp returns the multiple of a page that holds n bytes, at least one page.
func roundUp(n, page int) int { return max(page, (n+page-1)/page*page) }
