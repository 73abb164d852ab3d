// Code generated from the .metal files by gen; DO NOT EDIT.

package metal

import "unsafe"

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
