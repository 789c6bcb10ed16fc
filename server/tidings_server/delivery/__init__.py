"""The way out: committed pages reach every connected device, in order, once."""
