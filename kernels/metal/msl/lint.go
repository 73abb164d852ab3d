package msl

import (
	"fmt"
	"regexp"
	"strings"
)

// Lints returns what Metal or the dialect of this project refuses and a C++
// compiler does not, as "file:line: why".
func (u *Unit) Lints() []string { return u.lints }

func (u *Unit) lint(at token, format string, a ...any) {
	u.lints = append(u.lints, fmt.Sprintf("%s:%d: %s", at.file, at.line, fmt.Sprintf(format, a...)))
}

// positions are the attributes of a thread's place, and whether they may be
// vectors.
var positions = map[string]bool{
	"thread_position_in_grid": true, "thread_position_in_threadgroup": true, "threadgroup_position_in_grid": true,
	"threads_per_threadgroup": true, "threadgroups_per_grid": true, "threads_per_grid": true,
	"thread_index_in_threadgroup": false, "thread_index_in_simdgroup": false, "simdgroup_index_in_threadgroup": false,
	"simdgroups_per_threadgroup": false, "threads_per_simdgroup": false,
}

// maxBuffer is the last buffer index that Metal has, maxShared that of
// threadgroup memory here.
const (
	maxBuffer = 30
	maxShared = 7
)

// checkKernel lints a kernel's parameters.
func (u *Unit) checkKernel(name token, k *kernel) {
	used := map[string]bool{}
	width := ""
	buffers, last := 0, param{index: -1}
	for _, p := range k.params {
		at, key := p.toks[0], fmt.Sprint(p.attr, p.index)
		if used[key] {
			u.lint(at, "%s(%d) is used twice", p.attr, p.index)
		}
		used[key] = true
		switch p.attr {
		case "":
			u.lint(at, "parameter %s has no attribute", join(p.toks))
		case "buffer":
			buffers++
			if p.index >= last.index {
				last = p
			}
			u.checkBuffer(at, p)
		case "threadgroup":
			if !has(p.toks, "threadgroup") || !has(p.toks, "*") || p.index < 0 || p.index > maxShared {
				u.lint(at, "%s must be a threadgroup pointer, of index 0 to %d", join(p.toks), maxShared)
			}
		default:
			width = u.checkPosition(at, p, width)
		}
	}
	if last.index != buffers-1 {
		u.lint(name, "kernel %s: buffers are numbered from 0 without gaps", name.s)
	}
	for _, p := range k.params {
		if p.attr == "buffer" && p.reference() && p.index != last.index {
			u.lint(p.toks[0], "parameters are the last buffer")
		}
	}
}

// checkBuffer lints a buffer argument and notes parameter structures.
func (u *Unit) checkBuffer(at token, p param) {
	if p.index < 0 || p.index > maxBuffer {
		u.lint(at, "buffer index %d, Metal has 0 to %d", p.index, maxBuffer)
	}
	if !has(p.toks, "device") && !has(p.toks, "constant") || has(p.toks, "*") == p.reference() {
		u.lint(at, "buffer %s must be a device or constant pointer or reference", join(p.toks))
		return
	}
	if !p.reference() {
		return
	}
	// Several structures share a list of parameters' order: of their use.
	name := p.structure()
	if !has(p.toks, "constant") || u.structs[name] == nil {
		u.lint(at, "%s must be a constant structure of this file", join(p.toks))
		return
	}
	u.params = append(u.params, name)
}

// structure is the name of the type that a reference refers to.
func (p param) structure() string {
	if i := find(p.toks, "&"); i > 0 {
		return p.toks[i-1].s
	}
	return ""
}

// checkPosition lints a position attribute; width is that of those before it.
func (u *Unit) checkPosition(at token, p param, width string) string {
	vector, known := positions[p.attr]
	base := strings.TrimRight(at.s, "23")
	switch w := "v" + at.s[len(base):]; {
	case !known:
		u.lint(at, "attribute %s is not in the dialect", p.attr)
	case base != "uint" && base != "ushort" || !vector && base != at.s:
		u.lint(at, "%s cannot be a %s", p.attr, at.s)
	case vector && width != "" && width != w:
		u.lint(at, "position attributes of one kernel must have one width")
	case vector:
		return w
	}
	return width
}

