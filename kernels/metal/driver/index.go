package driver

import (
	"fmt"
	"regexp"

	"graft/kernels/metal"
)

var hostName = regexp.MustCompile(`host_name\("([^"]+)"\)`)

// index returns which source, by its place in the list, holds each kernel.
func index(sources []metal.Source) (map[string]int, error) {
	of := map[string]int{}
	for i, s := range sources {
		for _, m := range hostName.FindAllStringSubmatch(s.Text, -1) {
			if first, twice := of[m[1]]; twice {
				return nil, fmt.Errorf("metal: kernel %s is both in %s and in %s", m[1], sources[first].Name, s.Name)
			}
			of[m[1]] = i
		}
	}
	return of, nil
}
