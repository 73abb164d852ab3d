// Package msl reads the dialect of Metal's shading language that graft's
// kernels are written in, and makes C++ of it.
//
// A kernel's C++ is the source itself with attributes, keywords and threadgroup
// variables rewritten in place, so that lines keep their numbers, and one line
// of glue (MSL_ENTRY) for each kernel that the host can call. A prelude gives
// the macros their meaning: package emulator has one that runs kernels on the
// CPU and one that only checks types.
//
//	u, err := msl.Parse("softmax.metal", source) // headers in place
//	u.Lints()                                    // what Metal would refuse
//	u.Structs()                                  // the parameters, for the host
//	u.Translate()                                // C++
package msl

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
)

var wordRE = regexp.MustCompile(`\w+`)

// keywords become macros.
var keywords = map[string]string{
	"device": "MSL_DEVICE", "constant": "MSL_CONSTANT", "threadgroup": "MSL_THREADGROUP", "thread": "MSL_THREAD",
	"kernel": "MSL_KERNEL", "inline": "MSL_INLINE", "METAL_FUNC": "MSL_INLINE",
}

func plain(s string) string {
	if k, ok := keywords[s]; ok {
		return k
	}
	return s
}

// Translate returns the unit as C++.
func (u *Unit) Translate() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#include <metal_stdlib>\nMSL_BEGIN\n#line 1 %q\n", u.name)
	u.apply(&b)
	fmt.Fprintf(&b, "\n#line 1 \"%s.entries\"\n", u.name)
	sizes := map[string]int{}
	for _, s := range u.Structs() {
		sizes[s.Name] = s.Size
		fmt.Fprintf(&b, "static_assert(sizeof(%s) == %d, \"%s has other fields\");\n", s.Name, s.Size, s.Name)
	}
	for _, e := range u.entries {
		b.WriteString(e.glue(sizes))
	}
	b.WriteString("MSL_END\n")
	return b.String()
}

// apply writes the source with its edits made.
func (u *Unit) apply(b *strings.Builder) {
	sort.SliceStable(u.edits, func(i, j int) bool {
		a, b := u.edits[i], u.edits[j]
		return a.pos < b.pos || a.pos == b.pos && a.end > b.end
	})
	at := 0
	for _, e := range u.edits {
		if e.pos < at { // inside a larger edit, or replaced by an earlier one
			continue
		}
		b.WriteString(u.src[at:e.pos])
		b.WriteString(e.s)
		lost := strings.Count(u.src[e.pos:e.end], "\n") - strings.Count(e.s, "\n")
		b.WriteString(strings.Repeat("\n", max(lost, 0))) // lines keep their numbers
		at = e.end
	}
	b.WriteString(u.src[at:])
}

// glue is the line that lets the host call a kernel. Its string says what the
// arguments are: 0r is buffer(0), read only; 1w may be written; 2c24 is a
// constant structure of 24 bytes; t0 is threadgroup(0).
func (e entry) glue(sizes map[string]int) string {
	var args, call []string
	for _, p := range e.kernel.params {
		switch {
		case p.attr == "buffer" && p.reference():
			args = append(args, fmt.Sprintf("%dc%d", p.index, sizes[p.structure()]))
			call = append(call, fmt.Sprintf("MSL_REF(%d)", p.index))
		case p.attr == "buffer":
			mode := "w"
			if has(p.toks, "const") || has(p.toks, "constant") {
				mode = "r"
			}
			args = append(args, fmt.Sprintf("%d%s", p.index, mode))
			call = append(call, fmt.Sprintf("MSL_BUF(%d)", p.index))
		case p.attr == "threadgroup":
			args = append(args, fmt.Sprintf("t%d", p.index))
			call = append(call, fmt.Sprintf("MSL_TGM(%d)", p.index))
		default:
			call = append(call, "MSL_AT_"+p.attr)
		}
	}
	return fmt.Sprintf("MSL_ENTRY(%s, %q, (%s(%s)))\n", e.name, strings.Join(args, " "), e.call, strings.Join(call, ", "))
}
