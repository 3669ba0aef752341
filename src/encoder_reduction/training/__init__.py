"""Fine-tuning: from a network and token ids to a trained network, what it took, and what it scores.

``fine_tuning`` assembles the Trainer, ``trainer`` is what it does at each step, ``cpu`` and ``gpu`` how that is done
fastest on either (``devices`` chooses, ``attention`` sets and says what computes it), ``recorder`` says what happens
meanwhile, ``batches`` orders the examples, ``pieces`` lets an interrupted training go on exactly, ``distillation`` adds
a teacher, ``prediction`` gives logits, which ``evaluation`` scores. It knows nothing of how the network was cut, of
runs, or of MLflow.
"""
