"""Batches against a slow, padded version; whole files; the log; devices."""

import json
import os
import platform
import re
import resource
import signal
import sys
import time

import numpy as np
import pytest
import sklearn.utils
import torch
from conftest import PROCESSES
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import Stories
from utils import (
    InputError,
    ResultLogger,
    Story,
    check_writable,
    collate,
    encode_dataset,
    few_sizes,
    find_devices,
    iter_data,
    keep_freed_memory,
    longest_sequence,
    table,
    transform_roc,
    whole_file,
)

N_VOCAB = 50
START, DELIMITER, CLASSIFY, FIRST_POSITION = 50, 51, 52, 53


# -------------------------------------------------------------------------------------------------------------- batches


def test_transform_roc():
    (story,) = transform_roc([[1, 2, 3]], [[4]], [[5, 6]], [1], ['x'], N_VOCAB, max_len=10)
    assert story.trunk.tolist() == [START, 1, 2, 3, DELIMITER]
    assert [branch.tolist() for branch in story.branches] == [[4, CLASSIFY], [5, 6, CLASSIFY]]
    assert (story.label, story.id) == (1, 'x')
    assert longest_sequence([story]) == 8


def test_transform_roc_cuts_each_text_on_its_own():
    (story,) = transform_roc([[1, 2, 3]], [[4, 5, 6]], [[]], [-1], ['x'], N_VOCAB, max_len=2)
    assert story.trunk.tolist() == [START, 1, 2, DELIMITER]
    assert [branch.tolist() for branch in story.branches] == [[4, 5, CLASSIFY], [CLASSIFY]]


def test_encode_dataset():
    class Bar:
        texts = 0

        def update(self, n):
            self.texts += n

    bar = Bar()
    split = Stories(['a', 'b'], ['x', 'yy'], ['', 'z'], ['zz', 'z'], [0, 1])
    assert (
        encode_dataset([split, split], lambda texts: [[len(text)] for text in texts], bar)
        == [([[1], [2]], [[0], [1]], [[2], [1]])] * 2
    )
    assert bar.texts == 12


def slow_sequences(story):
    """The two sequences of a story, each a list of tokens as (id, position, branch), and the weight of each predicted token."""
    sequences = [
        [*((i, 0) for i in story.trunk), *((i, number) for i in branch)]
        for number, branch in enumerate(story.branches, 1)
    ]
    return [
        [(int(i), position, number) for position, (i, number) in enumerate(sequence)]
        for sequence in sequences
    ], [1 / (len(sequence) - 1) for sequence in sequences]


def slow_rows(stories, share_context):
    """Rows of tokens, each a dict, one story after another."""
    rows = []
    for story in stories:
        sequences, weights = slow_sequences(story)
        if not share_context:
            for sequence, weight in zip(sequences, weights):
                rows.append(
                    [
                        dict(
                            id=i,
                            position=p,
                            branch=0,
                            parent=p - 1,
                            weight=weight,
                            clf=p == len(sequence) - 1,
                        )
                        for i, p, _ in sequence
                    ]
                )
            continue
        n = len(story.trunk)
        row = [
            dict(id=i, position=p, branch=0, parent=p - 1, weight=sum(weights), clf=False)
            for i, p, _ in sequences[0][:n]
        ]
        for sequence, weight in zip(sequences, weights):
            for i, p, number in sequence[n:]:
                row.append(
                    dict(
                        id=i,
                        position=p,
                        branch=number,
                        parent=n - 1 if p == n else len(row) - 1,
                        weight=weight,
                        clf=p == len(sequence) - 1,
                    )
                )
        rows.append(row)
    return rows


