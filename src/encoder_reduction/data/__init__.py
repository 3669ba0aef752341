"""Texts: from the hub, a folder or a package to labelled splits, and from there to token ids.

``corpora`` gives train, validation and test; ``tokenisation`` their token ids, ``calibration`` batches of them;
``hub``, ``packaged_text`` and ``cache`` are where files come from and are kept. It knows nothing of networks, of what
is measured or of MLflow.
"""
