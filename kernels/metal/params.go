// Code generated from the .metal files by gen; DO NOT EDIT.

package metal

import "unsafe"

// attentionParams is AttentionParams of attention.metal.
type attentionParams struct {
	tokens      uint32
	sequences   uint32
	headDim     uint32
	shared      uint32
	qStride     uint32
	kStride     uint32
	vStride     uint32
	outStride   uint32
	lseStride   uint32
	doutStride  uint32
	dqStride    uint32
	dkStride    uint32
	dvStride    uint32
	deltaStride uint32
	window      uint32
	aligned     uint32
	scale       float32
	cap         float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(attentionParams{})-72]

// elementParams is ElementParams of elementwise.metal.
type elementParams struct {
	rows      uint32
	cols      uint32
	aStride   uint32
	bStride   uint32
	outStride uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(elementParams{})-20]

// dropoutParams is DropoutParams of elementwise.metal.
type dropoutParams struct {
	rows      uint32
	cols      uint32
	xStride   uint32
	outStride uint32
	seedLow   uint32
	seedHigh  uint32
	stream    uint32
	purpose   uint32
	startLow  uint32
	startHigh uint32
	least     uint32
	factor    float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(dropoutParams{})-48]

// gatedParams is GatedParams of gated.metal.
type gatedParams struct {
	rows        uint32
	cols        uint32
	gateStride  uint32
	upStride    uint32
	outStride   uint32
	doutStride  uint32
	dgateStride uint32
	dupStride   uint32
	act         uint32
	out         uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(gatedParams{})-40]

// lossParams is LossParams of loss.metal.
type lossParams struct {
	vocabulary uint32
	stride     uint32
	lossStride uint32
	gradients  uint32
	scale      float32
	cap        float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(lossParams{})-24]

// normParams is NormParams of norm.metal.
type normParams struct {
	groups         uint32
	width          uint32
	xStride        uint32
	residualStride uint32
	sumStride      uint32
	outStride      uint32
	inverseStride  uint32
	weightType     uint32
	residual       uint32
	eps            float32
	offset         float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(normParams{})-44]

// normGradParams is NormGradParams of norm.metal.
type normGradParams struct {
	rows          uint32
	groups        uint32
	width         uint32
	xStride       uint32
	inverseStride uint32
	doutStride    uint32
	addStride     uint32
	dxStride      uint32
	outStride     uint32
	weightType    uint32
	add           uint32
	out           uint32
	offset        float32
	rowsEach      uint32
	parts         uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(normGradParams{})-60]

// clipParams is ClipParams of optimizer.metal.
type clipParams struct {
	count   uint32
	each    uint32
	parts   uint32
	divisor float32
	most    float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(clipParams{})-20]

// adamParams is AdamParams of optimizer.metal.
type adamParams struct {
	count      uint32
	keep       float32
	beta1      float32
	rest1      float32
	beta2      float32
	rest2      float32
	rate       float32
	correction float32
	epsilon    float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(adamParams{})-36]

// productOutput is ProductOutput of products.metal.
type productOutput struct {
	rows        uint32
	cols        uint32
	firstTile   uint32
	tilesAcross uint32
	firstTerm   uint32
	terms       uint32
	outType     uint32
	outStride   uint32
	add         uint32
	addType     uint32
	addStride   uint32
	bias        uint32
	biasType    uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(productOutput{})-52]

// productTerm is ProductTerm of products.metal.
type productTerm struct {
	x        uint32
	w        uint32
	xType    uint32
	wType    uint32
	xStride  uint32
	wStride  uint32
	depth    uint32
	xAcross  uint32
	wAcross  uint32
	xAligned uint32
	wAligned uint32
	scale    float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(productTerm{})-48]

// productsParams is ProductsParams of products.metal.
type productsParams struct {
	outputs uint32
	output  [8]productOutput
	term    [8]productTerm
}

var _ = [1]struct{}{}[unsafe.Sizeof(productsParams{})-804]

// rotaryTableParams is RotaryTableParams of rotary.metal.
type rotaryTableParams struct {
	pairs     uint32
	tokens    uint32
	outStride uint32
	scale     float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(rotaryTableParams{})-16]

// rotaryPart is RotaryPart of rotary.metal.
type rotaryPart struct {
	rows        uint32
	heads       uint32
	xStride     uint32
	outStride   uint32
	tableStride uint32
	headDim     uint32
	pairs       uint32
	sign        float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(rotaryPart{})-32]

// rotaryParams is RotaryParams of rotary.metal.
type rotaryParams struct {
	part [2]rotaryPart
}

var _ = [1]struct{}{}[unsafe.Sizeof(rotaryParams{})-64]

// rowsParams is RowsParams of rows.metal.
type rowsParams struct {
	rows       uint32
	cols       uint32
	count      uint32
	tableType  uint32
	fromStride uint32
	toStride   uint32
	scale      float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(rowsParams{})-28]

// rowsPair is RowsPair of rows.metal.
type rowsPair struct {
	part [2]rowsParams
}

var _ = [1]struct{}{}[unsafe.Sizeof(rowsPair{})-56]

// softmaxParams is SoftmaxParams of softmax.metal.
type softmaxParams struct {
	rows      uint32
	cols      uint32
	xStride   uint32
	outStride uint32
	sequences uint32
	scale     float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(softmaxParams{})-24]

// softmaxGradParams is SoftmaxGradParams of softmax.metal.
type softmaxGradParams struct {
	cols       uint32
	outStride  uint32
	doutStride uint32
	dxStride   uint32
	scale      float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(softmaxGradParams{})-20]
