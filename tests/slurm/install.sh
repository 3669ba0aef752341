#!/usr/bin/env bash
# What the tests of slurm/ and of the tracking server need from Debian: Slurm, PostgreSQL, shellcheck. Needs root.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge postgresql shellcheck
