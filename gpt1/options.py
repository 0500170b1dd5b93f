"""The options of `train.py` and `pretrain.py`, each declared once, in `options.toml`.

Parsing, `--help`, the check of `settings.json` and what `--resume` may change follow from this
table. Nothing here imports PyTorch, so that `--help` and wrong options are answered at once.
"""

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TRAIN = 'train.py'
PRETRAIN = 'pretrain.py'
NOT_OF_MODEL = {  # options that do not describe the other model
    'transformer': ('model', 'lstm_units'),
    'lstm': ('n_head', 'n_layer', 'afn', 'attn_pdrop'),
}


@dataclass(eq=False)
class Number:
    """The numbers from `low` to `high`, except those in `but`; `kind` is int or float.

    An instance is also the converter that argparse expects as the `type` of an option.
    """

    kind: type
    low: float
    high: float
    but: Sequence[float] = ()

    def __call__(self, text: str) -> int | float:
        """Convert what was typed. Raises argparse.ArgumentTypeError."""
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if not accepts(self, value):
            raise argparse.ArgumentTypeError(f'{text[:40]!r} given, expected {self}')
        return value

    def __str__(self):
        name = 'a whole number' if self.kind is int else 'a number'
        exceptions = ''.join(f', but not {n}' for n in self.but)
        return f'{name} from {self.low} to {self.high}{exceptions}'


def accepts(kind: object, value: object) -> bool:
    """Return whether an option of a kind (see `Option`) may have a value that was not typed."""
    if isinstance(kind, Number):
        types = (int,) if kind.kind is int else (int, float)  # a bool is neither
        return type(value) in types and kind.low <= value <= kind.high and value not in kind.but
    if isinstance(kind, tuple):
        return isinstance(value, str) and value in kind
    return isinstance(value, kind)


def expected(kind: object) -> str:
    """Return what an option of a kind accepts, in words."""
    if isinstance(kind, tuple):
        return 'one of ' + ', '.join(kind)
    return str(kind) if isinstance(kind, Number) else f'a {kind.__name__}'


@dataclass(frozen=True)
class Option:
    """An option of `train.py`, of `pretrain.py`, or of both."""

    name: str  # without the leading dashes
    kind: object  # a `Number`, a tuple of choices, `str`, `bool` (a flag) or `list` (of words)
    help: str
    defaults: dict[str, object]  # in each script that has it; None: the script decides
    free: bool = False  # whether a resumed run may give another value
    # Whether the `settings.json` of a model may set the default value: 'model', which
    # `pretrain.py --init` takes over too, or 'advice' for fine-tuning.
    setting: str = ''
    required: bool = False
    exists: bool = False  # whether it names a file or a folder that must exist
    metavar: str | None = None


def _option(name, help, kind='text', default=None, only=None, range=(), but=(), **more) -> Option:
    """Return the option that a table of `options.toml` describes.

    only     the script that has it; None: both
    default  its default value, or that of each script
    """
    kinds = {'int': int, 'float': float, 'flag': bool, 'words': list, 'text': str}
    kind = tuple(kind) if isinstance(kind, list) else kinds[kind]
    default = False if kind is bool else default
    if not isinstance(default, dict):
        default = dict.fromkeys([only] if only else [TRAIN, PRETRAIN], default)
    kind = Number(kind, *range, but) if range else kind
    return Option(name, kind, ' '.join(help.split()), default, **more)


OPTIONS = {
    title: [_option(name, **row) for name, row in rows.items()]
    for title, rows in tomllib.loads(Path(__file__).with_suffix('.toml').read_text('utf-8')).items()
}
ALL = [option for options in OPTIONS.values() for option in options]
SETTINGS = {option.name: option for option in ALL if option.setting}


def options_of(script: str) -> list[Option]:
    """Return the options of `script`, 'train.py' or 'pretrain.py', in the order of the table."""
    return [option for option in ALL if script in option.defaults]
