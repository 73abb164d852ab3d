//go:build !unix

package main

import "os"

// showSignal returns nil: there is no signal to ask with.
func showSignal() <-chan os.Signal { return nil }
