package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"graft/internal/files"
)

const (
	maxFile = 512 << 20 // bytes; the largest known tokenizer.json has 40 MB
	maxIDs  = 1 << 24
)

// Load reads tokenizer.json and, where they are there, tokenizer_config.json and
// special_tokens_map.json in dir. Errors name the file and the place in it.
func Load(dir string) (*Tokenizer, error) {
	var b [3][]byte
	for i, name := range []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} {
		var err error
		b[i], err = files.Read(filepath.Join(dir, name), maxFile)
		if err != nil && (i == 0 || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
	}
	t, err := Parse(b[0], b[1], b[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return t, nil
}

// Parse builds a tokenizer from the contents of tokenizer.json and of
// tokenizer_config.json and special_tokens_map.json, which may be nil. From
// these only bos_token and eos_token are used; what would add tokens is refused.
// As in transformers, those of the map hold, unless tokenizer_config.json has
// added_tokens_decoder. Errors name the file and the place in it.
func Parse(tokenizerJSON, configJSON, mapJSON []byte) (*Tokenizer, error) {
	t, err := build(tokenizerJSON)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	config, err := t.configure(configJSON)
	if err != nil {
		return nil, fmt.Errorf("tokenizer_config.json: %w", err)
	}
	if config.Added != nil {
		return t, nil
	}
	if _, err := t.configure(mapJSON); err != nil {
		return nil, fmt.Errorf("special_tokens_map.json: %w", err)
	}
	return t, nil
}

func build(b []byte) (*Tokenizer, error) {
	f, err := readFile(b)
	if err != nil {
		return nil, err
	}
	t := &Tokenizer{bos: -1, eos: -1, failure: new(failure)}
	t.encoders.New = func() any { return &encoder{Tokenizer: t} }
	if t.normalizers, err = newNormalizers(f.Normalizer, t.failure); err != nil {
		return nil, err
	}
	if t.stages, err = newStages(f.PreTokenizer, t.failure); err != nil {
		return nil, err
	}
	limit := min(int64(maxIDs), int64(len(b)))
	if t.model, err = newModel(&f.Model, limit, endsInBytes(t.stages)); err != nil {
		return nil, err
	}
	if err := t.add(f.AddedTokens, limit); err != nil {
		return nil, err
	}
	if err := t.post(f.PostProcessor); err != nil {
		return nil, err
	}
	t.decoders, err = newDecoders(f.Decoder, t.failure)
	t.spaced = f.Decoder == nil
	if err == nil {
		// Added tokens have been normalized above, perhaps by a pattern.
		err = t.Err()
	}
	return t, err
}

// settings are what tokenizer_config.json and special_tokens_map.json say of
// single tokens.
type settings struct {
	BOS        *namedToken `json:"bos_token"`
	EOS        *namedToken `json:"eos_token"`
	Added      namedTokens `json:"added_tokens_decoder"`
	Extra      namedTokens `json:"extra_special_tokens"`
	Additional namedTokens `json:"additional_special_tokens"`
	Split      bool        `json:"split_special_tokens"`
}

// configure reads which tokens begin and end a sequence.
func (t *Tokenizer) configure(b []byte) (c settings, err error) {
	if b == nil {
		return c, nil
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, explain(err)
	}
	if c.Split {
		return c, errors.New("split_special_tokens: true is not implemented: special tokens are found in texts; set it to false if they may be")
	}
	for _, x := range []struct {
		key    string
		tokens namedTokens
		id     *int32
	}{
		{"bos_token", one(c.BOS), &t.bos}, {"eos_token", one(c.EOS), &t.eos}, {"added_tokens_decoder", c.Added, nil},
		{"extra_special_tokens", c.Extra, nil}, {"additional_special_tokens", c.Additional, nil},
	} {
		for _, tok := range x.tokens {
			id, ok := t.ID(string(tok))
			if !ok {
				return c, fmt.Errorf("%s: %.100q is not in tokenizer.json; transformers' save_pretrained writes one that has it", x.key, string(tok))
			}
			if x.id != nil {
				*x.id = id
			}
		}
	}
	return c, nil
}

// namedTokens is a list of tokens, or an object of them under any keys.
type namedTokens []namedToken

func (n *namedTokens) UnmarshalJSON(b []byte) error {
	if b[0] != '{' {
		return json.Unmarshal(b, (*[]namedToken)(n))
	}
	var object map[string]namedToken
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	*n = namedTokens{}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		*n = append(*n, object[key])
	}
	return nil
}

func one(n *namedToken) namedTokens {
	if n == nil {
		return nil
	}
	return namedTokens{*n}
}

// namedToken is a string, or an object with the string as its content.
type namedToken string

func (n *namedToken) UnmarshalJSON(b []byte) error {
	var object struct {
		Content *string `json:"content"`
	}
	if json.Unmarshal(b, &object) == nil && object.Content != nil {
		*n = namedToken(*object.Content)
		return nil
	}
	return json.Unmarshal(b, (*string)(n))
}
