"""One run: ``run.execute`` reads top to bottom and calls all wings below.

``figures`` names what is measured, ``description`` what the run says of itself, ``sources`` finds the run that it
builds on, ``paired`` measures finished models in turn, ``contenders`` are these in each runtime. It knows nothing of
other runs' fate, of Slurm, or of how runs are compared.
"""
