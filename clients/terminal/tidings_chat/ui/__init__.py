"""The screen: Textual widgets over a ChatSession."""
