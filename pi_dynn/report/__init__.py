"""Saved runs of every kind, read back and shown as tables, plots or one page."""
