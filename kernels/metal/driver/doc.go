// Package driver opens the GPU of a Mac as a [metal.Device].
//
// What calls Metal is in driver.m, small, and built on macOS with cgo only. All
// that decides something is plain Go, so that it is tested on any system: which
// source holds a kernel (index), where a list of launches is cut into command
// buffers (budget, run), what a pipeline's limits allow (check), which memory
// the GPU can use in place (window), and what errors tell people to do.
//
// Kernels are compiled when they are first launched: each .metal file to a
// library, each kernel to a pipeline, whose machine code is kept in the user's
// cache folder.
//
// Errors begin with "metal: " and say what to change where a user can do so.
package driver
