//go:build !unix

package checkpoints

// syncDir does nothing: folders cannot be synced here.
func syncDir(string) error { return nil }
