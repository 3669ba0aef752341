"""What the fork server does once, so that none of the processes that are forked from it need do it again.

Nothing here starts a thread, which a forked process would not have.
"""

from contextlib import suppress

from ..runs import paired, run  # noqa: F401
from ..tracking import fingerprints, logged_models

fingerprints.of_code()
with suppress(Exception):  # The run that cannot write its model says why.
    logged_models.rehearse()
