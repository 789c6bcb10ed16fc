"""Unary operations, whichever transport they come by: who may call what, how many at once, and the call itself."""
