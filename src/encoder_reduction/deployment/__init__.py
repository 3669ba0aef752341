"""A classifier where people run it: exported to ONNX, quantised to int8, run by ONNX Runtime.

``export`` writes and checks the file, ``quantisation`` makes int8 of it, ``session`` runs it, ``folder`` lays out what
others need to run it; ``libraries`` imports what is optional, or says how to install it. It knows nothing of corpora,
of runs, of MLflow, or of how a network was cut and trained.
"""
