"""Batches against a slow version that lays out one token at a time."""

import numpy as np
import pytest
import sklearn.utils
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt1.ops.batches import Tree, build_tree, collate, collate_windows, iter_data, round_up

N_VOCAB = 50
START, DELIMITER, CLASSIFY, FIRST_POSITION = 50, 51, 52, 53


def as_lists(tree):
    return tree.trunk.tolist(), [branch.tolist() for branch in tree.branches]


@pytest.mark.parametrize(
    'layout, texts, n_context, trunk, branches',
    [
        ('text', [[1, 2]], 1, [START, 1, 2], [[CLASSIFY]]),
        ('text', [[]], 1, [START], [[CLASSIFY]]),
        ('pair', [[1, 2], [3]], 1, [START, 1, 2, DELIMITER, 3], [[CLASSIFY]]),
        ('similarity', [[1], [3]], 1, [START], [[1, 51, 3, CLASSIFY], [3, 51, 1, CLASSIFY]]),
        ('choices', [[1, 2], [3], []], 1, [START, 1, 2, DELIMITER], [[3, CLASSIFY], [CLASSIFY]]),
        ('choices', [[1], [2], [3]], 2, [START, 1, 2, DELIMITER], [[3, CLASSIFY]]),
    ],
)
def test_the_tree_of_each_layout(layout, texts, n_context, trunk, branches):
    arrays = [np.array(text, dtype=np.uint16) for text in texts]
    assert as_lists(build_tree(arrays, layout, n_context, N_VOCAB)) == (trunk, branches)


def slow_rows(trees, share_context):
    """Return rows of tokens, each token a dict. `parent` is a place in the row, or -1."""
    rows = []
    for tree in trees:
        trunk, branches = as_lists(tree)
        weights = [1 / (len(trunk) + len(branch) - 1) for branch in branches]
        if share_context:
            rows.append(slow_row(trunk, branches, weights))
        else:
            rows += [slow_row(trunk + b, [], [weight]) for b, weight in zip(branches, weights)]
    return rows


def slow_row(trunk, branches, weights):
    row = []
    for place, i in enumerate(trunk):
        row.append(dict(id=i, position=place, branch=0, parent=place - 1, weight=sum(weights)))
    for number, (branch, weight) in enumerate(zip(branches, weights), 1):
        parent = len(trunk) - 1
        for place, i in enumerate(branch, len(trunk)):
            row.append(dict(id=i, position=place, branch=number, parent=parent, weight=weight))
            parent = len(row) - 1
    return row


def slow_clf(trees, share_context):
    """Return the place in the batch of the `_classify_` token of every branch of every tree."""
    table = []
    n_tokens = 0
    for tree in trees:
        places = []
        trunk, branches = as_lists(tree)
        if share_context:
            n_tokens += len(trunk)
        for branch in branches:
            n_tokens += len(branch) if share_context else len(trunk + branch)
            places.append(n_tokens - 1)
        if share_context:  # equal branches have the token of the first of them
            places = [places[branches.index(branch)] for branch in branches]
        table.append(places)
    most = max(map(len, table))
    return [places + places[:1] * (most - len(places)) for places in table]


TOKENS = st.lists(st.integers(0, N_VOCAB - 1), max_size=6)
FEW_TOKENS = st.lists(st.integers(0, 1), max_size=2)  # equal choices are frequent


@st.composite
def trees_of_a_task(draw):
    """Trees of one layout; of multiple choices, with numbers of choices that differ or not."""
    layout = draw(st.sampled_from(['text', 'pair', 'similarity', 'choices']))
    n_context = 1
    n_texts = st.just({'text': 1, 'pair': 2, 'similarity': 2}.get(layout))
    if layout == 'choices':
        n_context = draw(st.integers(1, 2))
        n_texts = st.integers(n_context + 1, n_context + 4)
        if draw(st.booleans()):
            n_texts = st.just(draw(n_texts))
    trees = []
    for _ in range(draw(st.integers(1, 5))):
        n = draw(n_texts)
        texts = draw(st.lists(TOKENS | FEW_TOKENS, min_size=n, max_size=n))
        arrays = [np.array(text, dtype=np.uint16) for text in texts]
        trees.append(build_tree(arrays, layout, n_context, N_VOCAB))
    return trees


