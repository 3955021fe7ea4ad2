"""Images: found, read and decoded."""
