// Package accelerate calls the sgemm of Accelerate, the library of macOS that
// multiplies matrices on units of Apple silicon for which there are no public
// instructions (AMX; SME since the M4). It has the function Sgemm on Macs with
// Apple silicon, where cgo is on, and nothing elsewhere.
//
// It is a package of its own because Go does not assemble .s files beside files
// that use cgo.
package accelerate
