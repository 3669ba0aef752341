"""The plan: what a study and a run consist of, as typed data that is checked once, where it enters.

``sections`` is what a run is made of, ``presets`` reads a whole study from YAML and cuts runs from it, ``study`` lists
the runs, ``runtimes`` what models run in, ``precision`` says what a plan's arithmetic means here. The ground floor: it
knows nothing of texts, networks, measurements or MLflow, and all but ``precision`` load without torch, so that a
mistake is answered at once.
"""
