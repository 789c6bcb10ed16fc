"""The terminal chat client of Tidings: a Textual application over the SDK `tidings`."""
