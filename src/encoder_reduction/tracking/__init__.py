"""All that is said to MLflow and read back from it: no other wing imports mlflow.

``opening`` opens and ends runs, ``run`` is what an open one can say, ``outbox`` keeps it on disk until it has arrived
(for as long as ``patience`` says); ``store`` reads runs back, ``matching`` tells which are the plan's, ``destination``
says where, ``pages`` where people look at it, ``registry`` names the best, ``logged_models`` removes the others;
``fingerprints`` tells whether a run is done, ``run_folder`` what of it outlives its process, ``job`` what Slurm must
know of it, ``served_model`` travels with the model. It knows nothing of how a run comes about or is compared. Its
modules are imported by name, since ``job`` is needed where a mistake must not wait for MLflow to load.
"""
