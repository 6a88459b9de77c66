"""A page and an HTTP API around one classifier. Needs the extra [serve]."""
