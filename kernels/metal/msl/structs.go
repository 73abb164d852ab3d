package msl

import (
	"slices"
	"strconv"
	"strings"
)

// Struct is a kernel's parameter structure, or one inside it: fields of 4
// bytes, one after the other.
type Struct struct {
	Name   string
	Fields []Field
	Size   int // bytes
}

// Field is one field of a Struct.
type Field struct {
	Name string
	Type string // uint, int, float, or the name of a Struct
	Dims []int  // of an array
}

// rawStruct is a structure as it was found.
type rawStruct struct {
	at     token
	fields []Field
	bad    string // why it cannot hold parameters
}

// Structs returns the parameter structures of the unit's kernels, those that
// others contain before them.
func (u *Unit) Structs() []Struct {
	var out []Struct
	done := map[string]bool{}
	for _, name := range u.params {
		u.resolve(name, done, &out)
	}
	return out
}

// resolve appends the structure and those in it to out.
func (u *Unit) resolve(name string, done map[string]bool, out *[]Struct) {
	raw, ok := u.structs[name]
	if !ok || done[name] {
		return
	}
	done[name] = true // first: a structure that contains itself ends here
	size := 0
	for _, f := range raw.fields {
		u.resolve(f.Type, done, out)
		size += f.count() * sizeOf(f.Type, *out)
	}
	*out = append(*out, Struct{name, raw.fields, size})
}

func sizeOf(typ string, structs []Struct) int {
	if i := slices.IndexFunc(structs, func(s Struct) bool { return s.Name == typ }); i >= 0 {
		return structs[i].Size
	}
	return 4
}

// count is the number of elements.
func (f Field) count() int {
	n := 1
	for _, d := range f.Dims {
		n *= d
	}
	return n
}

// structure notes struct Name { fields };
func (u *Unit) structure(d []token) {
	open := find(d, "{")
	if open < 2 || open == len(d) {
		return
	}
	r := &rawStruct{at: d[1]}
	body := d[open+1 : open+d[open].skip]
	for len(body) > 0 {
		end := 0
		for end < len(body) && body[end].s != ";" {
			end += body[end].skip + 1
		}
		end = min(end, len(body))
		u.fields(r, body[:end])
		body = body[min(end+1, len(body)):]
	}
	u.structs[d[1].s] = r
}

// maxDim keeps sizes far from overflow: parameters have at most 4096 bytes.
const maxDim = 1024

// fields reads one declaration of a structure: uint a, b[4];
func (u *Unit) fields(r *rawStruct, t []token) {
	if len(t) < 2 {
		return
	}
	for _, d := range split(t[1:]) {
		f := Field{Name: d[0].s, Type: t[0].s}
		if d[0].kind != ident || strings.Contains(f.Name, "_") {
			r.bad = "field " + f.Name + ": names are camelCase without underscores"
		}
		for i := 1; i < len(d); i += d[i].skip + 1 {
			n := 0
			if d[i].skip == 2 && d[i].s == "[" {
				n = u.integer(d[i+1].s)
			}
			if n < 1 || n > maxDim || len(f.Dims) == 2 {
				r.bad = "field " + f.Name + ": an array's length is a number or a constant, 1 to 1024"
				n = 1
			}
			f.Dims = append(f.Dims, n)
		}
		r.fields = append(r.fields, f)
	}
}

// integer is the value of a literal or of a constant at file scope, or 0.
func (u *Unit) integer(s string) int {
	if n, ok := u.constants[s]; ok {
		return n
	}
	n, err := strconv.Atoi(strings.TrimRight(s, "uU"))
	if err != nil {
		return 0
	}
	return n
}

// maxParams is how many bytes of parameters Metal takes with a launch.
const maxParams = 4096

// checkParams lints the parameter structures.
func (u *Unit) checkParams() {
	for _, s := range u.Structs() {
		raw := u.structs[s.Name]
		if raw.bad != "" {
			u.lint(raw.at, "%s: %s", s.Name, raw.bad)
		}
		if s.Size == 0 || s.Size > maxParams {
			u.lint(raw.at, "%s: %d bytes, parameters have 4 to %d", s.Name, s.Size, maxParams)
		}
		for _, f := range s.Fields {
			nested := u.structs[f.Type] != nil && f.Type != s.Name
			if !nested && f.Type != "uint" && f.Type != "int" && f.Type != "float" {
				u.lint(raw.at, "%s: field %s is a %s; parameters are uint, int and float", s.Name, f.Name, f.Type)
			}
		}
	}
}
