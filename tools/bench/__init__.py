"""The benchmark: what a message, a delivery, a connection and a caught-up message cost the server."""
