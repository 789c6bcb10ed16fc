"""The bus: the port (`base`) and its implementations."""
