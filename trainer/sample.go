package trainer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"graft/model"
	"graft/program"
)

// prompt is a sample prompt as the model reads it.
type prompt struct {
	text   string
	tokens []int32
}

// maxPromptTokens bounds sample prompts, whose length the memory plan depends
// on.
const maxPromptTokens = 4096

// openPrompts tokenizes the sample prompts.
func (t *Trainer) openPrompts() error {
	for _, text := range t.cfg.Sample.Prompts {
		tokens := t.tok.EncodePrompt(text)
		if len(tokens) == 0 {
			return fmt.Errorf("sample.prompts: %q is no token, and the tokenizer puts none in front: write something that the model can continue", text)
		}
		for _, token := range tokens {
			if int(token) >= t.model.Vocab {
				return fmt.Errorf("sample.prompts: %q: token %d, %q, is outside of the model's vocabulary of %d: leave it out, if tokenizer and model belong together", text, token, t.tok.Piece(token), t.model.Vocab)
			}
		}
		t.prompts = append(t.prompts, prompt{text, slices.Clip(tokens[:min(len(tokens), maxPromptTokens)])})
	}
	return t.tok.Err()
}

// sample prints what the model answers to the sample prompts, as it writes.
func (t *Trainer) sample(ctx context.Context, when string) error {
	if len(t.prompts) == 0 {
		return nil
	}
	fmt.Fprintf(t.options.Out, "%s:\n", when)
	for _, p := range t.prompts {
		fmt.Fprintf(t.options.Out, "  %s → ", printable(p.text))
		err := t.generate(ctx, p.tokens, func(text string) { fmt.Fprint(t.options.Out, printable(text)) })
		fmt.Fprintln(t.options.Out)
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(t.options.Out)
	return nil
}

// generate hands the model's greedy continuation of tokens to write, piece
// by piece, up to the end of the sequence. The whole sequence is computed anew
// for each token, which is quick enough for samples.
func (t *Trainer) generate(ctx context.Context, tokens []int32, write func(text string)) error {
	start, written := len(tokens), ""
	for len(tokens) < start+t.cfg.Sample.MaxTokens {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		token, err := t.next(tokens)
		if err != nil {
			return err
		}
		if t.ends(token) {
			break
		}
		tokens = append(tokens, token)
		text := t.tok.Decode(tokens[start:], true)
		// A character may take several tokens: what ends in half of one waits.
		if more, ok := strings.CutPrefix(text, written); ok && !strings.HasSuffix(text, string(unicode.ReplacementChar)) {
			write(more)
			written = text
		}
	}
	write(strings.TrimPrefix(t.tok.Decode(tokens[start:], true), written))
	return nil
}

// printable shows control characters, which a model may well write, as U+FFFD:
// a terminal would obey them.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ReplaceAll(s, "\n", "⏎"))
}

// ends says whether a token ends a sequence.
func (t *Trainer) ends(token int32) bool {
	eos, ok := t.EOS()
	return ok && token == eos || slices.Contains(t.model.EOS, token)
}

// longestAnswer returns the most tokens that sampling will run.
func (t *Trainer) longestAnswer() int {
	n := 1
	for _, p := range t.prompts {
		n = max(n, len(p.tokens)+t.cfg.Sample.MaxTokens)
	}
	return n
}

// next returns the most likely token after tokens.
func (t *Trainer) next(tokens []int32) (int32, error) {
	r, n := t.inferRun, int32(len(tokens))
	positions := make([]int32, n)
	for i := range positions {
		positions[i] = int32(i)
	}
	r.Fill(model.Inputs{Tokens: tokens, Positions: positions, Bounds: []int32{0, n}, Rows: []int32{n - 1}}, program.Step{})
	if err := t.backend.Run(r.Ops, nil); err != nil {
		return 0, err
	}
	logits := r.Logits.Float64s()
	t.model.CapLogits(logits)
	best := 0
	for i, z := range logits {
		if z > logits[best] {
			best = i
		}
	}
	return int32(best), nil
}
