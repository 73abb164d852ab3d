package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"graft/model"
	"graft/tokenizer"
)

// TestShipped: what the project ships is what the generator writes.
func TestShipped(t *testing.T) {
	out, questions := t.TempDir(), t.TempDir()
	if err := run(out, questions, 1); err != nil {
		t.Fatal(err)
	}
	for made, shipped := range map[string]string{
		filepath.Join(questions, "train.jsonl"):     "train.jsonl",
		filepath.Join(questions, "valid.jsonl"):     "valid.jsonl",
		filepath.Join(out, "tokenizer.json"):        "model/tokenizer.json",
		filepath.Join(out, "tokenizer_config.json"): "model/tokenizer_config.json",
		filepath.Join(out, "config.json"):           "model/config.json",
	} {
		a, err := os.ReadFile(made)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join("../../configs/demo", shipped))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not what the generator writes", shipped)
		}
	}
	m, err := model.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tok, err := tokenizer.Load(out)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Size() != m.Vocab {
		t.Errorf("%d tokens, the model has %d", tok.Size(), m.Vocab)
	}
}

// TestHeldOut: no question about a held-out animal is trained on.
func TestHeldOut(t *testing.T) {
	known, unknown := newWorld(1).questions()
	if len(known) != 4*(len(animals)-len(heldOut)) || len(unknown) != 4*len(heldOut) {
		t.Fatalf("%d and %d questions", len(known), len(unknown))
	}
	for _, line := range known {
		for _, a := range heldOut {
			if bytes.Contains([]byte(line.(map[string]string)["prompt"]), []byte(" "+a)) {
				t.Errorf("%v", line)
			}
		}
	}
}
