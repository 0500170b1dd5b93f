"""Made-up data for the paper's other tasks, in their official formats and under their file names.

    python data/sample_tasks.py --task cola

unpacks the data of one task into data/sample, `--task all` that of every task. `train.py` does the
same on first use. data/README.md says how they were made, and what their labels depend on.
"""

import argparse
import contextlib
import os
import sys
import tarfile
import tempfile

from gpt1.tasks.sample.stories import FOLDER
from utils import InputError, WriteError

ARCHIVE = os.path.join(FOLDER, 'tasks.tar.xz')
MADE = {  # task -> its folder, as the official archive unpacks
    'snli': 'snli_1.0',
    'mnli': 'MNLI',
    'qnli': 'QNLI',
    'scitail': 'SciTailV1.1',
    'rte': 'RTE',
    'race': 'RACE',
    'qqp': 'QQP',
    'mrpc': 'MRPC',
    'stsb': 'STS-B',
    'cola': 'CoLA',
    'sst2': 'SST-2',
    'wnli': 'WNLI',
    'dprd': 'DPRD',
}


def make(name: str, folder: str) -> str:
    """Write the data of a task into its folder in `folder`, and return the path of that folder.

    The folder appears whole, or not at all; one that is there is replaced. Raises InputError if
    there is no such task, WriteError if the files cannot be written.
    """
    if name not in MADE:
        raise InputError(f'no made-up data for {name!r}: expected one of {", ".join(MADE)}')
    target = os.path.join(folder, MADE[name])
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{MADE[name]}.', dir=folder) as beside:
            unpack(MADE[name], beside)
            replace(target, os.path.join(beside, MADE[name]), os.path.join(beside, 'old'))
    except OSError as error:
        raise WriteError(f'cannot write {target}: {error.strerror or error}') from error
    return target


def unpack(top: str, folder: str) -> None:
    """Write the files below the folder `top` of the archive into `folder`."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.name.startswith(f'{top}/'):
                path = os.path.join(folder, member.name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, 'wb') as f:
                    f.write(archive.extractfile(member).read())


def replace(target: str, new: str, old: str) -> None:
    """Rename the folder `new` to `target`. A folder that is there is renamed to `old` first."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        if not os.path.isdir(target):  # else another process has just made the same files
            raise


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Write made-up data for the paper's tasks, in their official formats."
    )
    parser.add_argument('--task', choices=[*MADE, 'all'], required=True, help='which data')
    parser.add_argument(
        '--out', metavar='DIR', default=FOLDER, help='where to (default: data/sample)'
    )
    args = parser.parse_args(argv)
    for name in MADE if args.task == 'all' else [args.task]:
        try:
            print(make(name, args.out))
        except WriteError as error:
            print(f'sample_tasks.py: error: {error}', file=sys.stderr)
            return 2
    return 0
