"""Measurements of a network on this machine; knows nothing of encoders or of experiment tracking."""
