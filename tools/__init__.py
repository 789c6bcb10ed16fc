"""Programs to develop, measure and check Tidings with."""
