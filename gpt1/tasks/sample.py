"""Made-up data for the paper's other tasks, in their official formats and under their file names.

data/README.md says how they were made, and what their labels depend on.
"""

import errno
import os
import tarfile
import tempfile

from gpt1 import ROOT
from utils import WriteError

ARCHIVE = os.path.join(ROOT, 'data', 'sample', 'tasks.tar.xz')


def unpack(name: str, folder: str) -> None:
    """Unpack the folder `name` of the archive into `folder`, whole or not at all.

    One that is there is not replaced. Raises WriteError.
    """
    target = os.path.join(folder, name)
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{name}.', dir=folder) as beside:
            with tarfile.open(ARCHIVE) as archive:
                members = [member for member in archive if member.name.startswith(f'{name}/')]
                archive.extractall(beside, members)
            os.rename(os.path.join(beside, name), target)
    except OSError as error:
        is_there = error.errno in (errno.ENOTEMPTY, errno.EEXIST) and os.path.isdir(target)
        if not is_there:  # by another process, which has just made the same files
            raise WriteError(f'cannot write {target}: {error.strerror or error}') from error
