"""Faults on real processes, one after the other, each under load and with everything verified afterwards."""
