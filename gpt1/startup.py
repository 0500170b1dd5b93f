"""What every script does before it imports a library: check Python, set how threads wait and draw.

Every script imports this module before all others that do not come with Python.
"""

import os
import sys

OLDEST = (3, 11)  # requires-python in pyproject.toml

# Under an older Python, the import of a library would fail with a message that does not mention it.
if sys.version_info < OLDEST:
    found, needed = ('.'.join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
    sys.stderr.write(f'error: this program needs Python {needed} or newer; this is {found}\n')
    sys.exit(2)

# The threads of OpenMP wait for each other after every operation. By default, a thread that waits
# keeps its core busy for milliseconds. If other programs need the cores, it takes the time of the
# thread that it waits for. Here, it keeps its core for about as long as it takes to wake a thread,
# and then sleeps: as fast if nothing else runs, and much faster otherwise (see
# benchmarks/commands.py --busy). OpenMP reads these variables when PyTorch is imported.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.setdefault('GOMP_SPINCOUNT', '1000')  # GNU: Linux
    os.environ.setdefault('KMP_BLOCKTIME', '0')  # Intel and LLVM: Windows, macOS, Conda

# Jupyter and Colab export the name of a module of theirs to `!python`, which another environment
# lacks: then Matplotlib cannot even be imported.
os.environ['MPLBACKEND'] = 'agg'
