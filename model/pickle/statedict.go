package pickle

import (
	"fmt"
	"strings"

	"github.com/nlpodyssey/gopickle/types"

	"graft/model/stored"
)

// wrappers are the entries under which training scripts keep the state dict,
// most specific first.
var wrappers = []string{"state_dict", "model_state_dict", "model", "module"}

// maxDepth bounds the descent: a dict can contain itself.
const maxDepth = 4

// item is an entry of a dict.
type item struct{ key, value any }

// stateDict finds the state dict in an object and returns its tensors.
func stateDict(object any) (map[string]*view, error) {
	entries, ok := items(object)
	if !ok {
		return nil, fmt.Errorf("torch: the file holds no dict of tensors: save model.state_dict()")
	}
	for depth := 0; ; depth++ {
		inner, ok := wrapped(entries)
		if !ok {
			return tensors(entries)
		}
		if depth == maxDepth {
			return nil, fmt.Errorf("torch: more than %d dicts inside each other around the tensors", maxDepth)
		}
		entries = inner
	}
}

// items returns the entries of a dict of either kind.
func items(object any) ([]item, bool) {
	var out []item
	switch d := object.(type) {
	case *types.Dict:
		for _, e := range *d {
			out = append(out, item{e.Key, e.Value})
		}
	case *types.OrderedDict:
		for e := d.List.Front(); e != nil; e = e.Next() {
			entry := e.Value.(*types.OrderedDictEntry)
			out = append(out, item{entry.Key, entry.Value})
		}
	default:
		return nil, false
	}
	return out, true
}

// wrapped returns the dict under one of the wrappers.
func wrapped(entries []item) ([]item, bool) {
	for _, w := range wrappers {
		for _, e := range entries {
			if e.key == w {
				if inner, ok := items(e.value); ok {
					return inner, true
				}
			}
		}
	}
	return nil, false
}

// tensors collects the entries that are tensors.
func tensors(entries []item) (map[string]*view, error) {
	out := map[string]*view{}
	for _, e := range entries {
		v, ok := e.value.(*view)
		if !ok {
			continue
		}
		name, ok := e.key.(string)
		if !ok {
			return nil, fmt.Errorf("torch: a tensor whose name is no string")
		}
		if err := stored.CheckName(name); err != nil {
			return nil, fmt.Errorf("torch: a tensor has %w", err)
		}
		if out[name] != nil {
			return nil, fmt.Errorf("torch: tensor %s is there twice", name)
		}
		out[name] = v
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("torch: no tensors in the file%s", listed(entries))
	}
	return out, nil
}

// listed names a few entries, to show what the file has instead.
func listed(entries []item) string {
	const most = 5
	var names []string
	for _, e := range entries {
		if s, ok := e.key.(string); ok && len(names) < most {
			names = append(names, short(s))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ": its entries are " + strings.Join(names, ", ")
}
