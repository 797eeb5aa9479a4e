"""Immutable descriptions of what should run and of what was observed. Pure."""
