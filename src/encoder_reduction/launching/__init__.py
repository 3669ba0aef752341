"""Many runs: which are missing, and their way through this machine (``local``) or Slurm (``cluster``, ``queue``).

``study`` is the whole plan here, ``progress`` how far it is, ``pairing`` which models are measured in turn,
``forking`` gives each run a fresh process, for which ``beforehand`` has been done, ``prefetch`` what must lie here
beforehand, ``export`` takes a registered model to where it is run. It knows nothing of what happens within a run.
"""
