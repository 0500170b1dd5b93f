"""Token ids to batches of trees.

The sequences of an example share their beginning: they are a tree, a trunk with branches (paper,
section 3.3). The sequences `_start_ story _delimiter_ ending _classify_` of a story, for
instance, differ in the ending only. `collate` lays a tree out in one of two ways:

    a tree of six tokens    separate rows    a shared row
           c - d            a b c d          a b c d e f    tokens
      a - b                 a b e f          0 1 2 3 2 3    positions
           e - f                             0 0 1 1 2 2    branch (0: trunk)
                                             - a b c b e    parent

separate  one row a sequence, as in OpenAI's program
shared    one row an example: fewer tokens, the same losses. With dropout, the sequences of an
          example then share their masks on the trunk; the original's do not.

In both, a token sees the earlier tokens of the trunk and of its own branch. It is predicted from
its parent, the token before it on that path. The model does not know which of the two it reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpt1.ops.masks import DropoutMasks
from utils import SPECIAL_TOKENS


class Tree(NamedTuple):
    """The sequences of one example as token ids, special tokens included."""

    trunk: np.ndarray
    branches: tuple[np.ndarray, ...]  # each ends with `_classify_`


def build_tree(texts: Sequence[np.ndarray], layout: str, n_context: int, n_vocab: int) -> Tree:
    """Lay out the texts of an example (paper, section 3.3; `transform_roc` of the original).

    texts      token ids of each text
    layout     'text', 'pair', 'similarity' or 'choices', see `datasets.Task`
    n_context  of multiple choices, how many of the texts are the context
    """
    start, delimiter, classify = range(n_vocab, n_vocab + len(SPECIAL_TOKENS))

    def ids(*parts):
        return np.concatenate([np.atleast_1d(part) for part in parts]).astype(np.int64)

    if layout == 'text':
        return Tree(ids(start, texts[0]), (ids(classify),))
    if layout == 'pair':
        return Tree(ids(start, texts[0], delimiter, texts[1]), (ids(classify),))
    if layout == 'similarity':
        a, b = texts
        branches = ids(a, delimiter, b, classify), ids(b, delimiter, a, classify)
        return Tree(ids(start), branches)
    choices = tuple(ids(choice, classify) for choice in texts[n_context:])
    return Tree(ids(start, *texts[:n_context], delimiter), choices)


@dataclass
class Batch:
    """Rows of tokens without padding: the tokens of all rows, one row after another.

    `tokens` and `predictions` are the numbers of tokens and of predicted tokens, both with a few
    more at the end (see `round_up`): padding that no token sees, and predictions of weight 0.
    """

    ids: Tensor  # [tokens] rows of the embedding
    positions: Tensor  # [tokens] rows of the embedding
    slots: Tensor  # [tokens] the place of each in padded rows [rows * length]
    lm_parent: Tensor  # [predictions] the token whose state predicts
    lm_target: Tensor  # [predictions] the id to predict
    lm_weight: Tensor  # [predictions] float64, its weight in the LM loss of its row
    lm_row: Tensor  # [predictions] its row
    rows: int
    length: int  # at least that of the longest row
    branch: Tensor | None = None  # [rows, length]; None: every row is a plain chain
    row_example: Tensor | None = None  # [rows] the example of each row
    clf: Tensor | None = None  # [examples, branches] the `_classify_` token of each branch
    n_choices: Tensor | None = None  # [examples] number of branches, if they differ
    target: Tensor | None = None  # [examples, ...] see `loss.task_losses`
    masks: DropoutMasks | None = None  # the source of the dropout masks

    def _map(self, function):
        tensors = {name: v for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **{name: function(v) for name, v in tensors.items()})

    def to(self, device: torch.device) -> 'Batch':
        """Move the tensors to a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> 'Batch':
        """Copy the tensors to pinned memory, from which copies to a GPU are asynchronous."""
        return self._map(torch.Tensor.pin_memory)


