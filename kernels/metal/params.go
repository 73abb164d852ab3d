// Code generated from the .metal files; DO NOT EDIT.

package metal

type softmaxParams struct {
	rows, cols, xStride, outStride, sequences uint32
	scale                                     float32
}
