package model

import (
	"encoding/json"
	"fmt"
	"math"
)

// rotaries returns the rotary embeddings of layers with full attention and of
// those with a window, which are the same one in most families.
func (c *hfConfig) rotaries() (full, sliding *Rotary, err error) {
	var newer struct {
		ropeConfig
		Full    *ropeConfig `json:"full_attention"`
		Sliding *ropeConfig `json:"sliding_attention"`
	}
	if len(c.RopeParameters) > 0 {
		if err := json.Unmarshal(c.RopeParameters, &newer); err != nil {
			return nil, nil, fmt.Errorf("rope_parameters: %w", err)
		}
		if newer.Full == nil {
			newer.Full = &newer.ropeConfig
		}
		if full, err = c.rotary("rope_parameters", newer.Full); err != nil || newer.Sliding == nil {
			return full, full, err
		}
		sliding, err = c.rotary("rope_parameters", newer.Sliding)
		return full, sliding, err
	}
	older := c.RopeScaling
	if older == nil {
		older = &ropeConfig{}
	}
	if full, err = c.rotary("rope_scaling", older); err != nil || c.LocalTheta == nil {
		return full, full, err
	}
	sliding, err = c.rotary("rope_local_base_freq", &ropeConfig{Theta: c.LocalTheta})
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
	if s.Partial != nil && *s.Partial != 1 {
		return nil, fmt.Errorf("%s: partial_rotary_factor %v is not supported", name, *s.Partial)
	}
	freqs := frequencies(theta, c.headDim())
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
