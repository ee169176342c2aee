"""The checkpointed tables, declared once each; a table belongs to the one agent that writes it."""
