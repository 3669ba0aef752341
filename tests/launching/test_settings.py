"""The settings of the cluster, as whatever editor has saved them."""

import subprocess

import pytest

from conftest import ROOT, environment


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_may_end_as_on_windows(tmp_path, end):
    lines = ["GRES=gpu:a40:1   # a comment", 'activate() { echo "active"; }', "CPUS=8", ""]
    (tmp_path / "cluster.env").write_bytes(end.join(lines).encode())
    said = subprocess.run(
        ["bash", "-c", 'source slurm/settings.sh; activate; echo "$GRES $CPUS."'],
        cwd=ROOT, env=environment(CLUSTER_ENV=str(tmp_path / "cluster.env")), capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout == "active\ngpu:a40:1 8.\n", said.stderr