tokens = st.lists(st.integers(0, N_VOCAB - 1), max_size=6)
many_stories = st.lists(
    st.builds(
        lambda a, b, c, label: transform_roc([a], [b], [c], [label], ['x'], N_VOCAB, 5)[0],
        tokens,
        tokens,
        tokens,
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=5,
)


@given(n=st.integers(0, 1 << 40))
def test_few_sizes(n):
    size = few_sizes(n)
    assert (
        n <= size <= n + n / 16
        and few_sizes(size) == size
        and len(bin(size).rstrip('0')) <= len('0b') + 5
    )


@settings(max_examples=150, deadline=None, database=None)
@given(stories=many_stories, share_context=st.booleans())
def test_collate_against_a_slow_padded_version(stories, share_context):
    rows = slow_rows(stories, share_context)
    length = few_sizes(max(map(len, rows)))
    batch = collate(stories, FIRST_POSITION, share_context)
    assert (batch.rows, batch.length) == (len(rows), length)

    flat = [(r, c, token) for r, row in enumerate(rows) for c, token in enumerate(row)]
    place = {(r, c): n for n, (r, c, _) in enumerate(flat)}
    n = len(flat)
    assert batch.ids[:n].tolist() == [token['id'] for _, _, token in flat]
    assert batch.positions[:n].tolist() == [
        FIRST_POSITION + token['position'] for _, _, token in flat
    ]
    assert batch.slots[:n].tolist() == [r * length + c for r, c, _ in flat]
    assert (
        len(batch.ids)
        == len(batch.positions)
        == len(batch.slots)
        == min(few_sizes(n), len(rows) * length)
    )
    assert (
        len(batch.slots.unique()) == len(batch.slots) and batch.slots.max() < len(rows) * length
    )  # the others are padding
    clf = [n for n, (_, _, token) in enumerate(flat) if token['clf']]
    assert batch.clf.tolist() == [
        [a, a if share_context and story.branches[0].tolist() == story.branches[1].tolist() else b]
        for story, a, b in zip(stories, clf[::2], clf[1::2], strict=True)
    ]
    assert batch.label.tolist() == [story.label for story in stories]

    predicted = sorted(
        (r, place[r, token['parent']], token['id'], token['weight'])
        for r, _, token in flat
        if token['position']
    )
    found = np.stack([batch.lm_row, batch.lm_parent, batch.lm_target, batch.lm_weight], axis=1)
    assert len(found) == few_sizes(len(predicted)) and (found[len(predicted) :, 3] == 0).all()
    np.testing.assert_allclose(sorted(map(tuple, found[: len(predicted)])), predicted, rtol=1e-6)

    if share_context:
        branch = [[token['branch'] for token in row] + [0] * (length - len(row)) for row in rows]
        assert batch.branch.tolist() == branch
    else:
        assert batch.branch is None


@settings(max_examples=50, deadline=None, database=None)
@given(stories=many_stories)
def test_both_layouts_weigh_the_same_predictions(stories):
    """The weights of each predicted token, by what it follows, have the same sum in both layouts; all together, one for each sequence."""
    totals = []
    for share_context in (False, True):
        batch = collate(stories, FIRST_POSITION, share_context)
        weights = {}
        for parent, target, weight in zip(
            batch.lm_parent.tolist(), batch.lm_target.tolist(), batch.lm_weight.tolist()
        ):
            if weight == 0:
                continue
            key = batch.ids[parent].item(), batch.positions[parent].item(), target
            weights[key] = weights.get(key, 0) + weight
        totals.append(weights)
        assert batch.lm_weight.sum().item() == pytest.approx(2 * len(stories), rel=1e-5)
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


def test_a_batch_moves_whole():
    batch = collate(
        [Story(np.array([START, DELIMITER]), (np.array([CLASSIFY]),) * 2, 0, 'x')],
        FIRST_POSITION,
        True,
    )
    moved = batch.to('meta')
    assert (
        moved.ids.is_meta
        and moved.branch.is_meta
        and moved.label.is_meta
        and (moved.rows, moved.length) == (1, 4)
    )


@pytest.mark.parametrize('n, n_batch', [(1, 1), (10, 3), (12, 4), (3, 4), (1497, 64)])
def test_iter_data_is_sklearns_shuffle(n, n_batch):
    ours, theirs = np.random.RandomState(42), np.random.RandomState(42)
    for _ in range(3):
        batches = list(iter_data(n, n_batch, ours))
        order = sklearn.utils.shuffle(np.arange(n), random_state=theirs)
        assert len(batches) == n // n_batch and all(len(batch) == n_batch for batch in batches)
        np.testing.assert_array_equal(
            np.concatenate([*batches, []]), order[: n // n_batch * n_batch]
        )


# ---------------------------------------------------------------------------------------------------------------- files


def test_whole_file_makes_folders_and_replaces(tmp_path):
    path = tmp_path / 'a' / 'b' / 'x'
    for text in ('one\n', 'two\r\n'):
        with whole_file(str(path)) as f:
            f.write(text)
        assert path.read_bytes() == text.encode()
    with whole_file(str(path), 'wb') as f:
        f.write(b'\x00\xff')
    assert path.read_bytes() == b'\x00\xff' and os.listdir(path.parent) == ['x']


def test_whole_file_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with whole_file('x') as f:
        f.write('x')
    assert os.listdir(tmp_path) == ['x']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_error_inside_leaves_the_old_file(tmp_path, error):
    path = tmp_path / 'x'
    path.write_text('old')
    with pytest.raises(error):
        with whole_file(str(path)) as f:
            f.write('new')
            raise error
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['x']


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / 'x' / 'y').mkdir(parents=True)
    with pytest.raises(InputError, match='cannot write'):
        with whole_file(str(tmp_path / 'x')) as f:
            f.write('new')
    (tmp_path / 'z').write_text('old')
    with pytest.raises(InputError, match='cannot write'):
        with whole_file(str(tmp_path / 'z' / 'x')):
            pass
    assert sorted(os.listdir(tmp_path)) == ['x', 'z'] and (tmp_path / 'z').read_text() == 'old'


def _write(path, kind, file_size, pipe):
    """Body of a process that writes 400,000 bytes to `path` where no file may grow beyond `file_size`, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    try:
        with whole_file(path, 'wb') as f:
            {
                'bytes': lambda: f.write(bytes(400_000)),
                'torch': lambda: torch.save(torch.zeros(100_000), f),
                'numpy': lambda: np.save(f, np.zeros(100_000, np.float32)),
            }[kind]()
            f.flush()
            pipe.send('written')
            time.sleep(60)
    except InputError as error:
        pipe.send(str(error))


@pytest.mark.parametrize(
    'kind, reason',
    [
        ('bytes', 'File too large'),
        ('torch', 'File too large'),
        ('numpy', r'100000 requested and \d+ written'),
    ],
)
def test_a_failing_write_leaves_the_old_file_and_no_litter(tmp_path, kind, reason):
    path = tmp_path / 'x'
    path.write_text('old')
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_write, args=(str(path), kind, 50_000, theirs))
    process.start()
    assert re.fullmatch(
        f'cannot write {path}: {reason}; what stood there before is unchanged', ours.recv()
    )
    process.join()
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['x']


def test_killed_inside_the_write(tmp_path):
    path = tmp_path / 'x'
    path.write_text('old')
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_write, args=(str(path), 'torch', 1_000_000, theirs))
    process.start()
    assert ours.recv() == 'written'
    process.kill()
    process.join()
    assert path.read_text() == 'old'
    assert all(
        name.endswith('.part') for name in os.listdir(tmp_path) if name != 'x'
    )  # `only_run` clears it away


def test_check_writable(tmp_path):
    check_writable(str(tmp_path / 'not' / 'yet' / 'there'))
    assert os.listdir(tmp_path) == []  # it creates nothing
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(InputError, match=f'cannot write to {folder}'):
            check_writable(str(folder))


def test_result_logger(tmp_path):
    path = tmp_path / 'log' / 'x.jsonl'
    logger = ResultLogger(str(path), lr=0.1, desc='ü\n')
    logger.log(n_epochs=1, va_acc=50.0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(line) for line in lines] == [
        ['lr', 'desc', 'time'],
        ['n_epochs', 'va_acc', 'time'],
    ]
    assert lines[0]['desc'] == 'ü\n' and abs(lines[1]['time'] - time.time()) < 60

    resumed = ResultLogger(str(path), logger.lines, lr=0.2)
    resumed.log(n_epochs=2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        *lines,
        resumed.lines[-1],
    ]


# -------------------------------------------------------------------------------------------------------------- devices


def test_find_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert find_devices('auto', 4) == find_devices('cpu', 4) == [torch.device('cpu')]
    for device in ('cuda', 'cuda:0'):
        with pytest.raises(InputError, match='no CUDA devices here'):
            find_devices(device, 4)
    for device in ('gpu', 'cuda:', 'cuda:x', 'cuda:-1', 'cpu:0', 'mps', '', 'cuda:1e3', 'cuda:٣٣'):
        with pytest.raises(InputError, match='--device'):
            find_devices(device, 4)

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 3)
    assert (
        find_devices('auto', 2)
        == find_devices('cuda', 2)
        == [torch.device('cuda', 0), torch.device('cuda', 1)]
    )
    assert (
        len(find_devices('auto', 8)) == 3
        and find_devices('cuda:2', 8) == [torch.device('cuda', 2)]
        and find_devices('cpu', 8) == [torch.device('cpu')]
    )
    with pytest.raises(InputError, match='there are 3 CUDA devices here'):
        find_devices('cuda:3', 1)


def _touch_memory_again():
    """Exit status: 0 if memory that was freed is used again, in the end, without asking the system for it: it takes glibc a few rounds to find all holes."""
    keep_freed_memory()
    for i in range(40):
        if i == 30:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(1 << 24)  # 64 MB, or 16,384 pages
    raise SystemExit(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before > 1000)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='a setting of glibc')
def test_freed_memory_is_kept():
    process = PROCESSES.Process(target=_touch_memory_again)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize('terminal, width', [(True, 40), (False, 1000)])
def test_a_table_fits_a_terminal(monkeypatch, terminal, width):
    monkeypatch.setenv('COLUMNS', '40')
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    lines = table([('data', 'ten thousand stories, ' * 6), ('', 'and a note')]).split('\n')
    assert max(map(len, lines)) <= width and (len(lines) == 2) == (not terminal)
    assert lines[0].startswith('data      ten thousand') and lines[-1] == ' ' * 10 + 'and a note'
    assert (
        ' '.join(' '.join(lines[:-1]).split()) == 'data ' + ('ten thousand stories, ' * 6).strip()
    )


def test_an_error_is_one_line():
    assert str(InputError('no such\r\nfile:\n\n x\u2028y')) == 'no such file: x y'
