"""The Tidings chat server."""
