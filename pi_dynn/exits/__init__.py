"""Gates, confidence scores and where exits may stand (torch, scriptable)."""
