"""Presence: who is there, and what they say of it."""
