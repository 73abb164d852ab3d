package model

import (
	"errors"
	"fmt"
	"math"
)

// rotaries returns the rotary embeddings of layers with full attention and of
// those with a window, which are the same one in most families.
func (c *hfConfig) rotaries() (full, sliding *Rotary, err error) {
	var p ropeParameters
	name := "rope_scaling"
	if c.RopeScaling != nil {
		p.ropeConfig = *c.RopeScaling
	}
	if c.RopeParameters != nil {
		if p.ropeConfig != (ropeConfig{}) {
			return nil, nil, errors.New("rope_scaling and rope_parameters are both there; want one of them")
		}
		name, p = "rope_parameters", *c.RopeParameters
		if c.LocalTheta != nil && p.ropeConfig != (ropeConfig{}) { // transformers passes over it
			return nil, nil, fmt.Errorf("rope_parameters: want full_attention and sliding_attention in it, as %s has two", c.ModelType)
		}
	}
	if p.Full == nil {
		p.Full = &p.ropeConfig
	}
	if full, err = c.rotary(name, p.Full); err != nil || p.Sliding == nil && c.LocalTheta == nil {
		return full, full, err
	}
	if p.Sliding == nil {
		p.Sliding = &ropeConfig{}
	}
	if p.Sliding.Theta == nil {
		p.Sliding.Theta = c.LocalTheta
	}
	sliding, err = c.rotary(name, p.Sliding)
	return full, sliding, err
}

// rotary builds the frequencies that one entry of config.json describes.
func (c *hfConfig) rotary(name string, s *ropeConfig) (*Rotary, error) {
	theta := 10000.0
	if c.RopeTheta != nil {
		theta = *c.RopeTheta
	}
	if s.Theta != nil {
		theta = *s.Theta
	}
	if !(theta > 0) || math.IsInf(theta, 0) {
		return nil, fmt.Errorf("rope_theta is %v, want more than 0", theta)
	}
	dim, err := c.rotated(name, s)
	if err != nil {
		return nil, err
	}
	freqs := frequencies(theta, dim)
	kind := s.Type
	if kind == "" {
		kind = s.OldType
	}
	switch kind {
	case "", "default":
	case "linear":
		if !(s.Factor > 0) {
			return nil, fmt.Errorf("%s: factor is %v, want more than 0", name, s.Factor)
		}
		for i := range freqs {
			freqs[i] /= s.Factor
		}
	case "llama3":
		if !(s.Factor > 0 && s.Low > 0 && s.High > s.Low && s.Original > 0) {
			return nil, fmt.Errorf("%s: llama3 needs factor, low_freq_factor < high_freq_factor and original_max_position_embeddings above 0", name)
		}
		if o := c.OriginalPositions; o != nil && *o != s.Original {
			return nil, fmt.Errorf("original_max_position_embeddings is %v, and %v in %s; want one", *o, s.Original, name)
		}
		s.llama3(freqs)
	default:
		return nil, fmt.Errorf("%s: rope_type %q is not supported (default, linear and llama3 are)", name, kind)
	}
	for _, f := range freqs {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%s: rope_theta %v gives frequencies that are not finite", name, theta)
		}
	}
	return &Rotary{Freqs: freqs, Scale: 1}, nil
}

// rotated returns how many dimensions of a head are turned: all, but for Phi 3
// with a partial_rotary_factor. The others pass over the key beside their other
// keys.
func (c *hfConfig) rotated(name string, s *ropeConfig) (int, error) {
	factor := s.Partial
	if c.ModelType == "phi3" && factor == nil {
		factor = c.PartialRotary
	}
	if factor == nil || *factor == 1 {
		return c.headDim(), nil
	}
	if c.ModelType != "phi3" {
		return 0, fmt.Errorf("%s: partial_rotary_factor %v is not supported for %s", name, *factor, c.ModelType)
	}
	if !(*factor > 0 && *factor < 1) {
		return 0, fmt.Errorf("partial_rotary_factor is %v, want more than 0 and at most 1", *factor)
	}
	n := int(float64(c.headDim()) * *factor)
	if n == 0 || n%2 != 0 {
		return 0, fmt.Errorf("partial_rotary_factor %v turns %d of a head's %d dimensions; want pairs", *factor, n, c.headDim())
	}
	return n, nil
}

// frequencies returns theta^(-2i/dim), rounded to float32 as the models were
// trained with.
func frequencies(theta float64, dim int) []float64 {
	out := make([]float64, dim/2)
	for i := range out {
		exponent := float32(2*i) / float32(dim)
		out[i] = float64(1 / float32(math.Pow(theta, float64(exponent))))
	}
	return out
}

// llama3 stretches long wavelengths by Factor, keeps short ones, and blends in
// between (Llama 3.1; _compute_llama3_parameters of transformers).
func (s *ropeConfig) llama3(freqs []float64) {
	for i, f := range freqs {
		wavelength := 2 * math.Pi / f
		switch {
		case wavelength > s.Original/s.Low:
			freqs[i] = f / s.Factor
		case wavelength >= s.Original/s.High:
			smooth := (s.Original/wavelength - s.Low) / (s.High - s.Low)
			freqs[i] = (1-smooth)*f/s.Factor + smooth*f
		}
	}
}
