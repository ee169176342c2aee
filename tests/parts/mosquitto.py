"""A real part for tests: mosquitto."""