@settings(max_examples=80, deadline=None, database=None)
@given(trees=trees_of_a_task(), share_context=st.booleans())
def test_a_batch_is_that_of_the_slow_version(trees, share_context):
    rows = slow_rows(trees, share_context)
    batch = collate(trees, FIRST_POSITION, share_context)
    length = round_up(max(map(len, rows)))
    assert (batch.rows, batch.length) == (len(rows), length)

    tokens = [token for row in rows for token in row]
    n = len(tokens)
    assert batch.ids[:n].tolist() == [token['id'] for token in tokens]
    positions = [FIRST_POSITION + token['position'] for token in tokens]
    assert batch.positions[:n].tolist() == positions
    slots = [r * length + c for r, row in enumerate(rows) for c in range(len(row))]
    assert batch.slots[:n].tolist() == slots
    # The tokens that fill up a batch take slots that are otherwise empty.
    assert len(batch.slots.unique()) == len(batch.slots) == len(batch.ids) == len(batch.positions)
    assert len(batch.ids) == min(round_up(n), len(rows) * length)
    assert batch.slots.max() < batch.rows * batch.length
    padded = [[token['branch'] for token in row] + [0] * (length - len(row)) for row in rows]
    if share_context:
        assert batch.branch.tolist() == padded
    else:
        assert batch.branch is None

    assert batch.clf.tolist() == slow_clf(trees, share_context)
    assert (batch.ids[batch.clf] == CLASSIFY).all()
    n_rows = [1 if share_context else len(tree.branches) for tree in trees]
    assert batch.row_example.tolist() == np.repeat(np.arange(len(trees)), n_rows).tolist()
    n_choices = [len(tree.branches) for tree in trees]
    if len(set(n_choices)) == 1:
        assert batch.n_choices is None
    else:
        assert batch.n_choices.tolist() == n_choices

    expected = []
    first = 0
    for number, row in enumerate(rows):
        for token in row[1:]:
            expected.append((number, first + token['parent'], token['id'], token['weight']))
        first += len(row)
    columns = batch.lm_row, batch.lm_parent, batch.lm_target, batch.lm_weight
    found = list(zip(*(column.tolist() for column in columns)))
    assert len(found) == round_up(len(expected))
    assert all(weight == 0 for *_, weight in found[len(expected) :])
    np.testing.assert_allclose(sorted(found[: len(expected)]), sorted(expected), rtol=1e-12)


def test_a_batch_moves_whole():
    tree = Tree(np.array([START, DELIMITER]), (np.array([CLASSIFY]),) * 2)
    target = np.array([[0.5, 0.5]], np.float32)
    batch = collate([tree], FIRST_POSITION, True, target)
    assert batch.target.dtype == torch.float32 and batch.target.tolist() == target.tolist()
    moved = batch.to(torch.device('meta'))
    tensors = [name for name, value in vars(batch).items() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 11
    assert all(getattr(moved, name).is_meta for name in tensors)
    assert (moved.rows, moved.length) == (1, 4)


def test_windows():
    """They are batches of trees of the same length."""
    ids = np.array([range(16), range(20, 36)])
    trees = [Tree(row[:9], (row[9:],)) for row in ids]
    batch, other = collate_windows(ids, FIRST_POSITION), collate(trees, FIRST_POSITION, False)
    assert (batch.rows, batch.length, batch.branch) == (2, 16, None)
    for name in ('ids', 'positions', 'slots', 'lm_parent', 'lm_target', 'lm_weight', 'lm_row'):
        torch.testing.assert_close(getattr(batch, name), getattr(other, name), rtol=0, atol=0)


@given(n=st.integers(0, 1 << 40))
def test_round_up_keeps_five_significant_bits(n):
    size = round_up(n)
    assert n <= size <= n + n / 16
    assert round_up(size) == size
    assert len(f'{size:b}'.rstrip('0')) <= 5


@pytest.mark.parametrize('n, n_batch', [(1, 1), (10, 3), (12, 4), (3, 4), (1497, 64)])
def test_iter_data_is_the_shuffle_of_sklearn(n, n_batch):
    ours, theirs = np.random.RandomState(42), np.random.RandomState(42)
    for _ in range(3):
        batches = list(iter_data(n, n_batch, ours))
        order = sklearn.utils.shuffle(np.arange(n), random_state=theirs)
        assert [len(batch) for batch in batches] == [n_batch] * (n // n_batch)
        n_used = n // n_batch * n_batch
        np.testing.assert_array_equal(np.concatenate([*batches, []]), order[:n_used])
