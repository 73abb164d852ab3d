// Package shards opens models whose tensors are spread over several files,
// listed by an index such as model.safetensors.index.json:
//
//	{"metadata": {"total_size": 123},
//	 "weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors", …}}
//
// The index is as untrusted as the files. A shard is a plain file name in the
// index's own folder, so an index cannot reach files elsewhere. (The file may
// be a symbolic link: the caches of Hugging Face are made of them, and a link
// is the work of whoever owns the folder, not of the index.)
package shards

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"graft/internal/strictjson"
	"graft/model/internal/mapfile"
	"graft/model/stored"
)

const (
	maxIndex  = 64 << 20 // bytes: room for about half a million tensors
	maxShards = 4096
)

// Open reads an index and opens all its shards with open. The source has the
// tensors that the index lists; each must be in the shard named for it, and in
// no other.
func Open(index string, open func(path string) (stored.Source, error)) (stored.Source, error) {
	where, err := readIndex(index)
	if err != nil {
		return nil, err
	}
	s := &set{where: where, files: map[string]stored.Source{}}
	if err := s.open(index, open); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// set is an open set of shards.
type set struct {
	where map[string]string        // shard by tensor
	files map[string]stored.Source // by shard
}

func (s *set) Names() []string { return slices.Sorted(maps.Keys(s.where)) }

func (s *set) Tensor(name string) (stored.Tensor, bool) {
	file, ok := s.files[s.where[name]]
	if !ok {
		return stored.Tensor{}, false
	}
	return file.Tensor(name)
}

func (s *set) Close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		errs = append(errs, s.files[name].Close())
	}
	return errors.Join(errs...)
}

func (s *set) open(index string, open func(path string) (stored.Source, error)) error {
	names := slices.Compact(slices.Sorted(maps.Values(s.where)))
	if len(names) > maxShards {
		return fmt.Errorf("%s: %d shards, at most %d are allowed", index, len(names), maxShards)
	}
	found := map[string]bool{}
	for _, shard := range names {
		path := filepath.Join(filepath.Dir(index), shard)
		file, err := open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: shard %s is missing in its folder: download it", index, shard)
		}
		if err != nil {
			return err
		}
		s.files[shard] = file
		for _, tensor := range file.Names() {
			switch want, listed := s.where[tensor]; {
			case listed && want != shard:
				return fmt.Errorf("%s: tensor %s should be in %s, and is in %s", index, tensor, want, shard)
			case listed:
				found[tensor] = true
			}
		}
	}
	for _, tensor := range s.Names() {
		if !found[tensor] {
			return fmt.Errorf("%s: tensor %s is missing in its shard %s", index, tensor, s.where[tensor])
		}
	}
	return nil
}

// readIndex returns the weight_map of an index.
func readIndex(path string) (map[string]string, error) {
	m, err := mapfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	where, err := parseIndex(m.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return where, nil
}

func parseIndex(b []byte) (map[string]string, error) {
	if len(b) > maxIndex {
		return nil, fmt.Errorf("%d bytes, an index has at most %d", len(b), maxIndex)
	}
	d, err := strictjson.NewDecoder(b)
	if err != nil {
		return nil, err
	}
	where := map[string]string{}
	err = strictjson.Object(d, func(key string) error {
		if key != "weight_map" {
			return strictjson.Skip(d)
		}
		return strictjson.Object(d, func(tensor string) error {
			if err := stored.CheckName(tensor); err != nil {
				return fmt.Errorf("weight_map: a tensor has %w", err)
			}
			shard, err := strictjson.String(d)
			if err != nil {
				return fmt.Errorf("weight_map: %s: %w", tensor, err)
			}
			where[tensor] = shard
			return checkShard(tensor, shard)
		})
	})
	if err != nil {
		return nil, err
	}
	if rest := b[d.InputOffset():]; strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("more text after the JSON object")
	}
	if len(where) == 0 {
		return nil, errors.New("weight_map lists no tensors")
	}
	return where, nil
}

// checkShard accepts plain file names only, on every system the same.
func checkShard(tensor, shard string) error {
	if err := stored.CheckName(shard); err != nil {
		return fmt.Errorf("weight_map: %s: the shard has %w", tensor, err)
	}
	if strings.ContainsAny(shard, `/\:`) || !filepath.IsLocal(shard) || shard == "." {
		return fmt.Errorf("weight_map: %s: shard %s: must be the name of a file in the folder of the index", tensor, shard)
	}
	return nil
}
