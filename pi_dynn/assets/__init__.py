"""The embedded bundle, its model card and sample photographs."""
