"""What the scripts share: the error a person can mend, whole files, the log, devices, and batches.

A batch is a set of trees. A story's two sequences, `_start_ story _delimiter_ ending _classify_`, share everything up to
`_delimiter_`: a trunk with two branches. `collate` lays the same tree out in one of two ways, and the model need not know which:

separate  two rows a story, each trunk + one branch: the way of OpenAI's program;
shared    one row a story, trunk + branch 1 + branch 2: a third fewer tokens for the same losses.

In both, a token sees the earlier tokens of the trunk and of its own branch, and is predicted from its parent, the token before it on that path.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import math
import os
import shutil
import signal
import sys
import textwrap
import time
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch

SPECIAL_TOKENS = (
    '_start_',
    '_delimiter_',
    '_classify_',
)  # they follow the vocabulary, in this order


class InputError(Exception):
    """Something the user gave is wrong. The message is one line: what, where, what was expected, what to do."""

    def __init__(self, message):
        super().__init__(
            ' '.join(message.split())
        )  # file names and what other libraries say may have line ends


class OutOfMemory(InputError):
    """A device's memory is too small. Of several processes, it may concern one alone."""


class WriteError(InputError):
    """A file could not be written."""


# --------------------------------------------------------------------------------------------------------- command line


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something, and keeps the line breaks of the description and the epilog."""

    def _get_default_metavar_for_optional(self, action):
        """N a whole number, X a number, DIR a folder, FILE a file; else as argparse has it."""
        kinds = {'whole number': 'N', 'number': 'X', '_dir': 'DIR', '_path': 'FILE'}
        return next(
            (
                kind
                for end, kind in kinds.items()
                if getattr(action.type, '__name__', '') == end or action.dest.endswith(end)
            ),
            super()._get_default_metavar_for_optional(action),
        )

    def _get_help_string(self, action):
        return (
            action.help
            if action.default is None or action.default is False or action.default == []
            else super()._get_help_string(action)
        )

    def _fill_text(self, text, width, indent):
        """Paragraphs are filled; lines that begin with spaces, and empty ones, stay."""
        parts = itertools.groupby(
            text.strip().splitlines(), lambda line: line.startswith(' ') or not line
        )
        fill = super()._fill_text
        return '\n'.join(
            '\n'.join(lines) if as_is else fill(' '.join(lines), width, indent)
            for as_is, lines in parts
        )


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage before it."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=HelpFormatter, **kwargs)

    def error(self, message):
        self.exit(2, f'{self.prog}: error: {message}; see --help\n')


def number(kind, low, high=math.inf, but=()):
    """For an option's `type`: an int or a float from `low` to `high`, but none of `but`."""

    def convert(text):
        value = kind(text)
        if not low <= value <= high or value in (*but, math.inf):
            raise argparse.ArgumentTypeError(
                f'{text} is out of range: expected {low} to {high}'
                + ''.join(f', but not {n}' for n in but)
            )
        return value

    convert.__name__ = {int: 'whole number', float: 'number'}[kind]
    return convert


BAR = '{desc} {percentage:3.0f}%|{bar}| {remaining} left, {rate_fmt}{postfix}'  # of tqdm, for training: in 80 columns there is room for the bar


