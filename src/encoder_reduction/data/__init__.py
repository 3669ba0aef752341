"""Texts: from the hub, a folder or a package to labelled splits, and from there to token ids.

``corpora`` gives train, validation and test, out of the files that ``splits`` finds, whose ``cells`` are read as they
stand and whose ``labels`` go by what they mean; ``tokenisation`` gives their token ids, ``calibration`` batches.
``hub``, ``packaged_text`` and ``cache`` are where files come from and are kept, ``inputs`` and ``contents`` say what
they are beyond their names. It knows nothing of networks, of what is measured or of MLflow.
"""
