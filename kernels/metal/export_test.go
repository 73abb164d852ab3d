package metal

// LimitLogits makes the loss work on fewer rows at a time, until restore.
func LimitLogits(bytes, rows int) (restore func()) {
	b, r := logitBytes, leastRows
	logitBytes, leastRows = bytes, rows
	return func() { logitBytes, leastRows = b, r }
}
