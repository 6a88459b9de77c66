"""`pi-dynn learn`: from a folder of photographs to a bundle, within a given time."""
