"""A real part for tests: kafka."""
