"""How long an answer takes, where the time goes, and what others need for it."""
