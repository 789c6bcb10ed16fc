"""The simulator: whole worlds of devices, a network, crashing servers and a clock, in one thread and repeatable."""
