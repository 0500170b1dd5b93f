"""Stop with one line under a Python that is too old.

Every script imports this module before all others that do not come with Python. The import of a
library would fail with a message that does not mention Python.
"""

import sys

OLDEST = (3, 11)  # requires-python in pyproject.toml

if sys.version_info < OLDEST:
    found, needed = ('.'.join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
    sys.stderr.write(f'error: this program needs Python {needed} or newer; this is {found}\n')
    sys.exit(2)