def round_up(n: int) -> int:
    """Round n up to five significant bits, by less than a sixteenth.

    Batches then have few different sizes. On a CPU, oneDNN prepares and caches a kernel for each
    new shape, and arrays of ever new sizes leave gaps in memory that the next ones do not fit.
    """
    return n + -n % (1 << max(n.bit_length() - 5, 0))


class _Part(NamedTuple):
    """Consecutive tokens of a row: a trunk or a branch."""

    ids: np.ndarray
    position: int  # of the first token
    branch: int  # 0: trunk
    weight: float  # of each token in the LM loss of its row


def _rows_of(tree: Tree, share_context: bool) -> list[list[_Part]]:
    """Lay out a tree in rows, each a list of parts.

    The LM loss of a sequence is the mean over its tokens after the first, so each has the weight
    1 / (tokens - 1). A trunk token of a shared row belongs to all sequences: the weights add up.
    """
    trunk, branches = tree
    weights = [1 / (len(trunk) + len(branch) - 1) for branch in branches]
    if share_context:
        row = [_Part(trunk, 0, 0, sum(weights))]
        for number, (branch, weight) in enumerate(zip(branches, weights), 1):
            row.append(_Part(branch, len(trunk), number, weight))
        return [row]
    return [
        [_Part(trunk, 0, 0, weight), _Part(branch, len(trunk), 0, weight)]
        for branch, weight in zip(branches, weights)
    ]


def collate(
    trees: Sequence[Tree],
    first_position: int,
    share_context: bool,
    target: np.ndarray | None = None,
) -> Batch:
    """Lay examples out as a `Batch`, in shared or separate rows.

    first_position  the embedding's row of position 0, see `model_pytorch.Config`
    target          [examples, ...] see `loss.task_losses`
    """
    rows, row_example = [], []
    for example, tree in enumerate(trees):
        tree_rows = _rows_of(tree, share_context)
        rows += tree_rows
        row_example += [example] * len(tree_rows)
    tokens, branch_ends = _flatten(rows)
    length = round_up(int(tokens.place.max()) + 1)
    slots = tokens.row * length + tokens.place
    branch = None
    if share_context:
        branch = np.zeros((len(rows), length), dtype=np.int32)
        branch[tokens.row, tokens.place] = tokens.branch
        branch = torch.from_numpy(branch)
    clf, n_choices = _classify_tokens(trees, branch_ends, share_context)
    return Batch(
        **_padded_tokens(tokens, slots, len(rows) * length, first_position),
        **_padded_predictions(tokens),
        rows=len(rows),
        length=length,
        branch=branch,
        row_example=torch.tensor(row_example),
        clf=clf,
        n_choices=n_choices,
        target=None if target is None else torch.from_numpy(target),
    )


class _Tokens(NamedTuple):
    """The tokens of all rows, one row after another: arrays [tokens]."""

    ids: np.ndarray
    row: np.ndarray
    place: np.ndarray  # in the row
    position: np.ndarray  # in the sequence
    branch: np.ndarray  # 0: trunk
    weight: np.ndarray  # in the LM loss of the row


def _flatten(rows: list[list[_Part]]) -> tuple[_Tokens, np.ndarray]:
    """Return the tokens of all parts, and the last token of every branch, in order."""
    parts = [part for row in rows for part in row]
    lengths = np.array([len(part.ids) for part in parts])
    row_lengths = np.array([sum(len(part.ids) for part in row) for row in rows])

    def in_order(lengths):
        """0, 1, ... in each of the stretches of these lengths."""
        starts = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum()) - np.repeat(starts, lengths)

    tokens = _Tokens(
        ids=np.concatenate([part.ids for part in parts]),
        row=np.repeat(np.arange(len(rows)), row_lengths),
        place=in_order(row_lengths),
        position=np.repeat([part.position for part in parts], lengths) + in_order(lengths),
        branch=np.repeat([part.branch for part in parts], lengths),
        weight=np.repeat([part.weight for part in parts], lengths),
    )
    is_branch = [part is not row[0] for row in rows for part in row]  # a row begins with its trunk
    return tokens, (np.cumsum(lengths) - 1)[is_branch]


