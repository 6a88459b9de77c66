"""Exit tables and thresholds: pure arrays in, records out."""
