"""The command lines of the scripts that use a model: its options, a file, standard input."""

import contextlib
import os
import sys

from gpt1.options import SETTINGS, Number
from gpt1.parsing import Parser
from utils import InputError


def add_model_options(parser) -> None:
    """Add the options of every script that uses a model to an argparse parser or group."""
    add = parser.add_argument
    add(
        '--model_dir',
        help='folder of the vocabulary, and of the weights where no other parameters are named '
        '(default: that of the parameters; else model/, or the bundled sample if it is empty)',
    )
    default = '(default: that in the settings of the weights, else {})'
    heads = f'number of attention heads {default.format(12)}'
    add('--n_head', type=Number(int, 1, 10**5), help=heads)
    add('--afn', choices=SETTINGS['afn'].kind, help=f'activation {default.format("gelu")}')
    add('--device', default='auto', help='auto, cpu, cuda, or one device such as cuda:1')


def check_file(parser: Parser, path: str) -> None:
    """`check_paths` for an argument without a name."""
    if not os.path.exists(path):
        parser.refuse(f'no such file or folder: {path}')


@contextlib.contextmanager
def utf8_stdin():
    """Return a context in which standard input is UTF-8. Other text raises InputError."""
    with contextlib.suppress(AttributeError, ValueError):  # not a file, or already read
        sys.stdin.reconfigure(encoding='utf-8')
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError('standard input is not UTF-8 text') from error
