import gc

import pytest


@pytest.fixture
def quick_collections():
    """Statsmodels collects garbage in each Holm correction; not to look at torch's objects saves a second each."""
    gc.freeze()
    yield
    gc.unfreeze()
