package msl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Unit is one .metal file, parsed as far as translation needs.
type Unit struct {
	name      string
	src       string
	toks      []token
	edits     []edit
	kernels   map[string]*kernel // by function name
	entries   []entry
	params    []string // parameter structures, in the order of their use
	structs   map[string]*rawStruct
	constants map[string]int // integers at file scope
	tgvars    int
	lints     []string
	calls     map[string]map[string]bool // by function: the names it mentions before ( or <
	defined   map[string]token           // helpers
	order     []string                   // their names, in order
}

// edit replaces a stretch of the source.
type edit struct {
	pos, end int
	s        string
}

// kernel is a kernel function.
type kernel struct {
	params []param
}

// param is one parameter of a kernel.
type param struct {
	attr  string // buffer, threadgroup, or a position attribute
	index int    // of a buffer or threadgroup attribute
	toks  []token
}

func (p param) reference() bool { return has(p.toks, "&") }

// entry is one kernel that the host can call.
type entry struct {
	name, call string // host name, C++ function
	kernel     *kernel
}

// Parse reads a translation unit: a .metal file with its headers in place. An
// error says that it has no structure (brackets, literals, comments); what
// Metal or the dialect would refuse is found by Lints.
func Parse(name, src string) (*Unit, error) {
	toks, err := lex(name, src)
	if err != nil {
		return nil, err
	}
	u := &Unit{
		name: name, src: src, toks: toks, kernels: map[string]*kernel{}, structs: map[string]*rawStruct{},
		constants: map[string]int{}, calls: map[string]map[string]bool{}, defined: map[string]token{},
	}
	for i := 0; i < len(toks); {
		i = u.declaration(i)
	}
	u.words()
	u.checkTokens()
	u.checkParams()
	u.checkNames()
	u.checkRecursion()
	return u, nil
}

// Kernels returns the host names of the unit's kernels, in order.
func (u *Unit) Kernels() []string {
	var out []string
	for _, e := range u.entries {
		out = append(out, e.name)
	}
	return out
}

// words blanks attributes, which mean nothing to other compilers, and turns
// Metal's keywords into macros that no other header can mean. Where the
// declarations have an edit, theirs holds.
func (u *Unit) words() {
	for i, t := range u.toks {
		switch {
		case attribute(u.toks, i):
			u.edit(t.pos, u.toks[i+t.skip].end, "")
		case t.kind == ident && plain(t.s) != t.s:
			u.edit(t.pos, t.end, plain(t.s))
		case t.kind == directive && strings.HasPrefix(t.s, "#define"):
			u.edit(t.pos, t.end, wordRE.ReplaceAllStringFunc(t.s, plain))
		}
	}
}

func (u *Unit) edit(pos, end int, s string) { u.edits = append(u.edits, edit{pos, end, s}) }

// attribute says whether an attribute, [[...]], begins at t[i].
func attribute(t []token, i int) bool {
	return i+1 < len(t) && t[i].s == "[" && t[i+1].s == "["
}

// is says whether there is a token i and it is s.
func is(t []token, i int, s string) bool { return i >= 0 && i < len(t) && t[i].s == s }

func has(t []token, s string) bool { return find(t, s) < len(t) }

// find returns the index of the first token s, or len(t).
func find(t []token, s string) int {
	for i := range t {
		if t[i].s == s {
			return i
		}
	}
	return len(t)
}

var spaces = []string{"device", "constant", "threadgroup", "thread"}

func hasSpace(t []token) bool {
	return slices.ContainsFunc(spaces, func(s string) bool { return has(t, s) })
}

// angle returns the index of the > that closes the < at i, or len(t).
func angle(t []token, i int) int {
	depth := 0
	for ; i < len(t); i++ {
		switch t[i].s {
		case "<":
			depth++
		case ">":
			if depth--; depth == 0 {
				return i
			}
		case ";", "{":
			return len(t)
		}
		i += t[i].skip
	}
	return len(t)
}

// join is the tokens' text.
func join(t []token) string {
	var b strings.Builder
	for i, x := range t {
		if i > 0 && t[i-1].end != x.pos {
			b.WriteByte(' ')
		}
		b.WriteString(plain(x.s))
	}
	return b.String()
}

