package trainer

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"graft/kernels"
	"graft/model"
	"graft/program"
)

// sample prints what the model answers to the sample prompts.
func (t *Trainer) sample(when string) error {
	if len(t.cfg.Sample.Prompts) == 0 {
		return nil
	}
	fmt.Fprintf(t.options.Out, "%s:\n", when)
	for _, prompt := range t.cfg.Sample.Prompts {
		answer, err := t.generate(prompt)
		if err != nil {
			return err
		}
		fmt.Fprintf(t.options.Out, "  %s → %s\n", printable(prompt), printable(answer))
	}
	fmt.Fprintln(t.options.Out)
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

// generate returns the model's greedy continuation of a prompt, up to the end
// of the sequence. The whole sequence is computed anew for each token, which
// is quick enough for samples.
func (t *Trainer) generate(prompt string) (string, error) {
	tokens := t.promptTokens(prompt)
	start := len(tokens)
	for len(tokens) < start+t.cfg.Sample.MaxTokens {
		token, err := next(t.inferRun, t.backend.Run, t.model.Decoder, tokens)
		if err != nil {
			return "", err
		}
		if t.ends(token) {
			break
		}
		tokens = append(tokens, token)
	}
	return t.tok.Decode(tokens[start:], true), nil
}

// ends says whether a token ends a sequence.
func (t *Trainer) ends(token int32) bool {
	eos, ok := t.EOS()
	return ok && token == eos || slices.Contains(t.model.EOS, token)
}

// maxPromptTokens bounds sample prompts, whose length the memory plan depends
// on.
const maxPromptTokens = 4096

func (t *Trainer) promptTokens(prompt string) []int32 {
	tokens := t.tok.Encode(prompt, true)
	return tokens[:min(len(tokens), maxPromptTokens)]
}

// longestAnswer returns the most tokens that sampling will run.
func (t *Trainer) longestAnswer() int {
	n := 1
	for _, p := range t.cfg.Sample.Prompts {
		n = max(n, len(t.promptTokens(p))+t.cfg.Sample.MaxTokens)
	}
	return n
}

// runner is a backend's Run.
type runner func(ops []kernels.Op, clock kernels.Clock) error

// next returns the most likely token after tokens.
func next(r *model.Run, run runner, d *model.Decoder, tokens []int32) (int32, error) {
	n := int32(len(tokens))
	positions := make([]int32, n)
	for i := range positions {
		positions[i] = int32(i)
	}
	bounds := []int32{0, n}
	r.Bind(program.Step{Tokens: len(tokens), LossRows: 1, Bounds: bounds})
	r.Tokens.SetInt32s(tokens)
	r.Positions.SetInt32s(positions)
	r.Bounds.SetInt32s(bounds)
	r.Rows.SetInt32s([]int32{n - 1})
	if err := run(r.Ops, nil); err != nil {
		return 0, err
	}
	logits := r.Logits.Float64s()
	d.CapLogits(logits)
	best := 0
	for i, z := range logits {
		if z > logits[best] {
			best = i
		}
	}
	return int32(best), nil
}
