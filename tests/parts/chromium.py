"""A real part for tests: chromium."""
