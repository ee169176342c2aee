"""Contenders: each a process of its own that reads a topic to its end and says how far it is."""
