package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
)

// plain is a log handler for people: "train: warning: message (key value)", in
// one line.
type plain struct {
	w     io.Writer
	attrs []slog.Attr // of every message
	group string      // prefix of their keys
}

func (p plain) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (p plain) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("train: ")
	if r.Level >= slog.LevelWarn {
		b.WriteString("warning: ")
	}
	b.WriteString(r.Message)
	attrs := slices.Clone(p.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, slog.Attr{Key: p.group + a.Key, Value: a.Value})
		return true
	})
	for i, a := range attrs {
		fmt.Fprintf(&b, "%s%s: %v", []string{" (", ", "}[min(i, 1)], a.Key, a.Value)
	}
	if len(attrs) > 0 {
		b.WriteByte(')')
	}
	b.WriteByte('\n')
	_, err := io.WriteString(p.w, b.String())
	return err
}

func (p plain) WithAttrs(attrs []slog.Attr) slog.Handler {
	p.attrs = slices.Clone(p.attrs)
	for _, a := range attrs {
		p.attrs = append(p.attrs, slog.Attr{Key: p.group + a.Key, Value: a.Value})
	}
	return p
}

func (p plain) WithGroup(name string) slog.Handler {
	p.group += name + "."
	return p
}
