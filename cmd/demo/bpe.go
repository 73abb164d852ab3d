package main

import (
	"cmp"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// The special tokens have the first ids.
const (
	bos = 0
	eos = 1
)

// words splits text as the ByteLevel pre-tokenizer does, for the plain ASCII
// that the demo writes.
var words = regexp.MustCompile(`'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s`)

// writeTokenizer trains a byte-level BPE vocabulary on text (Sennrich et al.,
// 2016): it starts with bytes and joins the most frequent pair, over and over.
func writeTokenizer(dir, text string, size int) error {
	vocab := map[string]int{"<s>": bos, "</s>": eos}
	for b := range 256 {
		vocab[string(byteRune(byte(b)))] = len(vocab)
	}
	counts := map[string]int{}
	for _, w := range words.FindAllString(text, -1) {
		counts[w]++
	}
	var list []word
	for _, w := range slices.Sorted(maps.Keys(counts)) {
		var pieces []string
		for _, b := range []byte(w) {
			pieces = append(pieces, string(byteRune(b)))
		}
		list = append(list, word{pieces, counts[w]})
	}
	merges := [][2]string{}
	for len(vocab) < size {
		pair, ok := mostFrequent(list)
		if !ok {
			break
		}
		merges = append(merges, pair)
		vocab[pair[0]+pair[1]] = len(vocab)
		for i := range list {
			list[i].join(pair)
		}
	}
	return writeFiles(dir, vocab, merges)
}

type word struct {
	pieces []string
	count  int
}

func mostFrequent(list []word) (pair [2]string, ok bool) {
	counts := map[[2]string]int{}
	for _, w := range list {
		for i := 1; i < len(w.pieces); i++ {
			counts[[2]string{w.pieces[i-1], w.pieces[i]}] += w.count
		}
	}
	pairs := slices.SortedFunc(maps.Keys(counts), func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
	})
	if len(pairs) == 0 {
		return pair, false
	}
	return pairs[0], true
}

func (w *word) join(pair [2]string) {
	var out []string
	for i := 0; i < len(w.pieces); i++ {
		if i+1 < len(w.pieces) && w.pieces[i] == pair[0] && w.pieces[i+1] == pair[1] {
			out = append(out, pair[0]+pair[1])
			i++
			continue
		}
		out = append(out, w.pieces[i])
	}
	w.pieces = out
}

// byteRune is the printable stand-in of a byte in byte-level vocabularies: the
// byte itself where it is printable Latin-1, else one from U+0100 on.
func byteRune(b byte) rune {
	printable := func(b int) bool { return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae }
	if printable(int(b)) {
		return rune(b)
	}
	n := rune(256)
	for c := range int(b) {
		if !printable(c) {
			n++
		}
	}
	return n
}

func writeFiles(dir string, vocab map[string]int, merges [][2]string) error {
	special := func(id int, content string) map[string]any {
		return map[string]any{"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
			"normalized": false, "special": true}
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	file := map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil,
		"added_tokens":  []any{special(bos, "<s>"), special(eos, "</s>")},
		"normalizer":    nil,
		"pre_tokenizer": byteLevel,
		"post_processor": map[string]any{"type": "TemplateProcessing",
			"single":         []any{map[string]any{"SpecialToken": map[string]any{"id": "<s>", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}},
			"pair":           []any{map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "B", "type_id": 1}}},
			"special_tokens": map[string]any{"<s>": map[string]any{"id": "<s>", "ids": []int{bos}, "tokens": []string{"<s>"}}}},
		"decoder": byteLevel,
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil,
			"end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
			"vocab": vocab, "merges": merges},
	}
	b, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tokenizer_config.json"),
		[]byte("{\n  \"bos_token\": \"<s>\",\n  \"eos_token\": \"</s>\",\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n"), 0o644)
}
