"""Storage: the port (`base`) and its implementations."""
