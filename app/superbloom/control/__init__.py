"""The wire between our own processes: JSON lines on loopback, opened with a token."""
