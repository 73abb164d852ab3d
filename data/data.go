// Package data turns files of examples into micro-batches of tokens.
//
//	set, err := data.Load(ctx, "train.jsonl", tok, data.Options{MaskPrompt: true, MaxLength: 2048})
//	loader := data.NewLoader(set.Len(), data.LoaderOptions{BatchSize: 4, Accumulate: 2, Shuffle: true})
//	for _, examples := range loader.Window(step) {
//		set.Pack(examples, &batch)
//	}
//
// Everything is tokenized once, before training, so that what will be trained
// can be counted and checked: an example with nothing to train, or one that is
// too long, is found then, with its line. Which examples a step sees is a
// function of the step's number alone.
package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Tokenizer is what this package needs of one.
type Tokenizer interface {
	// Encode returns the tokens of text, with the special ones that begin and
	// end a sequence if special is set.
	Encode(text string, special bool) []int32
	// EOS returns the token that ends a sequence, if there is one.
	EOS() (int32, bool)
}

// Set is a tokenized file.
type Set struct {
	tokens    []int32 // all examples end to end
	bounds    []int64 // where each starts; one more than there are examples
	starts    []int32 // of each example, the first token that is trained
	trained   int
	truncated int
	dropped   int
	file      [sha256.Size]byte
}

// Example is one sequence.
type Example struct {
	Tokens []int32
	Start  int // Tokens[Start:] are trained; at least 1, since nothing predicts the first
}

// Len returns the number of examples.
func (s *Set) Len() int { return len(s.starts) }

// Example returns one of them; it shares the set's memory.
func (s *Set) Example(i int) Example {
	return Example{s.tokens[s.bounds[i]:s.bounds[i+1]], int(s.starts[i])}
}

// Tokens returns the number of tokens of all examples.
func (s *Set) Tokens() int { return len(s.tokens) }

// Trained returns how many of them are trained.
func (s *Set) Trained() int { return s.trained }

// Longest returns the tokens of the longest example.
func (s *Set) Longest() int {
	n := int64(0)
	for i := range s.starts {
		n = max(n, s.bounds[i+1]-s.bounds[i])
	}
	return int(n)
}

// Truncated returns the number of examples that were cut to the length limit.
func (s *Set) Truncated() int { return s.truncated }

// Dropped returns the number of examples that were left out.
func (s *Set) Dropped() int { return s.dropped }

// Hash identifies the file's bytes and what they were tokenized to.
func (s *Set) Hash() string {
	h := sha256.New()
	h.Write(s.file[:])
	buf := make([]byte, 0, 1<<16)
	flush := func() {
		h.Write(buf)
		buf = buf[:0]
	}
	put := func(v int32) {
		if buf = binary.LittleEndian.AppendUint32(buf, uint32(v)); len(buf) == cap(buf) {
			flush()
		}
	}
	for _, t := range s.tokens {
		put(t)
	}
	for i, start := range s.starts {
		put(start)
		put(int32(s.bounds[i+1] - s.bounds[i]))
	}
	flush()
	return hex.EncodeToString(h.Sum(nil))
}

// add appends an example.
func (s *Set) add(e Example) error {
	if len(s.starts) == maxExamples {
		return fmt.Errorf("more than %d examples", maxExamples)
	}
	s.tokens = append(s.tokens, e.Tokens...)
	s.bounds = append(s.bounds, int64(len(s.tokens)))
	s.starts = append(s.starts, int32(e.Start))
	s.trained += len(e.Tokens) - e.Start
	return nil
}

// maxExamples keeps example numbers within int32.
const maxExamples = 1<<31 - 2

// Batch is a micro-batch: sequences end to end, without padding. With T
// tokens, S sequences and N trained tokens:
type Batch struct {
	Tokens    []int32 // [T]
	Positions []int32 // [T], from 0 in each sequence
	Bounds    []int32 // [S+1], where the sequences start, and T
	Rows      []int32 // [N], tokens whose successor is trained
	Targets   []int32 // [N], those successors
}

// Pack fills a batch with examples; it reuses the batch's memory.
func (s *Set) Pack(examples []int32, b *Batch) {
	b.Tokens, b.Positions, b.Rows, b.Targets = b.Tokens[:0], b.Positions[:0], b.Rows[:0], b.Targets[:0]
	b.Bounds = append(b.Bounds[:0], 0)
	for _, i := range examples {
		e := s.Example(int(i))
		base := len(b.Tokens)
		b.Tokens = append(b.Tokens, e.Tokens...)
		for p := range e.Tokens {
			b.Positions = append(b.Positions, int32(p))
		}
		for p := e.Start; p < len(e.Tokens); p++ {
			b.Rows = append(b.Rows, int32(base+p-1))
			b.Targets = append(b.Targets, e.Tokens[p])
		}
		b.Bounds = append(b.Bounds, int32(len(b.Tokens)))
	}
}

// Size returns the tokens, trained tokens and sequences that Pack would give.
func (s *Set) Size(examples []int32) (tokens, rows, sequences int) {
	for _, i := range examples {
		n := int(s.bounds[i+1] - s.bounds[i])
		tokens += n
		rows += n - int(s.starts[i])
	}
	return tokens, rows, len(examples)
}
