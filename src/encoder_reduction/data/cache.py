"""Where fetched text and computed logits are kept between runs."""

import os
from pathlib import Path

VARIABLE = "ENCODER_REDUCTION_CACHE"


def directory() -> Path:
    """The folder that ``ENCODER_REDUCTION_CACHE`` names, or one in the user's cache directory."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "encoder-reduction"
