package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// plain is a log handler for people: "train: warning: message (key value)", in
// one line.
type plain struct{ w io.Writer }

func (p plain) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (p plain) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("train: ")
	if r.Level >= slog.LevelWarn {
		b.WriteString("warning: ")
	}
	b.WriteString(r.Message)
	separator := " ("
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, "%s%s: %v", separator, a.Key, a.Value)
		separator = ", "
		return true
	})
	if r.NumAttrs() > 0 {
		b.WriteByte(')')
	}
	b.WriteByte('\n')
	_, err := io.WriteString(p.w, b.String())
	return err
}

func (p plain) WithAttrs([]slog.Attr) slog.Handler { return p }
func (p plain) WithGroup(string) slog.Handler      { return p }
