"""What a command does: collaborators and settings in, records out. Nothing here prints."""
