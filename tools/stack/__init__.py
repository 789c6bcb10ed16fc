"""The servers that a cluster of Tidings nodes stands on, started here for development and tests."""