// split cuts a list at its commas.
func split(t []token) [][]token {
	var out [][]token
	angles, from := 0, 0
	for i := 0; i < len(t); i++ {
		switch t[i].s {
		case "<":
			angles++
		case ">":
			angles--
		case ",":
			if angles == 0 {
				out = append(out, t[from:i])
				from = i + 1
			}
		}
		i += t[i].skip
	}
	if from < len(t) {
		out = append(out, t[from:])
	}
	return slices.DeleteFunc(out, func(t []token) bool { return len(t) == 0 })
}

// unattributed is t without its attributes.
func unattributed(t []token) []token {
	var out []token
	for i := 0; i < len(t); i++ {
		if attribute(t, i) {
			i += t[i].skip
			continue
		}
		out = append(out, t[i])
	}
	return out
}

// declaration reads one file-scope declaration and returns where it ends.
func (u *Unit) declaration(i int) int {
	t := u.toks
	if t[i].kind == directive || t[i].s == ";" || t[i].s == "}" {
		return i + 1
	}
	template, explicit := t[i].s == "template", false
	if template {
		if explicit = !is(t, i+1, "<"); explicit {
			i++
		} else {
			i = angle(t, i+1) + 1
		}
	}
	end, body := i, -1
	for end < len(t) && t[end].s != ";" {
		if t[end].s == "{" {
			body = end
			end += t[end].skip
			if is(t, end+1, ";") {
				end++
			}
			break
		}
		end += t[end].skip + 1
	}
	decl := t[min(i, len(t)):min(end+1, len(t))]
	if len(decl) == 0 {
		return end + 1
	}
	head := decl
	if body >= 0 {
		head = t[i:body]
	}
	signature := unattributed(head)
	function := has(signature, "(")
	switch {
	case explicit:
		u.instantiation(t[i-1], decl)
	case has(signature, "kernel") && body >= 0 && function:
		u.kernel(template, signature, head, t[body:min(end+1, len(t))])
	case decl[0].s == "struct":
		u.structure(decl)
	case decl[0].s == "enum" || decl[0].s == "using" || decl[0].s == "typedef" || decl[0].s == "static_assert":
	case has(signature, "constant") && !function:
		u.constant(decl)
	case body >= 0 && function:
		u.helper(signature, t[body:min(end+1, len(t))])
	case function:
	default:
		u.lint(decl[0], "variable at file scope must be constant")
	}
	return end + 1
}

// constant reads a constant at file scope.
func (u *Unit) constant(d []token) {
	if has(d, "function_constant") {
		u.lint(d[0], "function constants are not in the dialect")
		return
	}
	equals := find(d, "=")
	if equals == len(d) {
		u.lint(d[0], "constant without a value")
		return
	}
	if n, err := strconv.ParseUint(strings.TrimRight(join(d[equals+1:]), "uU;"), 0, 24); err == nil && equals > 0 {
		u.constants[d[equals-1].s] = int(n)
	}
	s := "MSL_CONST"
	if has(d, "constexpr") {
		s = "static"
	}
	word := d[find(d, "constant")]
	u.edit(word.pos, word.end, s)
}

// instantiation reads template [[host_name("n")]] kernel ... f<float>...;
// whose tokens after template are d.
func (u *Unit) instantiation(template token, d []token) {
	name := ""
	if i := find(d, "host_name"); is(d, i+1, "(") && i+2 < len(d) {
		name = strings.Trim(d[i+2].s, `"`)
	}
	call := lastTemplate(d)
	if !identRE.MatchString(name) || len(call) == 0 {
		u.lint(template, "instantiation of a kernel needs host_name and template arguments")
		return
	}
	k, ok := u.kernels[call[0].s]
	if !ok {
		u.lint(template, "no kernel template %s before this", call[0].s)
		return
	}
	u.entries = append(u.entries, entry{name, join(call), k})
	last := len(d)
	if is(d, last-1, ";") {
		last--
	}
	u.edit(template.pos, d[len(d)-1].end, "MSL_INST("+join(unattributed(d[:last]))+")")
}

// lastTemplate returns the tokens of the last f<...> that ; or ( follows.
func lastTemplate(d []token) []token {
	for i := len(d) - 2; i > 0; i-- {
		if d[i].s != ">" || d[i+1].s != ";" && d[i+1].s != "(" {
			continue
		}
		depth := 0
		for j := i; j > 0; j-- {
			if d[j].s == ">" {
				depth++
			} else if d[j].s == "<" {
				if depth--; depth == 0 {
					return d[j-1 : i+1]
				}
			}
		}
	}
	return nil
}

