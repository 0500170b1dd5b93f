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
    """Lay out the token ids of an example's texts (paper, section 3.3).

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
        orders = texts, texts[::-1]
        return Tree(ids(start), tuple(ids(a, delimiter, b, classify) for a, b in orders))
    choices = tuple(ids(choice, classify) for choice in texts[n_context:])
    return Tree(ids(start, *texts[:n_context], delimiter), choices)


@dataclass
class Batch:
    """Rows of tokens without padding: the tokens of all rows, one row after another.

    A few more at the end (see `round_up`) are padding that no token sees, or of weight 0.
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
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> 'Batch':
        return self._map(torch.Tensor.pin_memory)


def round_up(n: int) -> int:
    """Round n up to five significant bits, by less than a sixteenth.

    Of batches with few different sizes, oneDNN prepares few kernels, and arrays fit freed memory.
    """
    return n + -n % (1 << max(n.bit_length() - 5, 0))


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
    n_branches = np.array([len(tree.branches) for tree in trees])
    is_even = (n_branches == n_branches[0]).all()
    row_example = np.repeat(np.arange(len(trees)), 1 if share_context else n_branches)
    rows = len(row_example)
    tokens, branch_ends = _lay_out([p for tree in trees for p in _parts_of(tree, share_context)])
    length = round_up(int(tokens.place.max()) + 1)
    slots = tokens.row * length + tokens.place
    branch = None
    if share_context:
        branch = torch.zeros(rows, length, dtype=torch.int32)
        branch[tokens.row, tokens.place] = torch.from_numpy(tokens.branch).int()
    return Batch(
        **_padded_tokens(tokens, slots, rows * length, first_position),
        **_padded_predictions(tokens),
        rows=rows,
        length=length,
        branch=branch,
        row_example=torch.from_numpy(row_example),
        clf=_classify_tokens(trees, branch_ends, share_context),
        n_choices=None if is_even else torch.from_numpy(n_branches),
        target=None if target is None else torch.from_numpy(target),
    )


def _parts_of(tree: Tree, share_context: bool) -> list[tuple]:
    """Return the rows of a tree, each a trunk and then one branch, or all of them.

    A part is (ids, position of the first, number of the branch, weight of each in the LM loss of
    the row). The LM loss of a sequence is the mean over its tokens after the first, so a token has
    the weight 1 / (tokens - 1). A trunk that all sequences share has the sum of the weights.
    """
    trunk, branches = tree
    n = len(trunk)
    weights = [1 / (n + len(branch) - 1) for branch in branches]
    if share_context:
        numbers = range(1, len(branches) + 1)
        return [(trunk, 0, 0, sum(weights)), *zip(branches, [n] * len(branches), numbers, weights)]
    parts = []
    for branch, weight in zip(branches, weights):
        parts += (trunk, 0, 0, weight), (branch, n, 0, weight)
    return parts


class _Tokens(NamedTuple):
    """Tokens of rows, one row after another: arrays [tokens]."""

    ids: np.ndarray
    row: np.ndarray
    place: np.ndarray  # in the row
    position: np.ndarray  # in the sequence
    parent: np.ndarray  # among all tokens; the first token of a row has none
    branch: np.ndarray  # 0: trunk
    weight: np.ndarray  # in the LM loss of the row


def _lay_out(parts: list[tuple]) -> tuple[_Tokens, np.ndarray]:
    """Return the tokens of all parts, and the last token of every branch, in order."""
    ids, positions, branches, weights = zip(*parts)
    lengths = np.array([len(part) for part in ids])
    starts = np.cumsum(lengths) - lengths
    is_trunk = np.array(positions) == 0  # where a row begins

    def of_tokens(values):
        return np.repeat(values, lengths)

    index = np.arange(lengths.sum())
    row = of_tokens(np.cumsum(is_trunk) - 1)
    place = index - starts[is_trunk][row]
    step = index - of_tokens(starts)
    position = of_tokens(positions) + step
    # The parent is the token before. That of the first token of a branch is the end of the trunk.
    parent = np.where(step > 0, index - 1, index - place + position - 1)
    columns = row, place, position, parent, of_tokens(branches), of_tokens(weights)
    return _Tokens(np.concatenate(ids), *columns), (starts + lengths - 1)[~is_trunk]


def _padded_predictions(tokens: _Tokens) -> dict[str, Tensor]:
    """Return what is predicted from what: `lm_...` of a `Batch`."""
    predicted = tokens.position > 0
    n = round_up(int(predicted.sum()))
    columns = dict(parent=tokens.parent, target=tokens.ids, weight=tokens.weight, row=tokens.row)
    return {f'lm_{name}': _padded(column[predicted], n) for name, column in columns.items()}


def _padded_tokens(tokens, slots, n_slots, first_position) -> dict[str, Tensor]:
    """Return the tokens of a `Batch`. Those that fill it up take slots that are left."""
    n = len(slots)
    unused = np.delete(np.arange(n_slots), slots)[: round_up(n) - n]
    n += len(unused)
    return {
        'ids': _padded(tokens.ids, n),
        'positions': first_position + _padded(tokens.position, n),
        'slots': torch.from_numpy(np.append(slots, unused)),
    }


def _padded(array, n):
    return torch.from_numpy(np.pad(array, (0, n - len(array))))


def _classify_tokens(trees, branch_ends, share_context) -> Tensor:
    """Return `Batch.clf`. Missing branches get the token of the first branch.

    In a shared row, equal branches, for instance endings that were cut to the same tokens, get the
    token of the first of them: rounding must not give them different scores.
    """
    most = max(len(tree.branches) for tree in trees)
    clf, ends = [], iter(branch_ends.tolist())
    for tree in trees:
        own = [next(ends) for _ in tree.branches]
        if share_context:
            branches = [branch.tobytes() for branch in tree.branches]
            own = [own[branches.index(branch)] for branch in branches]
        clf.append(own + own[:1] * (most - len(own)))
    return torch.tensor(clf)


def collate_windows(ids: np.ndarray, first_position: int) -> Batch:
    """Lay windows of running text, ids [rows, length] int64, out as a `Batch` of plain chains."""
    rows, length = ids.shape
    ids = torch.from_numpy(ids)
    index = torch.arange(rows * length)
    parent = index.view(rows, length)[:, :-1].flatten()
    return Batch(
        ids=ids.flatten(),
        positions=first_position + index % length,
        slots=index,
        lm_parent=parent,
        lm_target=ids[:, 1:].flatten(),
        lm_weight=torch.full(parent.shape, 1 / (length - 1), dtype=torch.float64),
        lm_row=parent // length,
        rows=rows,
        length=length,
    )


def iter_data(n: int, n_batch: int, random_state: np.random.RandomState) -> Iterator[np.ndarray]:
    """Yield the indices of each whole batch of an epoch, in `sklearn.utils.shuffle`'s order."""
    order = np.arange(n)
    random_state.shuffle(order)
    for first in range(0, n - n_batch + 1, n_batch):
        yield order[first : first + n_batch]
