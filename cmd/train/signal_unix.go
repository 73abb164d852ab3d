//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// showSignal delivers SIGUSR1, which asks a run for its profile so far.
func showSignal() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	return c
}
