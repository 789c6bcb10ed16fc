"""Tests of the server and of the whole."""