def _padded_predictions(tokens: _Tokens) -> dict[str, Tensor]:
    """Return what is predicted from what: `lm_...` of a `Batch`."""
    index = np.arange(len(tokens.ids))
    # The parent of a token is the token before it. Only the first token of a second or later
    # branch has another one, the end of the trunk: there the positions jump back.
    follows = np.diff(tokens.position, prepend=-1) == 1
    row_start = index - tokens.place
    parent = np.where(follows, index - 1, row_start + tokens.position - 1)
    predicted = tokens.position > 0
    n = round_up(int(predicted.sum()))
    columns = dict(parent=parent, target=tokens.ids, weight=tokens.weight, row=tokens.row)
    return {f'lm_{name}': _padded(column[predicted], n) for name, column in columns.items()}


def _padded_tokens(tokens, slots, n_slots, first_position) -> dict[str, Tensor]:
    """Return the tokens of a `Batch`. Those that fill it up take slots that are left."""
    n = len(slots)
    is_used = np.zeros(n_slots, dtype=bool)
    is_used[slots] = True
    unused = np.flatnonzero(~is_used)[: round_up(n) - n]
    n += len(unused)
    return {
        'ids': _padded(tokens.ids, n),
        'positions': first_position + _padded(tokens.position, n),
        'slots': torch.from_numpy(np.append(slots, unused)),
    }


def _padded(array, n):
    return torch.from_numpy(np.pad(array, (0, n - len(array))))


def _classify_tokens(trees, tokens, share_context):
    """Return `Batch.clf` and `Batch.n_choices`, given the last token of every branch in order.

    Missing branches get the token of the first branch. In a shared row, equal branches, for
    instance endings that were cut to the same tokens, get the token of the first of them: rounding
    must not give them different scores. In separate rows it does not.
    """
    n_branches = np.array([len(tree.branches) for tree in trees])
    clf = np.zeros((len(trees), n_branches.max()), dtype=np.int64)
    by_tree = np.split(tokens, np.cumsum(n_branches)[:-1])
    for row, own, tree in zip(clf, by_tree, trees):
        row[:] = own[0]
        row[: len(own)] = own
        if share_context:
            first = {}
            for j, branch in enumerate(tree.branches):
                row[j] = first.setdefault(branch.tobytes(), row[j])
    is_even = (n_branches == n_branches[0]).all()
    return torch.from_numpy(clf), None if is_even else torch.from_numpy(n_branches)


def collate_windows(ids: np.ndarray, first_position: int) -> Batch:
    """Lay windows of running text, ids [rows, length] int64, out as a `Batch` of plain chains.

    Each token after the first is predicted. The loss of a row is their mean.
    """
    rows, length = ids.shape
    ids = torch.from_numpy(ids)
    index = torch.arange(rows * length).view(rows, length)
    n_predictions = rows * (length - 1)
    return Batch(
        ids=ids.flatten(),
        positions=first_position + torch.arange(length).repeat(rows),
        slots=index.flatten(),
        lm_parent=index[:, :-1].flatten(),
        lm_target=ids[:, 1:].flatten(),
        lm_weight=torch.full((n_predictions,), 1 / (length - 1), dtype=torch.float64),
        lm_row=torch.arange(rows).repeat_interleave(length - 1),
        rows=rows,
        length=length,
    )


def iter_data(n: int, n_batch: int, random_state: np.random.RandomState) -> Iterator[np.ndarray]:
    """Yield the indices of each batch of one epoch, shuffled. The last partial batch is dropped.

    The order is that of `sklearn.utils.shuffle(..., random_state)`, which the original calls once
    an epoch.
    """
    order = np.arange(n)
    random_state.shuffle(order)
    for first in range(0, n - n_batch + 1, n_batch):
        yield order[first : first + n_batch]
