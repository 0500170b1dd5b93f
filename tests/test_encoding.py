"""Examples to arrays of token ids, and the rules by which long texts are cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import REGRESSION, SOME_TASKS, encoder

from datasets import TASKS
from gpt1.run.encoding import array_hash, cut_lengths, encode_data, encode_dataset
from gpt1.tasks.task import Data, Example, Task

TEXT, PAIR = TASKS['sst2'], TASKS['mnli']
CHOICES = Task(name='custom', title='Custom', layout='choices')
ROCSTORIES, RACE, STSB = TASKS['rocstories'], TASKS['race'], TASKS['stsb']


class FakeEncoder:
    """One token for each letter: a is 0, b is 1 and so on."""

    def __init__(self, n_vocab=50):
        self.n_vocab = n_vocab

    def encode_all(self, texts):
        return [[ord(letter) - ord('a') for letter in text] for text in texts]


def encode(examples, task, n_ctx=100):
    return encode_dataset(examples, FakeEncoder(), task, n_ctx)


@pytest.mark.parametrize(
    'task, lengths, n_ctx, expected',
    [
        (TEXT, [9], 10, [8]),
        (PAIR, [9, 2], 10, [5, 2]),  # what the short text does not use, the other may
        (PAIR, [9, 9], 10, [4, 3]),
        (CHOICES, [9, 2, 4], 10, [3, 2, 4]),  # the longest choice leaves 3 for the context
        (CHOICES, [9, 9, 2], 10, [0, 7, 2]),
        (RACE, [9, 3, 2, 1, 2, 2], 12, [4, 3, 2, 1, 2, 2]),  # the article is cut
        (RACE, [9, 8, 2, 1, 1, 1], 12, [0, 7, 2, 1, 1, 1]),
        (RACE, [9, 8, 8, 1, 5, 4], 12, [0, 5, 4, 1, 4, 4]),
        (ROCSTORIES, [300, 254, 255], 512, [254, 254, 254]),  # as the original
    ],
)
def test_examples_of_cut_texts(task, lengths, n_ctx, expected):
    assert cut_lengths(np.array([lengths]), task, n_ctx).tolist() == [expected]


@st.composite
def tasks_and_lengths(draw):
    task = draw(st.sampled_from([*SOME_TASKS.values(), CHOICES]))
    n_texts = {'text': 1, 'pair': 2, 'similarity': 2}.get(task.layout)
    if n_texts is None:
        n_texts = task.n_context + draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 40), min_size=n_texts, max_size=n_texts)
    return task, np.array(draw(st.lists(row, min_size=1, max_size=5)))


def sequence_lengths(lengths, task):
    if task.layout != 'choices':
        return lengths.sum(1) + (2 if task.layout == 'text' else 3)
    return lengths[:, : task.n_context].sum(1) + lengths[:, task.n_context :].max(1) + 3


@settings(max_examples=250, deadline=None, database=None)
@given(case=tasks_and_lengths(), n_ctx=st.integers(5, 60))
def test_what_fits_is_not_cut_and_a_cut_uses_all_the_room(case, n_ctx):
    task, lengths = case
    texts = [tuple('a' * n for n in row) for row in lengths]
    data = encode([Example('', row, None) for row in texts], task, n_ctx)
    trees = [data.tree(i) for i in range(len(data))]
    sizes = [len(trunk) + len(branch) for trunk, branches in trees for branch in branches]
    assert data.longest == max(sizes) <= n_ctx
    kept = data.lengths
    if task.halves:
        np.testing.assert_array_equal(kept, np.minimum(lengths, n_ctx // 2 - 2))
        return
    assert (kept >= 0).all() and (kept <= lengths).all()
    fits = sequence_lengths(lengths, task) <= n_ctx
    np.testing.assert_array_equal(kept[fits], lengths[fits])
    assert (sequence_lengths(kept, task)[~fits] == n_ctx).all()


def test_some_examples():
    """Varying numbers of choices; a context that is cut keeps its beginning."""
    examples = [Example('x', ('abcdef', 'gh', ''), 0), Example('y', ('', 'd', 'e', 'fgh'), 2)]
    data = encode(examples, CHOICES, 8)
    assert data.ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7]
    assert data.offsets.tolist() == [0, 6, 8, 8, 8, 9, 10, 13]
    assert data.first_text.tolist() == [0, 3, 7]
    assert data.lengths.tolist() == [[3, 2, 0, 0], [0, 1, 1, 3]]
    first, second = data.tree(0), data.tree(1)
    assert first.trunk.tolist() == [50, 0, 1, 2, 51]
    assert [branch.tolist() for branch in first.branches] == [[6, 7, 52], [52]]
    assert second.trunk.tolist() == [50, 51]
    assert [branch.tolist() for branch in second.branches] == [[3, 52], [4, 52], [5, 6, 7, 52]]
    assert (len(data), data.n_scores, data.longest, data.n_cut) == (2, 3, 8, 1)
    assert (data.labels.tolist(), data.names) == ([0, 2], ['x', 'y'])
    part = data.first(1)
    assert (len(part), part.targets.tolist(), part.names) == (1, [0], ['x'])
    assert str(part.tree(0)) == str(first)
    for n_vocab, dtype in ((1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)):
        assert encode_dataset([], FakeEncoder(n_vocab), TEXT, 100).ids.dtype == dtype


TEXTS = ['Ella had no tape.', '', 'the “night”', 'a\n b', 'x' * 100, 'né', 'a &amp; b', 'Ella']


@pytest.mark.parametrize('many, n, chunk', [(1, 1, 3), (1, 3, 1), (41, 3, 100)])
def test_parts_and_processes_change_nothing(monkeypatch, many, n, chunk):
    """Few texts are encoded in this process."""
    monkeypatch.setattr('gpt1.run.encoding.CHUNK', chunk)
    monkeypatch.setattr('gpt1.run.encoding.MANY', many)
    monkeypatch.setattr('gpt1.text.workers.available_cores', lambda: n)
    if many > 40:
        monkeypatch.setattr('gpt1.text.workers.ProcessPoolExecutor', None)
    examples = [Example(str(i), (TEXTS[i % 8], TEXTS[i % 5]), i % 3) for i in range(20)]
    data = encode_dataset(examples, encoder(), PAIR, 40)
    ids = encoder().encode_all(text for example in examples for text in example.texts)
    assert data.ids.tolist() == [i for part in ids for i in part]
    assert np.diff(data.offsets).tolist() == list(map(len, ids))


def test_labels_and_targets():
    """Of classes; of soft labels; of a regression, with the mean 3 and the standard deviation 2."""

    def labelled(task, *labels):
        texts = ('a',) if task.layout == 'text' else ('a', 'b')
        return encode([Example('', texts, label) for label in labels], task)

    classes = labelled(PAIR, 2, None, 0)
    assert classes.labels.dtype == classes.targets.dtype == np.int64
    assert classes.labels.tolist() == classes.targets.tolist() == [2, -1, 0]
    soft = labelled(STSB, 3.6, 5, None, 0)
    np.testing.assert_array_equal(soft.labels, [3.6, 5, np.nan, 0])
    expected = [[0, 0, 0, 0.4, 0.6, 0], [0] * 5 + [1], [np.nan] * 6, [1] + [0] * 5]
    np.testing.assert_allclose(soft.targets, expected, rtol=1e-6)
    numbers = labelled(REGRESSION, 5, None, 2.0)
    np.testing.assert_array_equal(numbers.labels, [5, np.nan, 2])
    np.testing.assert_array_equal(numbers.targets, [1, np.nan, -0.5])
    assert soft.targets.dtype == numbers.targets.dtype == np.float32


def test_all_sets_of_a_data_set():
    a, long = Example('a', ('a', 'z'), 0), Example('long', ('abcdef', 'z'), 0)
    data = Data(train=[a, a], valid={'matched': [a], 'mismatched': [long]}, test={'test': [a]})
    encoded = encode_data(data, FakeEncoder(), PAIR, 100)
    sizes = {'training': 2, 'validation matched': 1, 'validation mismatched': 1, 'test': 1}
    assert {name: len(part) for name, part in encoded.sets.items()} == sizes
    assert encoded.longest == 10


def test_hash_of_arrays():
    a = np.arange(6)
    b, changed = a.reshape(2, 3), np.where(a == 3, 0, a)
    assert array_hash([a]) == array_hash([a.copy()])
    assert len({array_hash(arrays) for arrays in ([a], [b], [changed], [a, b], [b.T], [])}) == 6
