"""2D navigation."""
