package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"graft/internal/files"
)

const (
	maxFile = 512 << 20 // bytes; the largest known tokenizer.json has 40 MB
	maxIDs  = 1 << 24
)

// Load reads tokenizer.json and, where there is one, tokenizer_config.json in
// dir. Errors name the file and the place in it.
func Load(dir string) (*Tokenizer, error) {
	main, err := files.Read(filepath.Join(dir, "tokenizer.json"), maxFile)
	if err != nil {
		return nil, err
	}
	config, err := files.Read(filepath.Join(dir, "tokenizer_config.json"), maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t, err := Parse(main, config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return t, nil
}

// Parse builds a tokenizer from the contents of tokenizer.json and of
// tokenizer_config.json, which may be nil. From the latter only bos_token and
// eos_token are used. Errors name the file and the place in it.
func Parse(tokenizerJSON, configJSON []byte) (*Tokenizer, error) {
	t, err := build(tokenizerJSON)
	if err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if err := t.configure(configJSON); err != nil {
		return nil, fmt.Errorf("tokenizer_config.json: %w", err)
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

// configure reads which tokens begin and end a sequence.
func (t *Tokenizer) configure(b []byte) error {
	if b == nil {
		return nil
	}
	var c struct {
		BOS *namedToken `json:"bos_token"`
		EOS *namedToken `json:"eos_token"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return explain(err)
	}
	for _, x := range []struct {
		key string
		tok *namedToken
		id  *int32
	}{{"bos_token", c.BOS, &t.bos}, {"eos_token", c.EOS, &t.eos}} {
		if x.tok == nil {
			continue
		}
		id, ok := t.ID(string(*x.tok))
		if !ok {
			return fmt.Errorf("%s: %q is not in tokenizer.json", x.key, string(*x.tok))
		}
		*x.id = id
	}
	return nil
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
