// Package tokenizer turns text into token ids and back, as the Hugging Face
// `tokenizers` library does with the same tokenizer.json.
//
// # The idea
//
// A tokenizer.json writes a pipeline down. Encoding runs it from the top:
//
//	added tokens    literal strings such as <|im_end|> are cut out first
//	normalizer      text to text: Unicode forms, prepended and replaced marks
//	pre-tokenizer   text to words: no token ever crosses a word's edge
//	model           word to ids: byte pair encoding (BPE)
//	post-processor  ids before and after the text, usually the BOS token
//
// Decoding maps ids to pieces and runs the file's decoder over them.
//
// BPE starts from single symbols and again and again joins the adjacent pair
// that comes first in the file's list of merges, until no pair is listed.
// Symbols come in two kinds. Byte-level vocabularies (GPT-2, Llama 3, Qwen)
// start from bytes, each written as one printable character, and cover every
// text. SentencePiece-style vocabularies (Llama 2, Gemma) start from
// characters with spaces written as ▁; a character outside the vocabulary
// falls back to its bytes <0x00>…<0xFF>, or becomes the unknown token.
//
// # Faithfulness
//
// What is implemented gives the ids that Hugging Face gives. What is not
// implemented (other models, rarer components, tokens that are only in
// tokenizer_config.json) is refused by name when the file is parsed, never
// skipped. Three settings of the file do not take part:
// truncation and padding, which are the caller's business, and add_bos_token
// and add_eos_token of tokenizer_config.json: as with Hugging Face's fast
// tokenizers, only the post-processor of tokenizer.json adds tokens.
//
// # Errors
//
// [Parse] and [Load] treat their input as hostile and return errors that name
// the place, such as
//
//	tokenizer.json: model.merges[17]: "Ġx" is not in model.vocab
//
// Encoding and decoding cannot fail, with one exception. A file may bring its
// own regular expressions, and some of these take exponential time. Matching
// is therefore stopped after a generous limit; [Tokenizer.Err] then says so,
// and ids produced since are not to be trusted.
//
// # Example
//
//	t, err := tokenizer.Load("models/llama")
//	if err != nil {
//		return err
//	}
//	ids := t.Encode("Once upon a time", true) // BOS, Once, ▁upon, …
//	text := t.Decode(ids, true)               // "Once upon a time"
package tokenizer
