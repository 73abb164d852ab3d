package main

import (
	"fmt"
	"slices"
	"strings"

	"graft/kernels/random"
)

// The world of the demo: animals, each with a home, a food, a colour and a
// thing it likes to do.
var (
	animals = strings.Fields(`fox owl bear wolf deer frog duck goat hare mole crow swan otter badger beaver lizard
		rabbit turtle pigeon spider hamster sparrow squirrel hedgehog monkey tiger camel zebra heron raven`)
	homes    = []string{"in the forest", "by the river", "on the farm", "in the desert", "on the mountain", "in the garden"}
	foods    = []string{"berries", "fish", "grass", "seeds", "insects", "honey", "nuts", "leaves"}
	colours  = []string{"red", "brown", "grey", "black", "white", "green", "yellow"}
	hobbies  = []string{"dig", "swim", "sing", "climb", "run", "sleep", "jump", "hide"}
	openings = []string{"One day", "One morning", "In the evening", "After the rain", "At night"}
)

// heldOut animals appear in the pretraining text like all others, but no
// question about them is trained on.
var heldOut = []string{"fox", "duck", "turtle", "camel", "raven"}

type fact struct{ home, food, colour, hobby string }

type world struct {
	seed  uint64
	facts map[string]fact
}

func newWorld(seed uint64) *world {
	w := &world{seed: seed, facts: map[string]fact{}}
	for i, a := range animals {
		d := w.dice(0, uint64(i))
		w.facts[a] = fact{d.pick(homes), d.pick(foods), d.pick(colours), d.pick(hobbies)}
	}
	return w
}

// dice draws numbers from one position of the generator.
type dice struct {
	seed, at uint64
	stream   uint32
	n        uint64
}

func (w *world) dice(stream uint32, at uint64) *dice {
	return &dice{seed: w.seed, stream: stream, at: at}
}

func (d *dice) below(n int) int {
	word := random.At(d.seed, random.Demo, d.stream, d.at<<16|d.n)[0]
	d.n++
	return int(uint64(word) * uint64(n) >> 32)
}

func (d *dice) pick(from []string) string { return from[d.below(len(from))] }

// document writes a short text about one or two animals.
func (w *world) document(i uint64) string {
	d := w.dice(1, i)
	a, b := d.pick(animals), d.pick(animals)
	for b == a {
		b = d.pick(animals)
	}
	switch d.below(4) {
	case 0:
		return w.meeting(d, a, b)
	case 1:
		return w.talk(d, a, b)
	}
	s := w.statements(a)
	for i := range s {
		j := i + d.below(len(s)-i)
		s[i], s[j] = s[j], s[i]
	}
	return strings.Join(s[:2+d.below(3)], " ")
}

func (w *world) statements(a string) []string {
	f := w.facts[a]
	return []string{
		fmt.Sprintf("The %s lives %s.", a, f.home),
		fmt.Sprintf("The %s eats %s.", a, f.food),
		fmt.Sprintf("The %s is %s.", a, f.colour),
		fmt.Sprintf("The %s likes to %s.", a, f.hobby),
	}
}

func (w *world) meeting(d *dice, a, b string) string {
	f, g := w.facts[a], w.facts[b]
	return fmt.Sprintf("%s the %s %s met the %s %s. The %s lives %s and the %s lives %s. The %s gave %s to the %s, who eats %s.",
		d.pick(openings), f.colour, a, g.colour, b, a, f.home, b, g.home, b, f.food, a, f.food)
}

func (w *world) talk(d *dice, a, b string) string {
	f := w.facts[a]
	ask := []string{
		fmt.Sprintf("\"Where does the %s live?\" asked the %s. \"The %s lives %s,\" said the %s.", a, b, a, f.home, a),
		fmt.Sprintf("\"What does the %s eat?\" asked the %s. \"The %s eats %s,\" said the %s.", a, b, a, f.food, a),
		fmt.Sprintf("\"What colour is the %s?\" asked the %s. \"The %s is %s,\" said the %s.", a, b, a, f.colour, a),
		fmt.Sprintf("\"What does the %s like to do?\" asked the %s. \"The %s likes to %s,\" said the %s.", a, b, a, f.hobby, a),
	}
	return d.pick(ask) + " " + d.pick(w.statements(b))
}

// questions are what the demo fine-tunes on, and what it is validated with:
// the same kinds of questions, about animals that it was never asked about.
func (w *world) questions() (known, unknown []any) {
	for _, a := range animals {
		f := w.facts[a]
		for _, q := range [][2]string{
			{fmt.Sprintf("Where does the %s live?", a), " The " + a + " lives " + f.home + "."},
			{fmt.Sprintf("What does the %s eat?", a), " The " + a + " eats " + f.food + "."},
			{fmt.Sprintf("What colour is the %s?", a), " The " + a + " is " + f.colour + "."},
			{fmt.Sprintf("What does the %s like to do?", a), " The " + a + " likes to " + f.hobby + "."},
		} {
			line := map[string]string{"prompt": q[0], "completion": q[1]}
			if slices.Contains(heldOut, a) {
				unknown = append(unknown, line)
			} else {
				known = append(known, line)
			}
		}
	}
	return known, unknown
}
