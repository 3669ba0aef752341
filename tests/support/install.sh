#!/usr/bin/env bash
# What the tests need from Debian: Slurm, PostgreSQL, shellcheck, a browser. Needs root.
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge postgresql shellcheck \
    chromium fonts-dejavu-core