var forbidden = map[string]string{
	"double": "Metal has no double", "goto": "Metal has no goto", "new": "Metal has no new", "delete": "Metal has no delete",
	"virtual": "Metal has no virtual functions", "dynamic_cast": "Metal has no dynamic_cast", "typeid": "Metal has no typeid",
	"try": "Metal has no exceptions", "catch": "Metal has no exceptions", "throw": "Metal has no exceptions", "noexcept": "Metal has no noexcept",
	"thread_local": "Metal has no thread_local", "register": "Metal has no register", "asm": "Metal has no asm", "std": "Metal has no std",
	"thread_elements": "the layout of a simdgroup matrix is not to be relied on", "wchar_t": "Metal has no wchar_t",
	"vertex": "Metal keyword", "fragment": "Metal keyword", "sampler": "Metal type",
	"INFINITY": "fast math assumes there is none", "NAN": "fast math assumes there is none", "isnan": "fast math assumes there is none",
	"isinf": "fast math assumes there is none", "union": "not in the dialect", "volatile": "not in the dialect", "printf": "Metal has no printf",
}

// checkTokens lints what single tokens and their neighbours show.
func (u *Unit) checkTokens() {
	depth, open := 0, 0 // of braces; the last ( or what ended it
	for i, t := range u.toks {
		switch t.s {
		case "{":
			depth++
		case "}":
			depth--
		case "(", ")", ";":
			open = i
		}
		if why, ok := forbidden[t.s]; ok && t.kind == ident {
			u.lint(t, "%s: %s", t.s, why)
		}
		if t.kind == directive {
			u.checkDirective(t)
		}
		if t.kind == number && !strings.HasPrefix(t.s, "0x") && strings.ContainsAny(t.s, ".eE") && !strings.HasSuffix(t.s, "f") {
			u.lint(t, "%s: write a float literal with f, and half(...) for half", t.s)
		}
		if t.s == "[" && depth > 0 && i > 0 && strings.Contains("( = , return", u.toks[i-1].s) {
			u.lint(t, "lambda")
		}
		// A cast to a pointer must name the space: (float4*)p is thread's.
		if t.s == "*" && is(u.toks, i+1, ")") && depth > 0 && u.toks[open].s == "(" && !hasSpace(u.toks[open:i]) {
			u.lint(t, "cast to a pointer that names no address space")
		}
	}
}

// checkDirective lints a preprocessor line.
func (u *Unit) checkDirective(t token) {
	word, rest, _ := strings.Cut(strings.TrimLeft(t.s[1:], " \t"), " ")
	switch word {
	case "include":
		if !strings.HasPrefix(rest, "<metal_") {
			u.lint(t, "include of %s: a library made from source has only Metal's headers", strings.TrimSpace(rest))
		}
	case "define":
		if kernelRE.MatchString(rest) {
			u.lint(t, "macros do not make kernels")
		}
	}
}

var (
	identRE  = regexp.MustCompile(`^[A-Za-z_]\w*$`)
	kernelRE = regexp.MustCompile(`\bkernel\b`)
)

// checkNames lints host names that two kernels share.
func (u *Unit) checkNames() {
	seen := map[string]bool{}
	for _, e := range u.entries {
		if seen[e.name] {
			u.lint(u.toks[0], "kernel %s is here twice", e.name)
		}
		seen[e.name] = true
	}
}

// checkRecursion lints helpers that reach themselves.
func (u *Unit) checkRecursion() {
	const active, done = 1, 2
	state := map[string]int{}
	var walk func(string)
	walk = func(f string) {
		state[f] = active
		for _, c := range u.order {
			if !u.calls[f][c] {
				continue
			}
			if state[c] == active {
				u.lint(u.defined[c], "%s is recursive", c)
			} else if state[c] != done {
				walk(c)
			}
		}
		state[f] = done
	}
	for _, f := range u.order {
		if state[f] == 0 {
			walk(f)
		}
	}
}
