"""Gates, confidence scores and positions of exits (torch, scriptable)."""