def table(lines):
    """Pairs of a name and what is to be said of it as lines of text, wrapped where they go to a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    return '\n'.join(
        textwrap.fill(
            text,
            width,
            initial_indent=f'{name:10}',
            subsequent_indent=' ' * 10,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in lines
    )


class Stopped(Exception):
    """The run was asked to stop by a signal, and has written its checkpoint."""

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum  # the shell's convention


def exit_status(name, run, args):
    """Run a script. Returns its exit status: 2, with one line on stderr, where something the user gave is wrong; 128 + its number after a signal."""
    first = os.environ.get('RANK', '0') == '0'  # of the processes of a run, one speaks
    try:
        run(args)
    except InputError as error:
        if first or isinstance(error, OutOfMemory):
            go_on = (
                '; once there is room, the same command with --resume goes on'
                if isinstance(error, WriteError) and 'resume' in args
                else ''
            )
            print(f'{name}: error: {error}{go_on}', file=sys.stderr)
        return 2
    except (
        torch.OutOfMemoryError
    ) as error:  # where nothing can be halved: in moving the model to the device, in the optimizer
        print(f'{name}: error: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    except Stopped as stopped:
        if first:
            print('stopped; the same command with --resume goes on from here', file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---------------------------------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def whole_file(path, mode='w'):
    """Open `path` for writing so that it appears whole or not at all: written beside its place, flushed, synced, renamed.

    Raises WriteError if that fails (a full disk, say); an earlier file is then still there.
    """
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f'.{name}.{os.getpid()}.part')
    try:
        os.makedirs(folder or '.', exist_ok=True)
        with open(
            beside, mode, **({} if 'b' in mode else {'encoding': 'utf-8', 'newline': ''})
        ) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        failed = (
            error.__context__ if isinstance(error, RuntimeError) else error
        )  # torch.save words a failed write its own way
        if isinstance(failed, OSError):
            raise WriteError(
                f'cannot write {path}: {failed.strerror or failed}; what stood there before is unchanged'
            ) from error
        raise


def check_writable(folder):
    """Raise InputError if files cannot be written to `folder`, which need not exist yet. Creates nothing."""
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f'cannot write to {folder}: {place} is not a folder that you may write to')


def default_folder(folder, files):
    """`folder`; or, if it holds none of `files` and has a subfolder `sample/`, that."""
    sample = os.path.join(folder, 'sample/')
    return (
        sample
        if os.path.isdir(sample)
        and not any(os.path.exists(os.path.join(folder, name)) for name in files)
        else folder
    )


def is_sample(folder, kind):
    """Whether `folder` is our sample of a `kind`, data or model: below the working folder, or beside this file."""
    places = '', os.path.dirname(os.path.abspath(__file__))
    return os.path.realpath(folder) in [
        os.path.realpath(os.path.join(place, kind, 'sample')) for place in places
    ]


class ResultLogger:
    """A JSON-lines log (the original's format): all arguments first, then a line for each evaluation, each with its `time`.

    `lines` are those of an interrupted run, to go on after. The file is written whole each time: it has a line for each evaluation only.
    """

    def __init__(self, path, lines=(), **arguments):
        self.path, self.lines = path, list(lines)
        if not self.lines:
            self.log(**arguments)

    def log(self, **values):
        self.lines.append({**values, 'time': time.time()})
        with whole_file(self.path) as f:
            f.writelines(json.dumps(line) + '\n' for line in self.lines)


class TensorBoardLogger(ResultLogger):
    """A log that TensorBoard, which must be installed, shows too."""

    def __init__(self, path, lines=(), **arguments):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(os.path.splitext(path)[0])
        super().__init__(path, lines, **arguments)

    def log(self, **values):
        super().log(**values)
        for name in {'tr_cost', 'va_cost', 'tr_acc', 'va_acc'} & values.keys():
            self.writer.add_scalar(name, values[name], values['n_updates'])
        self.writer.flush()


# -------------------------------------------------------------------------------------------------------------- devices


def find_devices(device, n_gpu):
    """The devices to run on: [cpu], one named CUDA device, or (`auto`, `cuda`) up to `n_gpu` CUDA devices.

    Raises InputError if the device is not there.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == 'auto':
        device = 'cuda' if found else 'cpu'
    if device == 'cpu':
        return [torch.device('cpu')]
    if device == 'cuda' and found:
        return [torch.device('cuda', i) for i in range(min(n_gpu, found))]
    kind, _, index = device.partition(':')
    if kind != 'cuda' or (index and not index.isdecimal()):
        raise InputError(
            f'--device {device}: expected auto, cpu, cuda, or a CUDA device such as cuda:1'
        )
    if not index or int(index) >= found:
        raise InputError(
            f'--device {device}: there {"is" if found == 1 else "are"} {found or "no"} CUDA device{"s" * (found != 1)} here'
        )
    return [torch.device('cuda', int(index))]


def keep_freed_memory():
    """Tell glibc to keep freed memory for the next step: handed back to the system, it would be mapped and cleared anew in each. Elsewhere, does nothing."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free bytes at the heap's end


# -------------------------------------------------------------------------------------------------------------- batches


class Story(NamedTuple):
    """One encoded story: token ids of the trunk `_start_ story _delimiter_`, of two branches `ending _classify_`, and the label."""

    trunk: np.ndarray
    branches: tuple
    label: int  # 0 or 1: the right ending; -1 where it is not known
    id: str  # as in the data


def encode_dataset(splits, encode_all, progress=None):
    """Encode the `datasets.Stories` of each split: a list of (stories, endings1, endings2), each a list of token ids for each text.

    `encode_all` takes a list of texts. `progress` is a tqdm bar, or nothing.
    """

    def encode(texts):
        ids = encode_all(texts)
        if progress is not None:
            progress.update(len(texts))
        return ids

    return [
        tuple(encode(texts) for texts in (split.story, split.ending1, split.ending2))
        for split in splits
    ]


def transform_roc(stories, endings1, endings2, labels, ids, n_vocab, max_len):
    """Token ids to `Story`s. `max_len` cuts the story and each ending, each on its own. (`transform_roc` of the original.)"""
    start, delimiter, classify = range(n_vocab, n_vocab + len(SPECIAL_TOKENS))
    return [
        Story(
            np.array([start, *story[:max_len], delimiter]),
            tuple(np.array([*ending[:max_len], classify]) for ending in endings),
            label,
            name,
        )
        for story, *endings, label, name in zip(stories, endings1, endings2, labels, ids)
    ]


def longest_sequence(stories):
    """The longest sequence in tokens, special ones included; n_ctx is lowered to it."""
    return max(len(story.trunk) + max(map(len, story.branches)) for story in stories)


@dataclass
class Batch:
    """Rows of tokens, packed: the real tokens of all rows one after another, without the padding.

    tokens = all real tokens, predictions = those with a parent, length = at least the longest row. Both come with a few more at their end, for `few_sizes`:
    tokens out of the padding, which nothing sees, and predictions of weight 0.
    """

    ids: torch.Tensor  # [tokens] rows of the embedding
    positions: torch.Tensor  # [tokens] rows of the embedding
    slots: torch.Tensor  # [tokens] where each stands in the padded rows [rows * length]
    lm_parent: torch.Tensor  # [predictions] the token whose state predicts
    lm_target: torch.Tensor  # [predictions] the id to predict
    lm_weight: (
        torch.Tensor
    )  # [predictions] float64, its weight: LM loss of a row = sum of weight * cross-entropy
    lm_row: torch.Tensor  # [predictions] its row
    rows: int
    length: int
    branch: torch.Tensor | None = (
        None  # [rows, length] 0 trunk, 1, 2; None where every row is a plain chain
    )
    clf: torch.Tensor | None = None  # [stories, 2] the `_classify_` token of each ending
    label: torch.Tensor | None = None  # [stories]

    def _map(self, function):
        return replace(
            self,
            **{
                f.name: function(v)
                for f in fields(self)
                if isinstance(v := getattr(self, f.name), torch.Tensor)
            },
        )

    def to(self, device):
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self):
        return self._map(torch.Tensor.pin_memory)


def few_sizes(n):
    """n, rounded up to five significant bits: by less than a sixteenth.

    Batches then come in few sizes. On a CPU each new size costs oneDNN the preparation of all its products, which it keeps, in memory that lies scattered
    between the arrays of a step; and arrays of ever-new sizes do not find room in each other's place.
    """
    return n + -n % (1 << max(n.bit_length() - 5, 0))


def collate(stories, first_position, share_context):
    """Lay `Story`s out as a `Batch`, in *shared* or *separate* rows.

    `first_position` is the embedding row of position 0 (n_vocab + n_special).
    Each sequence's LM loss is the mean over its tokens after the first, so a token weighs 1 / (tokens - 1) in its sequence; a trunk token
    of a shared row stands for two, and carries the sum of both weights.
    """
    rows = []  # each: the parts of a row in order, as (ids, its first position, its branch, its weight)
    for trunk, branches, *_ in stories:
        weights = [1 / (len(trunk) + len(branch) - 1) for branch in branches]
        if share_context:
            rows.append(
                [(trunk, 0, 0, sum(weights))]
                + [
                    (branch, len(trunk), i, weight)
                    for i, (branch, weight) in enumerate(zip(branches, weights), 1)
                ]
            )
        else:
            rows += [
                [(trunk, 0, 0, weight), (branch, len(trunk), 0, weight)]
                for branch, weight in zip(branches, weights)
            ]
    row_lengths = [sum(len(part[0]) for part in row) for row in rows]
    length = few_sizes(max(row_lengths))
    offsets = np.cumsum([0] + row_lengths[:-1])  # a row's first token among all
    parts = [part for row in rows for part in row]
    part_lengths = [len(part[0]) for part in parts]
    part_rows = np.repeat(np.arange(len(rows)), [len(row) for row in rows])

    ids = np.concatenate([part[0] for part in parts])
    row = np.repeat(part_rows, part_lengths)
    index = np.arange(len(ids))
    position = index - np.repeat(
        np.cumsum([0] + part_lengths[:-1]) - [part[1] for part in parts], part_lengths
    )
    slots = row * length + index - offsets[row]
    # A token's parent is the token before it, except for the first token of branch 2, whose parent is the end of the trunk: the only place in a
    # row where the positions jump back.
    parent = np.where(np.diff(position, prepend=-1) == 1, index - 1, offsets[row] + position - 1)
    predicted = position > 0
    clf = (
        np.cumsum(part_lengths) - 1
    )  # the last token of each part; of the branches, that is `_classify_`
    branch = None
    if share_context:
        branch = np.zeros(len(rows) * length, dtype=np.int8)
        branch[slots] = np.repeat([part[2] for part in parts], part_lengths)
        branch = torch.from_numpy(branch.reshape(len(rows), length))
        clf = clf.reshape(-1, 3)[:, 1:]
        # Endings that are alike (once cut, say) are one: rounding must not choose between them. In separate rows it does not.
        alike = [np.array_equal(*branches) for _, branches, *_ in stories]
        clf[alike, 1] = clf[alike, 0]
    else:
        clf = clf.reshape(-1, 2, 2)[:, :, 1]

    def filled(array, size):
        return torch.from_numpy(np.pad(array, (0, size - len(array))))

    free = np.setdiff1d(np.arange(len(rows) * length), slots)[: few_sizes(len(ids)) - len(ids)]
    tokens, predictions = len(ids) + len(free), few_sizes(int(predicted.sum()))
    weight = np.repeat([part[3] for part in parts], part_lengths)
    return Batch(
        ids=filled(ids, tokens),
        positions=first_position + filled(position, tokens),
        slots=torch.from_numpy(np.append(slots, free)),
        lm_parent=filled(parent[predicted], predictions),
        lm_target=filled(ids[predicted], predictions),
        lm_weight=filled(weight[predicted], predictions),
        lm_row=filled(row[predicted], predictions),
        rows=len(rows),
        length=length,
        branch=branch,
        clf=torch.from_numpy(np.ascontiguousarray(clf)),
        label=torch.tensor([story.label for story in stories]),
    )


def collate_windows(ids, first_position):
    """Windows of running text, ids [rows, length] int64, as a `Batch`: plain chains, each token after the first predicted, their mean a row's loss."""
    rows, length = ids.shape
    ids = torch.from_numpy(ids)
    index = torch.arange(rows * length).view(rows, length)
    predictions = rows * (length - 1)
    return Batch(
        ids=ids.flatten(),
        positions=first_position + torch.arange(length).repeat(rows),
        slots=index.flatten(),
        lm_parent=index[:, :-1].flatten(),
        lm_target=ids[:, 1:].flatten(),
        lm_weight=torch.full((predictions,), 1 / (length - 1), dtype=torch.float64),
        lm_row=torch.arange(rows).repeat_interleave(length - 1),
        rows=rows,
        length=length,
    )


def iter_data(n_stories, n_batch, random_state):
    """Yield the story numbers of each batch of one epoch, shuffled; the last partial batch is dropped.

    The order is that of `sklearn.utils.shuffle(..., random_state)`, which the original calls once an epoch.
    """
    order = np.arange(n_stories)
    random_state.shuffle(order)
    for first in range(0, n_stories - n_batch + 1, n_batch):
        yield order[first : first + n_batch]
