"""Numbered steps of the schema; `tpstream.storage.schema` applies them in order."""
