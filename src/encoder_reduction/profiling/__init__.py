"""Measurements on this machine: time, memory, computation, energy, and whether the machine was fit for them.

``inference`` says what a classifier is timed on; the others measure any function and know nothing of encoders. None
knows of corpora by name, of a run, or of MLflow.
"""
