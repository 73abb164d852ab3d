package emulator

import (
	"debug/dwarf"
	"debug/elf"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// placeRE matches an address as the runtime writes it: where a call returns to.
var placeRE = regexp.MustCompile(`<pc:([0-9a-f]+)>`)

// locate replaces addresses in a report by file:line.
func locate(program, text string) string {
	var data *dwarf.Data
	if f, err := elf.Open(program); err == nil {
		defer f.Close()
		data, _ = f.DWARF()
	}
	return placeRE.ReplaceAllStringFunc(text, func(s string) string {
		pc, err := strconv.ParseUint(placeRE.FindStringSubmatch(s)[1], 16, 64)
		if err != nil || data == nil {
			return "?"
		}
		return place(data, pc-1)
	})
}

// frame is one source line that an address belongs to.
type frame struct {
	file string
	line int
}

func (f frame) String() string { return fmt.Sprintf("%s:%d", filepath.Base(f.file), f.line) }

// place is the line of the kernels that the address belongs to: the innermost
// that is not the prelude's, functions that were inlined included.
func place(data *dwarf.Data, pc uint64) string {
	all := frames(data, pc)
	for _, f := range all {
		if !strings.HasPrefix(filepath.Base(f.file), "msl_") {
			return f.String()
		}
	}
	if len(all) > 0 {
		return all[0].String()
	}
	return "?"
}

// frames are the lines that the address belongs to, the innermost first.
func frames(data *dwarf.Data, pc uint64) []frame {
	r := data.Reader()
	unit, err := r.SeekPC(pc)
	if err != nil {
		return nil
	}
	lines, err := data.LineReader(unit)
	if err != nil || lines == nil {
		return nil
	}
	var entry dwarf.LineEntry
	if err := lines.SeekPC(pc, &entry); err != nil {
		return nil
	}
	calls := inlined(data, r, pc, lines.Files())
	out := []frame{{entry.File.Name, entry.Line}}
	for i := len(calls) - 1; i >= 0; i-- {
		out = append(out, calls[i])
	}
	return out
}

// inlined returns where the inlined functions around the address are called,
// the outermost first. r is at the start of the compilation unit's children.
func inlined(data *dwarf.Data, r *dwarf.Reader, pc uint64, files []*dwarf.LineFile) []frame {
	var calls []frame
	for {
		e, err := r.Next()
		if err != nil || e == nil || e.Tag == dwarf.TagCompileUnit {
			return calls
		}
		switch e.Tag {
		case dwarf.TagNamespace:
			continue
		case dwarf.TagSubprogram, dwarf.TagInlinedSubroutine, dwarf.TagLexDwarfBlock:
			if !contains(data, e, pc) {
				break
			}
			file, ok := e.Val(dwarf.AttrCallFile).(int64)
			line, ok2 := e.Val(dwarf.AttrCallLine).(int64)
			if ok && ok2 && file >= 0 && file < int64(len(files)) && files[file] != nil {
				calls = append(calls, frame{files[file].Name, int(line)})
			}
			continue
		}
		r.SkipChildren()
	}
}

func contains(data *dwarf.Data, e *dwarf.Entry, pc uint64) bool {
	ranges, err := data.Ranges(e)
	if err != nil {
		return false
	}
	for _, r := range ranges {
		if pc >= r[0] && pc < r[1] {
			return true
		}
	}
	return false
}
