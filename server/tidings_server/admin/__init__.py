"""What operators ask of a node: who is connected, where logs stand, what became of a message."""
