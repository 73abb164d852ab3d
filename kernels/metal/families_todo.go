package metal

import "graft/kernels"

func (e *encoder) rotary(ops []kernels.Op)                { panic("todo") }
func (e *encoder) rotaryTable(o *kernels.RotaryTable)     { panic("todo") }
func (e *encoder) embed(o *kernels.Embed)                 { panic("todo") }
func (e *encoder) embedGrad(o *kernels.EmbedGrad)         { panic("todo") }
func (e *encoder) rmsNorm(o *kernels.RMSNorm)             { panic("todo") }
func (e *encoder) rmsNormGrad(o *kernels.RMSNormGrad)     { panic("todo") }
func (e *encoder) biasGrad(o *kernels.BiasGrad)           { panic("todo") }
func (e *encoder) attention(o *kernels.Attention)         { panic("todo") }
func (e *encoder) attentionGrad(o *kernels.AttentionGrad) { panic("todo") }
func (e *encoder) softmaxGrad(o *kernels.SoftmaxGrad)     { panic("todo") }
func (e *encoder) gated(o *kernels.Gated)                 { panic("todo") }
func (e *encoder) gatedGrad(o *kernels.GatedGrad)         { panic("todo") }
func (e *encoder) gather(o *kernels.Gather)               { panic("todo") }
func (e *encoder) scatter(o *kernels.Scatter)             { panic("todo") }
func (e *encoder) sum(o *kernels.Sum)                     { panic("todo") }
func (e *encoder) dropout(o *kernels.Dropout)             { panic("todo") }
func (e *encoder) zero(o *kernels.Zero)                   { panic("todo") }
func (e *encoder) clipNorm(o *kernels.ClipNorm)           { panic("todo") }
func (e *encoder) adamW(o *kernels.AdamW)                 { panic("todo") }
func rmsNormGradNeed(o *kernels.RMSNormGrad) int          { panic("todo") }
func attentionGradNeed(o *kernels.AttentionGrad) int      { panic("todo") }
func clipNormNeed(o *kernels.ClipNorm) int                { panic("todo") }
func (e *encoder) products(ops []kernels.Op)              { panic("todo") }
func (e *encoder) crossEntropy(o *kernels.CrossEntropy)   { panic("todo") }
func crossEntropyNeed(o *kernels.CrossEntropy) int        { panic("todo") }
