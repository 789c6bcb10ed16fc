"""Replay: real conversations played through real Chat streams to many devices, every one of which is verified."""
