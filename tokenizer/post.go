package tokenizer

import "fmt"

// post reads which ids the post-processor puts around a text.
func (t *Tokenizer) post(c *component) error {
	list, err := flatten("post_processor", c, "processors", func(c *component) []component { return c.Processors })
	if err != nil {
		return err
	}
	template := ""
	for _, p := range list {
		switch p.Type {
		case "ByteLevel": // moves offsets only
		case "TemplateProcessing":
			if template != "" { // Hugging Face would run this one's pair, not its single
				return fmt.Errorf("%s: a second TemplateProcessing, after %s, is not implemented: write one with the tokens of both", p.place, template)
			}
			template = p.place
			if err := t.template(p); err != nil {
				return err
			}
		default:
			return p.unknown("post-processor", "ByteLevel, TemplateProcessing")
		}
	}
	return nil
}

func (t *Tokenizer) template(p placed) error {
	var around [2][]int32 // before and after the text
	side := 0
	for i, x := range p.Single {
		switch {
		case x.Sequence != nil && x.SpecialToken == nil && x.Sequence.ID == "A" && side == 0:
			side = 1
		case x.SpecialToken != nil && x.Sequence == nil:
			ids := p.SpecialTokens[x.SpecialToken.ID].IDs
			if len(ids) == 0 {
				return fmt.Errorf("%s.single[%d]: %q is not in special_tokens", p.place, i, x.SpecialToken.ID)
			}
			for _, id := range ids {
				if id < 0 || id >= int64(len(t.entries)) {
					return fmt.Errorf("%s.special_tokens: %q: there is no id %d", p.place, x.SpecialToken.ID, id)
				}
				around[side] = append(around[side], int32(id))
			}
		default:
			return fmt.Errorf("%s.single[%d]: want a special token, or the sequence A once", p.place, i)
		}
	}
	if side == 0 {
		return fmt.Errorf("%s.single: the sequence A is missing", p.place)
	}
	t.prefix, t.suffix = around[0], around[1]
	return nil
}