// kernel reads a kernel function; signature is its head without attributes.
func (u *Unit) kernel(template bool, signature, head, body []token) {
	open := 0
	for open < len(head) && head[open].s != "(" {
		if attribute(head, open) {
			open += head[open].skip
		}
		open++
	}
	paren := find(signature, "(")
	if paren < 2 || open >= len(head) {
		u.lint(head[0], "kernel without a name")
		return
	}
	name := signature[paren-1]
	if _, dup := u.kernels[name.s]; dup || name.s == "main" {
		u.lint(name, "kernel %s: kernels are not overloaded, nor called main", name.s)
	}
	if signature[paren-2].s != "void" {
		u.lint(name, "kernel %s must return void", name.s)
	}
	k := &kernel{}
	for _, a := range split(head[open+1 : open+head[open].skip]) {
		if p, ok := u.param(a); ok {
			k.params = append(k.params, p)
		}
	}
	u.checkKernel(name, k)
	u.kernels[name.s] = k
	if !template {
		u.entries = append(u.entries, entry{name.s, name.s, k})
	}
	u.body(name.s, body, true)
}

// param reads one parameter of a kernel.
func (u *Unit) param(a []token) (p param, ok bool) {
	p = param{index: -1, toks: unattributed(a)}
	for i := range a {
		if !attribute(a, i) || i+2 >= len(a) {
			continue
		}
		p.attr = a[i+2].s
		if is(a, i+3, "(") && i+4 < len(a) {
			if n, err := strconv.Atoi(a[i+4].s); err == nil {
				p.index = n
			}
		}
		break
	}
	if len(p.toks) == 0 {
		u.lint(a[0], "parameter without a type")
		return p, false
	}
	return p, true
}

// helper reads any other function.
func (u *Unit) helper(head, body []token) {
	open := find(head, "(")
	if open == 0 {
		u.lint(head[0], "function without a name")
		return
	}
	name := head[open-1].s
	if !has(head[:open], "inline") && !has(head[:open], "METAL_FUNC") && !has(head[:open], "constexpr") {
		u.lint(head[0], "helper %s must be inline", name)
	}
	for _, a := range split(head[open+1 : find(head, ")")]) {
		if (has(a, "*") || has(a, "&")) && !hasSpace(a) {
			u.lint(a[0], "pointer or reference %q names no address space", join(a))
		}
	}
	if _, again := u.defined[name]; !again {
		u.order = append(u.order, name)
		u.defined[name] = head[0]
	}
	u.body(name, body, false)
}

// body rewrites threadgroup variables and notes calls.
func (u *Unit) body(function string, t []token, isKernel bool) {
	if u.calls[function] == nil {
		u.calls[function] = map[string]bool{}
	}
	for i := range t {
		if t[i].kind == ident && (is(t, i+1, "(") || is(t, i+1, "<")) {
			u.calls[function][t[i].s] = true
		}
		if is(t, i-1, "{") || is(t, i-1, "}") || is(t, i-1, ";") {
			u.local(t[i:], isKernel)
		}
	}
}

// local rewrites a threadgroup variable, if t begins with its declaration.
func (u *Unit) local(t []token, isKernel bool) {
	if t[0].s == "static" {
		u.lint(t[0], "static variable in a function")
	}
	at, align := 0, "0"
	if t[0].s == "alignas" && is(t, 1, "(") {
		at = 2 + t[1].skip
		align = join(t[2 : at-1])
	}
	if !is(t, at, "threadgroup") {
		return
	}
	end := at
	for end < len(t) && t[end].s != ";" && t[end].s != "=" {
		end++
	}
	dim := at + find(t[at:end], "[")
	if has(t[at:dim], "*") || has(t[at:dim], "&") {
		return // a pointer
	}
	if end == len(t) || dim-at < 3 {
		u.lint(t[at], "threadgroup variable without a type or a name")
		return
	}
	if !isKernel {
		u.lint(t[at], "threadgroup variable outside a kernel")
	}
	if t[end].s == "=" || has(t[dim:end], ",") {
		u.lint(t[at], "one threadgroup variable a declaration, without a value")
	}
	u.edit(t[0].pos, t[end].pos, fmt.Sprintf("MSL_TG(%d, %s, (%s), %s, %s)",
		u.tgvars, align, join(t[at+1:dim-1]), t[dim-1].s, join(t[dim:end])))
	u.tgvars++
}
