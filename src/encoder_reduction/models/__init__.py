"""Networks: classifiers and their tokenizers by name, and where each family keeps its dimensions and weights.

``checkpoints`` loads from the hub, a folder or the package, with ``weights`` and ``tokenizers`` whole or in a sentence;
``architectures`` has one file a family. It knows nothing of how a network is cut, trained or measured, nor of MLflow.
"""
