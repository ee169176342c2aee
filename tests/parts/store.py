"""A real part for tests: store."""
