"""The files that environments are made from agree with each other."""

import hashlib

from conftest import ROOT


def test_conda_makes_another_environment_for_other_pins():
    """MLflow reuses the one of the same conda.yaml, whatever the file of pins that it refers to has become."""
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()[:16]
    assert f"# {digest}\n" in (ROOT / "conda.yaml").read_text(), f"put {digest} into conda.yaml"
