"""Running bundles: load and verify, choose an engine, answer images. Needs no training code."""
