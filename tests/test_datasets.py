"""Readers of the data sets, on small made-up files in the exact layout of the official ones."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

import datasets
from datasets import (
    TASKS,
    find_data,
    kept_task,
    make_sample,
    make_samples,
    read_examples,
    read_task,
    unrecognized_files,
)
from gpt1.tasks import data_files, own_data
from gpt1.tasks.metrics import METRICS
from gpt1.tasks.own_data import custom_task
from gpt1.tasks.rocstories import COLUMNS, FILES, find_csv, read_cloze_test, rocstories
from gpt1.tasks.task import SPLIT_SEED, Data, Example, decode, soft_targets, write_submission
from utils import InputError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def error_of(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def put(folder, files):
    """Write files below `folder`: name -> text, bytes, or a list of lines or of rows of fields."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            rows = [row if isinstance(row, str) else '\t'.join(row) for row in content]
            content = ''.join(f'{row}\n' for row in rows)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
    return str(folder)


def read(name, *args, **kwargs):
    return read_task(TASKS[name], *args, **kwargs)


def labels(examples):
    return [e.label for e in examples]


# -------------------------------------------------------------------------------------- GLUE

CHOSEN = [  # a quotation mark is a character: with CSV quoting these rows would be one
    ('He said "no.', 'It "rained".'),
    ('"Tea', 'A cup of tea "'),
    ("Tim's  dog \u2028 ran.", 'A dog\u00a0ran.'),
]


def glue(header, rows, test_header, test_rows):
    return {
        'train.tsv': [header, *rows] if header else rows,
        'dev.tsv': [header, *rows[:2]] if header else rows[:2],
        'test.tsv': [test_header, *test_rows],
    }


def numbered(pairs, *more):
    return [[str(i), *pair, *more] for i, pair in enumerate(pairs)]


def glue_files(name):
    """The three files of a GLUE task in its layout, and the labels of the training file."""
    pairs = CHOSEN
    words = {'qnli': 'entailment not_entailment entailment', 'wnli': '1 0 1'}
    words = words.get(name, 'entailment not_entailment entailment').split()
    if name in ('rte', 'wnli', 'qnli'):
        columns = ['question', 'sentence'] if name == 'qnli' else ['sentence1', 'sentence2']
        rows = [[*row, word] for row, word in zip(numbered(pairs), words)]
        header = ['index', *columns]
        expected = [1, 0, 1] if name == 'wnli' else [0, 1, 0]
        return glue([*header, 'label'], rows, header, numbered(pairs)), expected
    if name == 'qqp':
        rows = [[f'{7 * i}', '1', '2', *pair, f'{i % 2}'] for i, pair in enumerate(pairs)]
        header = ['id', 'qid1', 'qid2', 'question1', 'question2', 'is_duplicate']
        test_header = ['id', 'question1', 'question2']
        return glue(header, rows, test_header, numbered(pairs)), [0, 1, 0]
    if name == 'mrpc':
        rows = [[f'{i % 2}', f'{i}', f'{i + 10}', *pair] for i, pair in enumerate(pairs)]
        header = ['\ufeffQuality', '#1 ID', '#2 ID', '#1 String', '#2 String']
        test_header = ['index', *header[1:]]
        return glue(header, rows, test_header, [[row[1], *row[1:]] for row in rows]), [0, 1, 0]
    if name == 'stsb':
        header = 'index genre filename year old_index source1 source2 sentence1 sentence2'.split()
        more = ['main-captions', 'MSRvid', '2012test', '0001', 'none', 'none']
        test_rows = [[str(i), *more, *pair] for i, pair in enumerate(pairs)]
        rows = [[*row, score] for row, score in zip(test_rows, ('5.000', '3.6', '0.000'))]
        return glue([*header, 'score'], rows, header, test_rows), [5.0, 3.6, 0.0]
    if name == 'cola':
        rows = [['gj04', f'{i % 2}', '' if i % 2 else '*', a] for i, (a, _) in enumerate(pairs)]
        test_rows = numbered([(a,) for a, _ in pairs])
        return glue(None, rows, ['index', 'sentence'], test_rows), [0, 1, 0]
    assert name == 'sst2'
    rows = [[f'{a} ', f'{i % 2}'] for i, (a, _) in enumerate(pairs)]
    test_rows = numbered([(a,) for a, _ in pairs])
    return glue(['sentence', 'label'], rows, ['index', 'sentence'], test_rows), [0, 1, 0]


GLUE = {  # and the folder that its archive makes
    'rte': 'RTE',
    'wnli': 'WNLI',
    'qnli': 'QNLI',
    'qqp': 'QQP',
    'mrpc': 'MRPC',
    'stsb': 'STS-B',
    'cola': 'CoLA',
    'sst2': 'SST-2',
}


@pytest.mark.parametrize('name', GLUE)
@pytest.mark.parametrize('folder', ['{}', 'glue_data/{}', '.'])
def test_glue_tasks_without_quoting(tmp_path, name, folder):
    files, expected = glue_files(name)
    folder = folder.format(GLUE[name])
    data_dir = put(tmp_path, {f'{folder}/{file}': rows for file, rows in files.items()})
    data = read(name, data_dir)
    assert labels(data.train) == expected
    assert labels(data.valid['valid']) == expected[:2]
    assert labels(data.test['test']) == [None] * 3
    for examples in (data.train, data.test['test']):
        texts = [tuple(text.rstrip() for text in e.texts) for e in examples]
        assert texts == [pair[: len(texts[0])] for pair in CHOSEN]
        assert len({e.id for e in examples}) == 3
    assert [os.path.basename(path) for path in data.sources] == list(files)
    assert any('not the whole' in note for note in data.notes)


@pytest.mark.parametrize('name', GLUE)
def test_line_ends_blank_lines_and_no_final_line_end(tmp_path, name):
    files, expected = glue_files(name)
    for file, rows in files.items():
        lines = [row if isinstance(row, str) else '\t'.join(row) for row in rows]
        put(tmp_path, {file: '\r\n'.join([*lines, '', '\t' * 3, *lines[-1:]])})
    data = read(name, str(tmp_path))
    assert labels(data.train) == [*expected, expected[-1]]


@pytest.mark.parametrize('name', GLUE)
def test_a_row_that_cannot_be_read_is_named(tmp_path, name):
    files, _ = glue_files(name)
    label_at = {'mrpc': 0, 'cola': 1}.get(name, -1)
    for change, expected in (
        (lambda row: [*row, 'more'], f'{len(files["train.tsv"][0]) + 1} fields, expected'),
        (lambda row: row[:-1], f'{len(files["train.tsv"][0]) - 1} fields, expected'),
        (lambda row: [*row[:label_at], 'x', *row[label_at:][1:]], "the label is 'x', expected"),
    ):
        rows = [list(row) for row in files['train.tsv']]
        rows[-1] = change(rows[-1])
        data_dir = put(tmp_path, {**files, 'train.tsv': rows})
        if name == 'qqp' and 'fields' in expected:
            assert any('broken rows left out: 1' in n for n in read(name, data_dir).notes)
        else:
            message = error_of(read, name, data_dir)
            assert f'train.tsv, line {len(rows)}: ' in message and expected in message


def test_a_header_that_is_not_clear(tmp_path):
    files, _ = glue_files('rte')
    put(tmp_path, {'x': files['test.tsv'] * 2, 'y': [['sentence1', *files['test.tsv'][0]]]})
    assert 'line 5: the header again' in error_of(read_examples, f'{tmp_path}/x', TASKS['rte'])
    assert "'sentence1' is there twice" in error_of(read_examples, f'{tmp_path}/y', TASKS['rte'])


def test_another_task_in_the_folder(tmp_path):
    for name, other in (('rte', 'wnli'), ('wnli', 'rte'), ('rte', 'cola'), ('qnli', 'rte')):
        files, _ = glue_files(other)
        assert 'train.tsv, line' in error_of(read, name, put(tmp_path, files))


def test_qqp_leaves_out_broken_rows_except_in_the_test_file(tmp_path):
    files, expected = glue_files('qqp')
    files['train.tsv'][2:2] = [['9', '1', 'half a question'], ['the rest', 'b', '1']]
    data = read('qqp', put(tmp_path, files))
    assert labels(data.train) == expected
    assert f'{tmp_path}/train.tsv: broken rows left out: 2' in data.notes
    files['test.tsv'][2:2] = [['9', 'half a question']]
    assert 'test.tsv, line 3: 2 fields, expected 3' in error_of(read, 'qqp', put(tmp_path, files))


def test_qqp_keeps_empty_questions_and_says_so(tmp_path):
    files, _ = glue_files('qqp')
    files['train.tsv'].append(['9', '1', '2', '', 'Why?', '0'])
    data = read('qqp', put(tmp_path, files))
    assert data.train[-1].texts == ('', 'Why?')
    assert f'{tmp_path}/train.tsv: examples with an empty text: 1' in data.notes


@pytest.mark.parametrize(
    'name, sizes, expected',
    [
        ('qnli', (104_743, 5_463, 5_463), 'QNLI version 2'),
        ('qnli', (108_436, 5_732, 5_740), 'QNLI version 1'),
        ('qnli', (20, 5_732, 5_740), 'not the whole QNLI: 20 + 5,732 + 5,740 examples'),
        ('qqp', (363_849, 40_430, 390_965), 'until September 2020'),
        ('qqp', (363_846, 40_430, 390_965), 'QQP-clean'),
        ('rte', (2_490, 277, 3_000), None),
        ('rte', (2_490, 276, 3_000), 'not the whole RTE: 2,490 + 276 + 3,000 examples'),
    ],
)
def test_editions_are_told_apart_by_their_size(tmp_path, monkeypatch, name, sizes, expected):
    one = Example('0', ('a', 'b'), 0)
    train, valid, test = ([one] * n for n in sizes)
    data = Data(train, {'valid': valid}, {'test': test})
    monkeypatch.setattr(datasets, 'read_official', lambda *args: data)
    notes = read(name, str(tmp_path)).notes
    assert (expected is None and not notes) or expected in notes[0]


def test_n_valid_is_not_used_where_there_is_a_validation_file(tmp_path):
    files, _ = glue_files('rte')
    data = read('rte', put(tmp_path, files), n_valid=1)
    assert 'n_valid is not used: RTE has validation files' in data.notes
    assert len(data.valid['valid']) == 2


def test_a_test_file_is_optional(tmp_path):
    files, _ = glue_files('cola')
    del files['test.tsv']
    data = read('cola', put(tmp_path, files))
    assert data.test == {} and f'{tmp_path} has no test.tsv: no test set' in data.notes


# -------------------------------------------------------------------------------- MRPC, STS-B


def mrpc_source(n=10):
    header = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String'
    rows = [f'{i % 3 > 0:d}\t{i}\t{i + 100}\t"First {i}\tSecond {i}' for i in range(n)]
    return '\r\n'.join([header, *rows, ''])


def test_mrpc_from_microsofts_files_and_the_dev_ids(tmp_path):
    data_dir = put(
        tmp_path,
        {
            'MRPC/msr_paraphrase_train.txt': mrpc_source(10),
            'MRPC/msr_paraphrase_test.txt': mrpc_source(4),
            'MRPC/mrpc_dev_ids.tsv': '3\t103\r\n7\t107\n99\t100\n',
        },
    )
    data = read('mrpc', data_dir)
    assert [e.id for e in data.valid['valid']] == ['3-103', '7-107']
    assert len(data.train) == 8 and labels(data.test['test']) == [0, 1, 1, 0]
    assert data.train[0] == Example('0-100', ('"First 0', 'Second 0'), 0)
    put(tmp_path, {'MRPC/mrpc_dev_ids.tsv': '5\t6\n'})
    assert 'expected the ids of some pairs' in error_of(read, 'mrpc', data_dir)


def test_mrpc_from_microsofts_files_alone(tmp_path):
    data_dir = put(
        tmp_path,
        {
            'msr_paraphrase_train.txt': mrpc_source(40),
            'msr_paraphrase_test.txt': mrpc_source(4),
            'test.tsv': 'what the download script leaves without the ids',
        },
    )
    data = read('mrpc', data_dir)
    assert len(data.train) == 36 and len(data.valid['valid']) == 4
    assert any('4 pairs are set aside at random' in note for note in data.notes)
    again = read('mrpc', data_dir)
    assert again.valid == data.valid and again.train == data.train
    assert read('mrpc', data_dir, seed=1).valid != data.valid
    assert len(read('mrpc', data_dir, n_valid=7).valid['valid']) == 7
    assert 'cannot set 40 aside' in error_of(read, 'mrpc', data_dir, n_valid=40)
    assert {e.id for e in data.train + data.valid['valid']} == {f'{i}-{i + 100}' for i in range(40)}


def test_mrpc_test_labels_are_taken_from_microsofts_file(tmp_path):
    files, _ = glue_files('mrpc')
    source = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
    source += ''.join(f'{i % 2}\t{i}\t{i + 10}\tother\ttokens\n' for i in range(3))
    data_dir = put(tmp_path, {**files, 'msr_paraphrase_test.txt': source})
    data = read('mrpc', data_dir)
    assert labels(data.test['test']) == [0, 1, 0]
    assert data.test['test'][0].texts == CHOSEN[0]
    put(tmp_path, {'msr_paraphrase_test.txt': source.replace('\t2\t12\t', '\t2\t13\t')})
    data = read('mrpc', data_dir)
    assert labels(data.test['test']) == [None] * 3
    assert any('other rows than the test file: not used' in note for note in data.notes)


def test_mrpc_is_missing(tmp_path):
    message = error_of(read, 'mrpc', str(tmp_path))
    for name in ('"train.tsv"', '"msr_paraphrase_train.txt"', '"MRPC"', 'https://'):
        assert name in message


def test_stsb_test_scores_are_taken_from_the_original_file(tmp_path):
    files, _ = glue_files('stsb')
    rows = [
        ['main-captions', 'MSRvid', '2012test', '0024', f'{i}.5', a, f'{b} ']
        for i, (a, b) in enumerate(CHOSEN)
    ]
    rows[1] += ['http://licence', 'source']
    data_dir = put(tmp_path, {**files, 'original/sts-test.tsv': rows})
    data = read('stsb', data_dir)
    assert labels(data.test['test']) == [0.5, 1.5, 2.5]
    assert data.test['test'][1].texts == CHOSEN[1]
    put(tmp_path, {'original/sts-test.tsv': rows[1:]})
    assert labels(read('stsb', data_dir).test['test']) == [None] * 3


@pytest.mark.parametrize('score', ['5.001', '-0.1', 'nan', 'inf', '', 'x', '1,5'])
def test_scores_are_from_0_to_5(tmp_path, score):
    files, _ = glue_files('stsb')
    files['train.tsv'][2][-1] = score
    message = error_of(read, 'stsb', put(tmp_path, files))
    assert f'train.tsv, line 3: the label is {score!r}, expected a number from 0 to 5' in message


# --------------------------------------------------------------------- SNLI, MNLI, SciTail

WORDS = ['entailment', 'neutral', 'contradiction', '-']
TREE = '( ( A cat ) sat )'


def snli_json(words, **more):
    return [
        json.dumps(
            {
                'annotator_labels': [word],
                'captionID': f'{i}.jpg#0',
                'gold_label': word,
                'pairID': f'{i}.jpg#0r1',
                'sentence1': f'A "cat {i}.',
                'sentence1_binary_parse': TREE,
                'sentence1_parse': TREE,
                'sentence2': f'Ça {i}.',
                'sentence2_binary_parse': TREE,
                'sentence2_parse': TREE,
                **more,
            }
        )
        for i, word in enumerate(words)
    ]


def snli_txt(words, first='gold_label', ids='captionID pairID'):
    header = f'{first} sentence1_binary_parse sentence2_binary_parse sentence1_parse '
    header += f'sentence2_parse sentence1 sentence2 {ids} label1 label2 label3 label4 label5'
    rows = [
        [w, TREE, TREE, TREE, TREE, f'A "cat {i}.', f'Ça {i}.', f'{i}.jpg#0', f'{i}.jpg#0r1', w]
        for i, w in enumerate(words)
    ]
    rows[0] += ['', '', '', '']  # annotated once, with or without the other four fields
    return [header.split(), *rows]


def nli_tsv(words, third='captionID', n_labels=1, header_labels=1):
    """GLUE's layout of SNLI and MNLI; rows may have more labels than the header says."""
    texts = 'sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse'
    header = f'index {third} pairID'.split() + texts.split() + ['sentence1', 'sentence2']
    header += [f'label{k + 1}' for k in range(header_labels)] + ['gold_label']
    rows = []
    for i, word in enumerate(words):
        row = [str(i), f'{i}.jpg', f'{i}.jpg#0r1', *[TREE] * 4, f'A "cat {i}.', f'Ça {i}.']
        rows.append([*row, *['neutral'] * (n_labels if i % 2 else header_labels), word])
    return [header, *rows]


SNLI = {
    'jsonl': ('snli_1.0/snli_1.0_{}.jsonl', snli_json),
    'txt': ('SNLI/snli_1.0/snli_1.0_{}.txt', snli_txt),
    'glue': ('SNLI/{}.tsv', lambda words: nli_tsv(words, n_labels=5)),
}


@pytest.mark.parametrize('kind', SNLI)
def test_snli_in_each_format(tmp_path, kind):
    pattern, make = SNLI[kind]
    words = [*WORDS, 'neutral']
    data_dir = put(
        tmp_path,
        {
            pattern.format('train'): make(words),
            pattern.format('dev'): make(words[:2]),
            pattern.format('test'): make(words[1:4]),
            'snli_1.0/Icon\r': b'',
            'snli_1.0/.DS_Store': b'\xff',
        },
    )
    data = read('snli', data_dir)
    assert labels(data.train) == [0, 1, 2, 1]
    assert data.train[0] == Example('0.jpg#0r1', ('A "cat 0.', 'Ça 0.'), 0)
    assert labels(data.valid['valid']) == [0, 1] and labels(data.test['test']) == [1, 2]
    train = os.path.join(data_dir, pattern.format('train'))
    assert f"{train}: pairs without a majority label ('-') left out: 1" in data.notes
    # to predict, no row is left out
    assert labels(read_examples(train, TASKS['snli'])) == [0, 1, 2, None, 1]


def test_json_lines_that_cannot_be_read(tmp_path):
    files = {f'snli_1.0_{split}.jsonl': snli_json(WORDS) for split in ('train', 'dev', 'test')}
    for line, expected in (
        ('{"gold_label": "neutral"', 'not JSON'),
        ('[' * 100_000, 'not JSON'),
        ('[1]', 'expected a JSON object'),
        ('{"gold_label": "neutral", "sentence1": "a"}', 'sentence2 is missing or not a string'),
        (snli_json(['neutral'], sentence1=5)[0], 'sentence1 is missing or not a string'),
        (snli_json(['maybe'])[0], "the label is 'maybe', expected one of entailment, neutral"),
        (snli_json([None])[0], "the label is '', expected"),
        (snli_json([3])[0], "the label is '3', expected"),
    ):
        put(tmp_path, {**files, 'snli_1.0_train.jsonl': [*snli_json(WORDS), '', line]})
        message = error_of(read, 'snli', str(tmp_path))
        assert f'{tmp_path}/snli_1.0_train.jsonl, line 6: {expected}' in message


def test_half_a_surrogate_pair_becomes_a_character_that_can_be_written(tmp_path):
    path = put(tmp_path, {'x': snli_json(['neutral'], sentence1='a\ud800b', sentence2='😀')}) + '/x'
    [pair] = read_examples(path, TASKS['snli'])
    assert pair.texts[0].encode() and pair.texts[1] == '😀'


def mnli_files(make, pattern):
    names = 'train dev_matched dev_mismatched test_matched test_mismatched'.split()
    files = {pattern.format(name): make(name) for name in names}
    return {name: rows for name, rows in files.items() if rows}


def mnli_tsv(name):
    if name.startswith('test'):
        return [row[:9] for row in nli_tsv(WORDS[:3], 'promptID')]
    n = 5 if name.startswith('dev') else 1
    return nli_tsv(WORDS[:3], 'promptID', n_labels=n, header_labels=n)


@pytest.mark.parametrize('ax', [None, 'AX/diagnostic.tsv', 'AX.tsv', 'MNLI/AX.tsv'])
@pytest.mark.parametrize('inside', ['', 'MNLI'])
def test_mnli_and_its_diagnostic_set(tmp_path, ax, inside):
    files = mnli_files(mnli_tsv, 'MNLI/{}.tsv')
    if ax:
        files[ax] = [['index', 'sentence1', 'sentence2'], *numbered(CHOSEN)]
    data = read('mnli', os.path.join(put(tmp_path, files), inside))
    assert labels(data.train) == [0, 1, 2]
    assert {split: labels(e) for split, e in data.valid.items()} == {
        'matched': [0, 1, 2],
        'mismatched': [0, 1, 2],
    }
    assert labels(data.test['matched']) == [None] * 3
    assert ('diagnostic' in data.test) == (ax is not None)
    if ax:
        assert [e.texts for e in data.test['diagnostic']] == CHOSEN


@pytest.mark.parametrize('kind', ['jsonl', 'txt'])
def test_mnli_from_its_authors(tmp_path, kind):
    def make(name):
        if name.startswith('test'):
            return None
        if kind == 'jsonl':
            return snli_json(WORDS, genre='fiction', promptID='1')
        return snli_txt(WORDS, ids='promptID pairID genre')

    files = mnli_files(make, 'multinli_1.0/multinli_1.0_{}.' + kind)
    data = read('mnli', put(tmp_path, files))
    assert labels(data.train) == labels(data.valid['mismatched']) == [0, 1, 2]
    assert data.test == {} and sum('left out: 1' in note for note in data.notes) == 3


def test_scitail_in_both_formats(tmp_path):
    rows = [['He said "no.', 'It  rained', 'entails'], ['"Tea', 'Cup', 'neutral']]
    files = {f'SciTailV1.1/tsv_format/scitail_1.0_{s}.tsv': rows for s in ('train', 'dev', 'test')}
    for split in ('train', 'dev', 'test'):
        files[f'SciTailV1.1/dgem_format/scitail_1.0_structure_{split}.tsv'] = 'not this one'
    data_dir = put(tmp_path, files)
    data = read('scitail', data_dir)
    expected = [
        Example('0', ('He said "no.', 'It  rained'), 0),
        Example('1', ('"Tea', 'Cup'), 1),
    ]
    assert data.train == data.valid['valid'] == data.test['test'] == expected

    words = {'entails': 'entailment', 'neutral': 'neutral'}
    lines = [
        json.dumps({'gold_label': words[c], 'sentence1': a, 'sentence2': b}) for a, b, c in rows
    ]
    for split in ('train', 'dev', 'test'):
        os.unlink(tmp_path / f'SciTailV1.1/tsv_format/scitail_1.0_{split}.tsv')
        put(tmp_path, {f'SciTailV1.1/snli_format/scitail_1.0_{split}.txt': lines})
    assert read('scitail', data_dir).train == expected
    put(tmp_path, {'SciTailV1.1/snli_format/scitail_1.0_dev.txt': ['a\tb', 'c\td']})
    assert '2 fields, expected 3' in error_of(read, 'scitail', data_dir)


# -------------------------------------------------------------------------------------- RACE


def passage(name='high12.txt', answers='AD', **more):
    record = {
        'answers': list(answers),
        'options': [[f'{k} {letter}' for letter in 'abcd'] for k in range(len(answers))],
        'questions': [f'It is   _   {k}?' for k in range(len(answers))],
        'article': f'An article\nof {name}.',
        'id': name,
        **more,
    }
    return json.dumps(record)


def race_files():
    files = {}
    for split in ('train', 'dev', 'test'):
        for level in ('middle', 'high'):
            for number in (10, 9, 100):
                name = f'{level}{number}.txt'
                files[f'RACE/{split}/{level}/{number}.txt'] = passage(name, 'AD')
            files[f'RACE/{split}/{level}/.DS_Store'] = b'\xff'
    return files


def test_race_in_the_order_of_its_numbers(tmp_path):
    data = read('race', put(tmp_path, race_files()))
    ids = [f'{level}{number}-{k}' for level in ('middle', 'high') for number in (9, 10, 100)
           for k in (0, 1)]  # fmt: skip
    assert [e.id for e in data.train] == ids and labels(data.train) == [0, 3] * 6
    assert list(data.valid) == list(data.test) == ['middle', 'high']
    assert [e.id for e in data.valid['high']] == ids[6:]
    article, question, *options = data.train[1].texts
    assert article == 'An article\nof middle9.txt.' and question == 'It is   _   1?'
    assert options == ['1 a', '1 b', '1 c', '1 d']
    inside = read('race', str(tmp_path / 'RACE'))
    assert inside.train == data.train and data.sources[0].endswith('RACE/train/middle')


def test_race_with_one_level_and_without_a_test_set(tmp_path):
    files = {name: text for name, text in race_files().items() if 'test' not in name}
    files = {name: text for name, text in files.items() if 'train/high' not in name}
    data = read('race', put(tmp_path, files))
    assert len(data.train) == 6 and data.test == {}
    assert any('no train passages of high' in note for note in data.notes)


@pytest.mark.parametrize(
    'content, expected',
    [
        (passage(answers='AE'), ", question 2: the answer is 'E', expected A to D"),
        (passage(answers='A', options=[['one']]), ', question 1: expected two options'),
        (passage(answers='A', options=[[1, 2]]), ', question 1: an option is missing or not a'),
        (passage(answers='AB', questions=['Why?']), ': expected as many options and answers'),
        (passage(answers='A', options=7), ': expected the lists "questions" and "options"'),
        (passage(answers='A', article=None), ': article is missing'),
        (passage(answers='A', answers_=1).replace('"answers"', '"x"'), ': expected as many'),
        ('{', ': not JSON'),
        (b'\xff\n', ', line 1: not UTF-8'),
    ],
)
def test_race_passages_that_cannot_be_read(tmp_path, content, expected):
    put(tmp_path, {**race_files(), 'RACE/train/high/9.txt': content})
    message = error_of(read, 'race', str(tmp_path))
    assert f'{tmp_path}/RACE/train/high/9.txt{expected}' in message


def test_race_is_missing_or_empty(tmp_path):
    assert 'has no RACE: expected "train/middle"' in error_of(read, 'race', str(tmp_path))
    for split in ('train', 'dev'):
        (tmp_path / split / 'middle').mkdir(parents=True)
    assert 'has no passages' in error_of(read, 'race', str(tmp_path))


# -------------------------------------------------------------------------------- ROCStories


def stories(n, label='1'):
    return [
        [
            f'id{i}',
            *(f'Sentence {j} of {i}.' for j in range(4)),
            f'First "ending", {i}.',
            f'Second\nending {i}.',
            label,
        ]
        for i in range(n)
    ]


def as_csv(rows, header=COLUMNS, delimiter=',', encoding='utf-8', before=''):
    f = io.StringIO()
    csv.writer(f, delimiter=delimiter).writerows([header, *rows])
    return (before + f.getvalue()).encode(encoding)


def write(path, rows, **options):
    path.write_bytes(as_csv(rows, **options))
    return str(path)


def test_reads_the_columns_of_a_story(tmp_path):
    path = write(tmp_path / 'x.csv', [*stories(2), ['ü', 'a', 'b', 'c', 'd', '好', 'e', ' 2 ']])
    found = read_cloze_test(path)
    assert [e.id for e in found] == ['id0', 'id1', 'ü'] and labels(found) == [0, 0, 1]
    context = 'Sentence 0 of 0. Sentence 1 of 0. Sentence 2 of 0. Sentence 3 of 0.'
    assert found[0].texts == (context, 'First "ending", 0.', 'Second\nending 0.')
    assert found[2].texts == ('a b c d', '好', 'e')


REORDERED = [7, 0, 3, 4, 1, 2, 6, 5]


@pytest.mark.parametrize(
    'content',
    [
        as_csv(stories(3)),
        as_csv(stories(3, '1.0')),
        as_csv(stories(3), encoding='utf-8-sig'),
        as_csv(stories(3), encoding='utf-16'),
        as_csv(stories(3), delimiter=';'),
        as_csv(stories(3), delimiter='\t'),
        as_csv(stories(3), before='sep=,\r\n'),
        as_csv(stories(3), before='sep=|\n', delimiter='|'),
        as_csv(stories(3), before='\r\n\n'),
        as_csv(stories(3)).replace(b'\r\n', b'\n'),
        as_csv([*stories(1), [], *stories(3)[1:], [], [''] * 8, [' '] * 8]),
        as_csv([[*row, '', ''] for row in stories(3)]),
        as_csv([[*row[:8], 'x'] for row in stories(3)], header=[*COLUMNS, 'More']),
        as_csv(
            [['9', *(row[i] for i in REORDERED)] for row in stories(3)],
            header=['', *(COLUMNS[i] for i in REORDERED)],
        ),
    ],
)
def test_what_spreadsheets_and_pandas_make_of_the_file(tmp_path, content):
    (tmp_path / 'x.csv').write_bytes(content)
    expected = read_cloze_test(write(tmp_path / 'plain.csv', stories(3)))
    for need_labels in (True, False):
        assert read_cloze_test(str(tmp_path / 'x.csv'), need_labels) == expected


def test_a_long_field_is_read(tmp_path):
    row = stories(1)[0]
    row[3] = 'long ' * 100_000
    [story] = read_cloze_test(write(tmp_path / 'x.csv', [row]))
    assert len(story.texts[0]) > 500_000


STRAY = [
    's3,a,b,c,d,e,"She flew away.',  # the last cell: nothing closes it
    's3,a,b,c,d,e,"She flew away.\ns4,a,b,c,d,e,"She flew away.',
    's3,a,b,c,d,e,"She flew away.\ns4,a,b,c,d,e,She flew away."',
    's3,a,b,c,d,"e,She flew away.\ns4,a,b,c,d,e",She flew away.\ns5,a,b,c,d,e,f',
    's3,a,b,c,d,e,"She flew" away.',
    '"s3,a,b,c,d,e,f\ns4,a,b,c,d,e,f\ns5",a,b,c,d,e,f',
]


@pytest.mark.parametrize('rows', STRAY)
def test_a_stray_quotation_mark_never_glues_stories_silently(tmp_path, rows):
    good = 's{},a,b,c,d,e,f\n'
    text = ','.join(COLUMNS[:7]) + '\n' + good.format(1) + good.format(2) + rows + '\n'
    (tmp_path / 'x.csv').write_text(text)
    message = error_of(read_cloze_test, str(tmp_path / 'x.csv'), need_labels=False)
    assert 'x.csv, row 4' in message and 'quotation mark' in message


@pytest.mark.parametrize(
    'rows, header',
    [([row[:7] for row in stories(3)], COLUMNS[:7]), (stories(3, ''), COLUMNS),
     (stories(3, ' '), COLUMNS)],
)  # fmt: skip
def test_a_test_file_may_lack_labels(tmp_path, rows, header):
    path = write(tmp_path / 'x.csv', rows, header=header)
    assert labels(read_cloze_test(path, need_labels=False)) == [None] * 3
    assert 'AnswerRightEnding' in error_of(read_cloze_test, path)


@pytest.mark.parametrize('label', ['0', '3', '', '1.5', '.0', 'x\ny', '١'])
def test_a_wrong_label(tmp_path, label):
    path = write(tmp_path / 'x.csv', stories(2) + stories(1, label))
    for need_labels in (True, False):
        message = error_of(read_cloze_test, path, need_labels)
        assert f'{path}, row 4: AnswerRightEnding' in message and 'expected 1 or 2' in message


def test_a_row_with_some_cells_empty(tmp_path):
    rows = stories(3)
    rows[1][5] = ' '
    message = error_of(read_cloze_test, write(tmp_path / 'x.csv', [[], *rows]))
    assert 'x.csv, row 4: RandomFifthSentenceQuiz1 is empty' in message


HEADER = ','.join(COLUMNS).encode()


@pytest.mark.parametrize(
    'content, expected',
    [
        (b'', 'is empty'),
        (b'\n', 'is empty'),
        (b'a,b,c\n1,2,3\n', 'row 1: no column InputStoryid; expected the header InputStoryid,'),
        (HEADER, 'a header but no stories'),
        (HEADER + b'\na,b,c\n', 'row 2: 3 columns, expected 8'),
        (HEADER + b'\n' + HEADER, 'row 2: the header again'),
        (HEADER + b',InputSentence1\n', "row 1: the column 'InputSentence1' is there twice"),
        (HEADER + b'\na,b,c,d,e,f,g,1,x\n', 'row 2: 9 columns, expected 8'),
        (HEADER + b'\na,b,c,d,e,f,\xff,1\n', 'line 2: not UTF-8'),
        (','.join(COLUMNS).encode('utf-16')[:-1], 'not UTF-8'),
        (b'PK\x03\x04' + bytes(100), 'row 1: no column'),
    ],
)
def test_what_is_no_such_file(tmp_path, content, expected):
    path = tmp_path / 'x.csv'
    path.write_bytes(content)
    message = error_of(read_cloze_test, str(path))
    assert str(path) in message and expected in message


def test_stories_that_are_missing_or_too_few(tmp_path):
    assert 'no such folder' in error_of(rocstories, str(tmp_path / 'none'))
    message = error_of(rocstories, str(tmp_path))
    assert all(name in message for name in FILES['val'][:2])
    assert 'https://cs.rochester.edu/nlp/rocstories/' in message
    write(tmp_path / FILES['val'][0], stories(5))
    assert all(name in error_of(rocstories, str(tmp_path)) for name in FILES['test'][:2])
    write(tmp_path / FILES['test'][0], stories(5))
    assert 'has 5 stories, too few to set 5 aside' in error_of(rocstories, str(tmp_path), n_valid=5)
    error_of(read_cloze_test, str(tmp_path))  # a folder
    error_of(read_cloze_test, os.path.join(tmp_path, 'none\nat all'))
    error_of(read_cloze_test, 'a\0b')


@pytest.mark.parametrize('n, n_valid', [(10, 3), (57, 1), (57, 56), (400, 374)])
def test_the_split_is_that_of_sklearn(tmp_path, n, n_valid):
    write(tmp_path / FILES['val'][0], stories(n))
    write(tmp_path / FILES['test'][1], stories(2))
    train, valid, test = rocstories(str(tmp_path), n_valid)
    everything = read_cloze_test(find_csv(str(tmp_path), 'val'))
    assert [train, valid] == train_test_split(
        everything, test_size=n_valid, random_state=SPLIT_SEED
    )
    data = read('rocstories', str(tmp_path), n_valid, seed=7)
    assert (data.train, data.valid, data.test) == (train, {'valid': valid}, {'test': test})


@pytest.mark.parametrize('which', FILES)
def test_names_of_the_story_files(tmp_path, which):
    def found():
        return os.path.basename(find_csv(str(tmp_path), which))

    spring = f'cloze_test_{which}__spring2016'
    published = f'{spring} - cloze_test_ALL_{which}.csv'
    winter = f'cloze_test_{which}__winter2018-cloze_test_ALL_{which} - 1 - 1.csv'
    for name in (winter, f'{spring} (1).CSV', f'{spring}.csv', published):  # each before the last
        (tmp_path / name).touch()
        assert found() == name
    os.unlink(tmp_path / published)
    os.unlink(tmp_path / f'{spring}.csv')
    (tmp_path / f'{spring} (2).csv').touch()
    assert f'several {which} files' in error_of(find_csv, str(tmp_path), which)


def test_the_edition_of_2018_whose_test_file_has_no_labels(tmp_path):
    write(tmp_path / FILES['val'][2], stories(5))
    write(tmp_path / FILES['val'][0], stories(7))  # of 2016, but without its test file
    write(tmp_path / FILES['test'][2], [row[:7] for row in stories(3)], header=COLUMNS[:7])
    data = read('rocstories', str(tmp_path), n_valid=2)
    assert len(data.train) == 3 and labels(data.test['test']) == [None] * 3
    assert data.notes == ["the edition of 2018; the paper's is that of 2016"]


# ----------------------------------------------------------- missing files, the sample, data/


def test_missing_files_are_named_with_their_address(tmp_path):
    message = error_of(read, 'snli', str(tmp_path))
    for part in ('"snli_1.0_train.jsonl" and "snli_1.0_dev.jsonl"', '"snli_1.0"', 'https://nlp.'):
        assert part in message
    put(tmp_path, {'SNLI/snli_1.0_train.txt': snli_txt(WORDS)})
    message = error_of(read, 'snli', str(tmp_path))
    assert f'{tmp_path}/SNLI is not all of SNLI: expected "snli_1.0_dev.jsonl" or ' in message
    assert 'no such folder' in error_of(read, 'snli', str(tmp_path / 'none'))


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone of the repository in which nothing is but a sample of stories."""
    sample = {f'data/sample/{FILES[which][0]}': as_csv(stories(5)) for which in FILES}
    put(tmp_path / 'clone', {'data/README.md': '', **sample})
    monkeypatch.setattr(datasets, 'ROOT', str(tmp_path / 'clone'))
    monkeypatch.setattr(datasets, 'SAMPLE', str(tmp_path / 'clone' / 'data' / 'sample'))
    monkeypatch.chdir(tmp_path / 'clone')
    return tmp_path / 'clone'


def test_the_sample_is_the_default_on_a_fresh_clone_and_elsewhere(clone, tmp_path, monkeypatch):
    assert find_data('rocstories') == ('data/sample/', True)
    assert find_data('rocstories', 'data/') == ('data/', False)
    assert find_data('rocstories', str(clone / 'data/sample')) == (str(clone / 'data/sample'), True)
    assert '--data_dir' in error_of(find_data, 'custom')
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    folder, is_sample = find_data('rocstories')
    assert is_sample and len(rocstories(folder, 2)[0]) == 3


@pytest.mark.parametrize('name, folder', [('cola', 'CoLA'), ('race', 'RACE'), ('dprd', 'DPRD')])
def test_looking_writes_nothing_and_the_sample_is_made_once(clone, name, folder):
    assert find_data(name) == find_data(name, 'data/', or_sample=True) == ('data/sample/', True)
    assert not (clone / 'data/sample' / folder).exists()
    make_samples(['rocstories', name], None)
    made = os.stat(clone / 'data/sample' / folder).st_ino
    make_sample(name, f'data/sample/{folder}')
    make_sample(name, 'data/')  # not the sample
    assert os.stat(clone / 'data/sample' / folder).st_ino == made
    assert sorted(os.listdir('data')) == ['README.md', 'sample']
    if name != 'dprd':
        assert read(name, 'data/sample').notes == []


@pytest.mark.parametrize('name', [*TASKS, 'dprd'])
def test_every_file_that_is_read_is_found(clone, name):
    """In data/ and in a folder that is named; the folder of all tasks does not count."""
    put(clone, {'data/glue/AX/diagnostic.tsv': 'x'})
    assert find_data(name, 'data/', or_sample=True) == ('data/sample/', True)
    paths = [f'cloze_test_{which}__spring2016 (1).CSV' for which in FILES]
    if name != 'rocstories':
        archives = datasets._archives(name)
        paths = [path for a in archives for split in a.splits for path in a.names(split)]
        paths.append(f'glue_data/{archives[0].folders[0].lower()}/x')
    for path in paths:
        put(clone, {f'data/{path}': 'x'})
        assert find_data(name) == find_data(name, 'data/', or_sample=True) == ('data/', False)
        os.unlink(clone / 'data' / path)


@pytest.mark.parametrize(
    'name', ['cloze (1).csv', 'stories.CSV', 'val.tsv', 'new.jsonl', 'Book1.xlsx', 'rocstories.zip']
)
def test_unknown_data_in_the_default_folder_stops_the_default(clone, name):
    put(clone, {f'data/{name}': 'x', 'data/.DS_Store': 'x', 'data/mine/train.csv': 'x'})
    assert unrecognized_files('data/', 'rocstories') == [name]
    message = error_of(find_data, 'rocstories')
    for part in (f'"{name}"', f'"{FILES["val"][0]}"', f'"{FILES["test"][0]}"', '--data_dir'):
        assert part in message
    assert find_data('rocstories', 'data/sample')[1]


def test_files_of_other_tasks_do_not_stop_the_default(clone):
    put(clone, {'data/snli_1.0.zip': 'x', 'data/AX.tsv': 'x', 'data/msr_paraphrase_test.txt': 'x'})
    assert find_data('rocstories')[1]
    assert '"snli_1.0.zip"; expected the folder "snli_1.0"' in error_of(find_data, 'snli')


ROW = """
    Task(
        name='news',
        title='News',
        layout='text',
        labels=('dull', 'good'),
        archive=Archive(folders=('News',), address='https://n.example', texts=('sentence',)),
    ),
"""


def test_a_new_task_is_one_row(tmp_path):
    """The program needs no other edit to offer it, to read its files and to train on them."""
    for name in os.listdir(ROOT):
        if name.endswith('.py'):
            shutil.copy(os.path.join(ROOT, name), tmp_path)
    for name in ('gpt1', os.path.join('model', 'sample')):
        shutil.copytree(os.path.join(ROOT, name), tmp_path / name)
    table = (tmp_path / 'datasets.py').read_text()
    assert '_ROWS = [\n' in table
    (tmp_path / 'datasets.py').write_text(table.replace('_ROWS = [\n', f'_ROWS = [{ROW}'))

    def run(script, *options, status=0):
        command = [sys.executable, str(tmp_path / script), *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert ' news, ' in run('train.py', '--help')
    assert 'news' not in run('paper.py', '--list')  # neither real nor made-up data
    problem = 'data/ has no News, and there is no made-up data for it: get it from https://n.exam'
    assert problem in run('train.py', '--dataset', 'news', status=2)
    rows = [['index', 'sentence', 'label'], *([str(i), f'a {i}', 'good'] for i in range(8))]
    put(tmp_path, {f'data/news/{split}.tsv': rows for split in ('train', 'dev', 'test')})
    sizes = '--n_layer 1 --n_embd 4 --n_head 2 --n_transfer -1 --n_iter 1 --n_gpu 1 --device cpu'
    printed = run('train.py', '--dataset', 'news', '--submit', '--analysis', *sizes.split())
    assert 'News: 8 training' in printed
    assert len((tmp_path / 'submission' / 'News.tsv').read_text().splitlines()) == 9


# --------------------------------------------------------------------------------- your own data

TEXTS = 'text,label\nGood.,pos\nBad.,neg\nNice.,pos\nAwful.,neg\nFine.,pos\nPoor.,neg\n'


def test_six_lines_of_your_own(tmp_path):
    task, data = custom_task(put(tmp_path, {'train.csv': TEXTS}))
    assert task.layout == 'text' and task.labels == ('neg', 'pos') and task.n_out == 2
    assert task.metrics == ('accuracy', 'f1') and len(data.train) == 4
    assert sorted(labels(data.valid['valid'])) == [0, 1] and data.test == {}
    assert any('no valid file: 2 examples are set aside' in note for note in data.notes)
    again = custom_task(str(tmp_path))[1]
    assert (again.train, again.valid) == (data.train, data.valid)


def test_the_split_is_stratified(tmp_path):
    rows = ''.join(f'text {i},{"ab"[i % 4 == 0]}\n' for i in range(400)) + 'one,c\n'
    task, data = custom_task(put(tmp_path, {'train.csv': 'text,label\n' + rows}), n_valid=40)
    assert task.labels == ('a', 'b', 'c')
    assert sorted(labels(data.valid['valid'])) == [0] * 30 + [1] * 10
    assert labels(data.train).count(2) == 1 and len(data.train) == 361
    assert custom_task(str(tmp_path), n_valid=40, seed=1)[1].valid != data.valid
    for n_valid in (1, 400):
        assert 'cannot set' in error_of(custom_task, str(tmp_path), n_valid=n_valid)


@pytest.mark.parametrize('ending', ['csv', 'tsv', 'jsonl'])
def test_pairs_in_each_format(tmp_path, ending):
    pairs = [('He said "hi', 'Ça va?', 'yes'), ('b', 'c', 'no'), ('d', 'e', 'no')]
    columns = ['Text1', 'text2', 'label', 'id']
    rows = [[*pair, f'n{i}'] for i, pair in enumerate(pairs)]
    content = {
        'csv': as_csv(rows, header=columns),
        'tsv': [columns, *rows],
        'jsonl': [json.dumps(dict(zip(columns, row))) for row in rows],
    }[ending]
    put(tmp_path, {f'{split}.{ending}': content for split in ('train', 'valid', 'test')})
    task, data = custom_task(str(tmp_path), symmetric=True)
    assert task.layout == 'similarity' and task.labels == ('no', 'yes')
    expected = [Example(f'n{i}', (a, b), int(c == 'yes')) for i, (a, b, c) in enumerate(pairs)]
    assert data.train == data.valid['valid'] == data.test['test'] == expected
    assert custom_task(str(tmp_path))[0].layout == 'pair'
    assert read_examples(str(tmp_path / f'test.{ending}'), task) == expected


def test_choices_whose_number_varies(tmp_path):
    rows = 'context,choice1,choice2,choice3,label\nA?,b,c,,2\nD?,e,f,g,3.0\nH?,i,j,,1\n'
    task, data = custom_task(put(tmp_path, {'train.csv': rows, 'valid.csv': rows}))
    assert task.layout == 'choices' and task.labels is None and task.n_out == 1
    assert [len(e.texts) for e in data.train] == [3, 4, 3] and labels(data.train) == [1, 2, 0]
    for label in ('0', '3', 'x', ''):
        put(tmp_path, {'valid.csv': rows.replace('c,,2', f'c,,{label}')})
        message = error_of(custom_task, str(tmp_path))
        assert f'valid.csv, row 2: the label is {label!r}' in message and '1 to 2' in message
    lines = ['{"context": "a", "choice1": "b", "choice2": "c", "label": 1}']
    lines += ['{"context": "a", "choice1": "b", "choice2": "c", "choice3": "d", "label": 3}']
    put(tmp_path, {'valid.csv': rows, 'test.jsonl': lines})
    assert labels(custom_task(str(tmp_path))[1].test['test']) == [0, 2]


def test_a_regression(tmp_path):
    rows = 'text,label\n' + ''.join(f'text {i},{i / 4}\n' for i in range(40))
    task, data = custom_task(put(tmp_path, {'train.csv': rows}), regression=True)
    assert task.regression and task.labels is None and task.n_out == 1 and len(data.train) == 36
    assert task.metrics == ('pearson', 'spearman')
    train = np.array(labels(data.train))
    assert task.mean == pytest.approx(train.mean()) and task.std == pytest.approx(train.std())
    standardized = (train - task.mean) / task.std
    assert decode(task, standardized[:, None]) == pytest.approx(train)
    put(tmp_path, {'train.csv': rows.replace('3.25', 'many')})
    message = error_of(custom_task, str(tmp_path), regression=True)
    assert "train.csv, row 15: the label is 'many', expected a number" in message


def test_class_names_are_sorted_and_numbers_are_numbers(tmp_path):
    rows = 'text,label\n' + ''.join(f'{x},{x}\n' for x in ('10.0', '9.0', '10.0', '9', '-1'))
    task, data = custom_task(put(tmp_path, {'train.csv': rows, 'valid.csv': rows}))
    assert task.labels == ('-1', '9', '10') and labels(data.train) == [2, 1, 2, 1, 0]
    assert task.metrics == ('accuracy', 'f1')
    lines = [json.dumps({'text': 'a', 'label': x}) for x in (10.0, 9, '-1', -1)]
    os.unlink(tmp_path / 'valid.csv')
    put(tmp_path, {'valid.jsonl': lines})
    assert labels(custom_task(str(tmp_path))[1].valid['valid']) == [2, 1, 0, 0]


@pytest.mark.parametrize(
    'files, options, expected',
    [
        ({'a.csv': TEXTS}, {}, 'has no train.csv, train.tsv or train.jsonl'),
        ({'train.csv': TEXTS, 'train.TSV': TEXTS}, {}, 'has "train.TSV", "train.csv": keep one'),
        ({'train.csv': TEXTS, 'dev.csv': TEXTS}, {}, 'dev.csv: rename it to valid'),
        ({'train.csv': ''}, {}, 'train.csv is empty'),
        ({'train.csv': 'text,label\n'}, {}, 'train.csv has no rows below the header'),
        ({'train.csv': 'sentence,label\na,b\n'}, {},
         "train.csv, row 1: no column 'text1' (found: sentence, label); expected text and label"),
        ({'train.csv': 'text,label,lable\na,b,c\n'}, {}, "row 1: unknown column 'lable'"),
        ({'train.csv': 'text,text,label\na,b,c\n'}, {}, "row 1: the column 'text' is there twice"),
        ({'train.csv': 'text,Label,label\na,b,c\n'}, {}, "the column 'label' is there twice"),
        ({'train.jsonl': '{"text": "a", "Text": "b"}'}, {}, "the column 'text' is there twice"),
        ({'train.jsonl': '{"text": "a", "text": "b"}'}, {}, 'line 1: not JSON (a name is there'),
        ({'train.csv': TEXTS + '\ufeff' + TEXTS}, {}, 'train.csv, row 8: the header again'),
        ({'train.tsv': TEXTS.replace(',', '\t') * 2}, {}, 'train.tsv, row 8: the header again'),
        ({'train.jsonl': '{"text": "a", "label": NaN}'}, {}, 'train.jsonl, row 1: no label'),
        ({'train.jsonl': '{"text": "a", "label": ["b"]}'}, {}, 'the label is ["b"], expected'),
        ({'train.jsonl': '{"text": "a", "label": -Infinity}'}, {}, 'row 1: the label is -Infinity'),
        ({'train.csv': 'context,choice1,choice3,label\na,b,c,1\n'}, {}, "no column 'choice2'"),
        ({'train.csv': 'text,label\na,x\n ,y\n'}, {}, 'train.csv, row 3: text is empty'),
        ({'train.csv': 'text1,text2,label\na,b,x\na,,y\n'}, {}, 'row 3: text2 is empty'),
        ({'train.csv': 'context,choice1,choice2,label\na,b,,1\n'}, {}, 'row 2: choice2 is empty'),
        ({'train.csv': 'text,label\na,x\nb,\n'}, {}, 'train.csv, row 3: no label'),
        ({'train.csv': 'text\na\n'}, {}, 'train.csv, row 2: no label'),
        ({'train.csv': 'text,label\na,x\nb,x\n'}, {}, "every label is 'x', expected two classes"),
        ({'train.csv': TEXTS, 'valid.csv': 'text,label\na,pos\nb,so\n'}, {},
         "valid.csv, row 3: the label is 'so', expected a class of the training data: neg, pos"),
        ({'train.csv': TEXTS, 'test.csv': 'text,label\na,pos\nb,\n'}, {},
         "test.csv, row 3: the label is ''"),
        ({'train.csv': TEXTS, 'test.csv': 'text1,text2\na,b\n'}, {}, 'other columns than'),
        ({'train.csv': 'text,label\na,1\nb,1\nc,1\n'}, {'regression': True}, 'nothing to learn'),
        ({'train.csv': 'text,label\na,1\nb,inf\nc,1\n'}, {'regression': True}, 'row 3: the label'),
        ({'train.csv': TEXTS}, {'symmetric': True}, '--symmetric needs the columns'),
        ({'train.csv': 'context,choice1,choice2,label\na,b,c,1\n'}, {'regression': True},
         '--regression needs the columns'),
        ({'train.csv': 'text,label\na,x\nb,y\n'}, {}, 'every class has a single example'),
        ({'train.csv': 'text,label\na,x,z\n'}, {}, 'train.csv, row 2: 3 columns, expected 2'),
        ({'train.tsv': 'text\tlabel\na\tx\t\n'}, {}, 'train.tsv, row 2: 3 fields, expected 2'),
        ({'train.csv': 'text,label\na,x\n"b,y\n'}, {}, 'train.csv, row 3: a quotation mark'),
        ({'train.jsonl': '{"text": 5, "label": 1}'}, {}, 'row 1: text is missing or not a string'),
        ({'train.jsonl': '{"text": "a", "label": 1}\n{"text1": "a", "text2": "b"}'}, {},
         'train.jsonl, row 2: other columns'),
        ({'train.jsonl': '{"text": "a", "label": 1}\n{"txt": "a"}'}, {}, 'row 2: no column'),
        ({'train.jsonl': '{"text": "a", "label": 1}\nx'}, {}, 'train.jsonl, line 2: not JSON'),
    ],
)  # fmt: skip
def test_own_data_that_cannot_be_used(tmp_path, files, options, expected):
    assert expected in error_of(custom_task, put(tmp_path, files), **options)


@pytest.mark.parametrize(
    'labels, positive, chosen',
    [
        ('abb', None, 'a'), ('aab', None, 'b'), ('ab', None, 'b'), ('aab', 'a', 'a'),
        ('abc', None, None), ('abc', ' c ', 'c'), ('112', '2.0', '2'),
    ],
)  # fmt: skip
def test_the_class_of_f1(tmp_path, labels, positive, chosen):
    """The rarer one, or the one that was chosen; of more than two the mean."""
    rows = 'text,label\n' + ''.join(f'text {i},{label}\n' for i, label in enumerate(labels))
    task, _ = custom_task(put(tmp_path, {'train.csv': rows, 'valid.csv': rows}), positive=positive)
    assert task.metrics == ('accuracy', 'f1')
    assert (None if task.positive is None else task.labels[task.positive]) == chosen
    message = error_of(custom_task, str(tmp_path), positive='z')
    assert "--positive 'z'" in message and f'has the classes "{labels[0]}"' in message


def test_fields_with_line_breaks_are_noted(tmp_path):
    rows = 'text,label\n"two\nlines",x\nb,y\n'
    _, data = custom_task(put(tmp_path, {'train.csv': rows, 'valid.csv': rows}))
    assert data.train[0].texts == ('two\nlines',)
    assert any('1 rows hold line breaks within a quoted field, the first is row 2' in n
               for n in data.notes)  # fmt: skip


PARAGRAPHS = [
    ['Dear all,\nthe tea, the cake, the bread and the milk, all of it, was cold.\n"B"', 'bad'],
    ['12 Long Street,\nTown,\nCountry,\nall was well', 'good'],
    ['{\n "a": 1,\n "b": 2,\n "c": 3\n}', 'good'],
    ['"No," he said.\n"Yes, yes,"\nhe said,no,never', 'bad'],
]


@pytest.mark.parametrize('delimiter', ',;\t')
def test_a_field_may_hold_paragraphs(tmp_path, delimiter):
    content = as_csv(PARAGRAPHS, header=['text', 'label'], delimiter=delimiter)
    put(tmp_path, {'train.csv': content, 'valid.csv': content})
    assert [e.texts[0] for e in custom_task(str(tmp_path))[1].train] == [p for p, _ in PARAGRAPHS]
    races = [[json.loads(passage())['article'], 'a', 'b', '1'] for _ in range(3)]
    path = write(tmp_path / 'x.csv', races, header=['context', 'choice1', 'choice2', 'label'],
                 delimiter=delimiter)  # fmt: skip
    assert len(own_texts(path, 'choices')) == 3


@pytest.mark.parametrize(
    'train, texts',
    [
        ('label, text\nbad, "Long, dull."\ngood, ""\nx, Fine.\n', ['Long, dull.', '""', 'Fine.']),
        ('label, text\nbad, "A, ""b"".\n ""C"", d"\ngood, b\n', ['A, "b".\n "C", d', 'b']),
    ],
)
def test_blanks_before_a_quotation_mark(tmp_path, train, texts):
    path = put(tmp_path, {'x.csv': train}) + '/x.csv'
    assert [t.strip() for (t,) in own_texts(path, 'text')] == texts


@pytest.mark.parametrize('special', ['"\t\r\n', '"\t\r\n,'])
def test_tabs_as_pandas_and_spreadsheets_write_them(tmp_path, special):
    """A quotation mark is a character, unless the whole file has the marks of CSV."""
    rows = [('He said "no, no".', 'a'), ('Two\nlines.', 'b'), ('One, two.', 'c'), ('d', '')]
    content = '\n'.join(data_files._quoted_row(row, special) for row in [('text', 'label'), *rows])
    path = put(tmp_path, {'x.tsv': content}) + '/x.tsv'
    assert own_texts(path, 'text') == [(text,) for text, _ in rows]
    put(tmp_path, {'x.tsv': content.replace('Two\nlines', 'A "mark"')})
    assert own_texts(path, 'text')[0] == (content.splitlines()[1].split('\t')[0],)
    put(tmp_path, {'x.tsv': 'text\tlabel\n"one\ta\nb"\tc\n'})
    assert own_texts(path, 'text') == [('"one',), ('b"',)]


def classes(tmp_path, *labels, **more):
    """The task and the notes of texts with these labels, as JSON values."""
    lines = [json.dumps({'text': f'text {i}', 'label': x}) for i, x in enumerate(labels)]
    put(tmp_path, {'train.jsonl': lines, 'valid.jsonl': lines, **more})
    task, data = custom_task(str(tmp_path))
    return task, data, '\n'.join(data.notes)


@pytest.mark.parametrize(
    'labels, expected',
    [
        ('bad good bad', '2 classes: bad 2, good 1'),
        ('good Good b', "'Good', 'good' are 2 classes; they differ only in case"),
        ('good good\u200b b', "'good', 'good\\u200b' are 2 classes"),
        ('\u00e9 e\u0301 b', 'are 2 classes'),
        ('yes no None', "'None' is a class; leave"),
        ('1.5 2 2.5', 'the 3 classes are numbers; if they are amounts or grades, add --regression'),
    ],
)
def test_classes_are_counted_and_doubtful_ones_named(tmp_path, labels, expected):
    assert expected in classes(tmp_path, *labels.split())[2]
    assert 'warning' not in classes(tmp_path, 'bad', 'good', 'bad', 2)[2]


def test_minus_one_is_a_label_that_is_not_known(tmp_path):
    """As GLUE and SNLI from Hugging Face have it; but classes can be -1, 0 and 1."""
    rows = [*[0] * 8, *[1] * 8, -1, -1]
    test = ['{"text": "a", "label": -1}']
    task, data, notes = classes(tmp_path, *rows, **{'test.jsonl': test})
    assert task.labels == ('0', '1') and len(data.train) == len(data.valid['valid']) == 16
    assert 'train.jsonl: 2 rows with the label -1, not known, are left out' in notes
    assert labels(data.test['test']) == [None]
    put(tmp_path, {'test.jsonl': [*test, '{"text": "b", "label": 1}']})
    assert labels(custom_task(str(tmp_path))[1].test['test']) == [1]
    for some in ([-1, 0, 1] * 4, [-1, 1] * 4, [-1, 'a', 'b'] * 4):
        assert '-1' in classes(tmp_path, *some, **{'test.jsonl': test})[0].labels
    choice = '{"context": "a", "choice1": "b", "choice2": "c", "label": %d}'
    content = [choice % 1, choice % 2]
    put(tmp_path, {'train.jsonl': content, 'valid.jsonl': content, 'test.jsonl': [choice % -1]})
    assert labels(custom_task(str(tmp_path))[1].test['test']) == [None]


def test_a_long_tail_of_classes(tmp_path):
    rows = ['a', 'b'] * 10 + [f'single {i}' for i in range(60)]
    content = [['text', 'label'], *[[f'text {i}', x] for i, x in enumerate(rows)]]
    _, data = custom_task(put(tmp_path, {'train.tsv': content}))
    assert len(data.valid['valid']) == 18 and len(data.train) == 62
    content = [['text', 'label'], *[[str(i), str(i)] for i in range(10_001)]]
    message = error_of(custom_task, put(tmp_path, {'train.tsv': content}))
    assert '10,001 classes, expected at most 10,000; for numbers, add --regression' in message


text = st.text(st.characters(codec='utf-8'), min_size=1).filter(str.strip)
# Quotation marks at both ends may be those of CSV.
no_tabs = text.filter(lambda t: not set(t) & set('\t\n\r') and not (t[0] == t[-1] == '"'))


def own_texts(path, layout):
    found, rows = own_data._read_own(path)
    assert found == layout
    return [row.texts for row in rows]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(text, text), min_size=1), st.sampled_from(',;\t'))
@example([('a"b', '""'), ('\x00', '"\r\n'), ('a\rb', 'x,y;z\tz'), ('\ufeff', 'a\u2028b')], ',')
def test_any_texts_survive_csv(tmp_path, pairs, delimiter):
    path = write(tmp_path / 'x.csv', pairs, header=['text1', 'text2'], delimiter=delimiter)
    if any('\n' in t and t.count(delimiter) >= 3 for pair in pairs for t in pair):
        with contextlib.suppress(InputError):  # it may look like several rows: refused
            assert own_texts(path, 'pair') == pairs
    else:
        assert own_texts(path, 'pair') == pairs


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(no_tabs, no_tabs), min_size=1))
@example([('a"b', '"'), ('\x00', 'a\x85'), ('\ufeff', 'a\u2028b')])
def test_any_texts_survive_tsv(tmp_path, pairs):
    path = put(tmp_path, {'x.tsv': [['text1', 'text2'], *pairs]}) + '/x.tsv'
    assert own_texts(path, 'pair') == pairs
    path = put(tmp_path, {'y': [['index', 'sentence1', 'sentence2'], *numbered(pairs)]}) + '/y'
    assert [e.texts for e in read_examples(path, TASKS['rte'])] == pairs


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(text, min_size=1), st.booleans())
def test_any_texts_survive_json_lines(tmp_path, texts, ascii_only):
    lines = [json.dumps({'text': t}, ensure_ascii=ascii_only) for t in texts]
    path = put(tmp_path, {'x.jsonl': lines}) + '/x.jsonl'
    assert own_texts(path, 'text') == [(t,) for t in texts]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec='utf-8')), min_size=1), st.booleans(), st.booleans())
@example(['"', '\\', '\\"', '"sentence1": "x"', '\n', '}'], True, False)
def test_any_texts_survive_snli(tmp_path, texts, ascii_only, dense):
    records = [json.loads(snli_json(['neutral'], sentence1=t, pairID=t)[0]) for t in texts]
    separators = (',', ':') if dense else None
    lines = [json.dumps(r, ensure_ascii=ascii_only, separators=separators) for r in records]
    put(tmp_path, {'x': lines})
    found = read_examples(str(tmp_path / 'x'), TASKS['snli'])
    assert [e.texts[0] for e in found] == texts and labels(found) == [1] * len(texts)
    assert [e.id for e in found] == [t or str(i) for i, t in enumerate(texts)]


# ------------------------------------------------------------------------------- damaged files

SEEDS = {
    'rocstories': as_csv(stories(4)),
    'race': passage().encode(),
    'snli': '\n'.join(snli_json(WORDS)).encode(),
    'mnli': '\n'.join(map('\t'.join, nli_tsv(WORDS))).encode(),
    'scitail': b'a\tb\tentails\nc\td\tneutral\n',
    **{
        name: '\n'.join('\t'.join(row) for row in glue_files(name)[0]['train.tsv']).encode()
        for name in GLUE
    },
}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_examples_or_one_line(tmp_path, data):
    name = data.draw(st.sampled_from([*SEEDS, 'custom']))
    seed = SEEDS.get(name, TEXTS.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        end = data.draw(st.integers(at, min(len(seed), at + 8)))
        seed = seed[:at] + data.draw(st.binary(max_size=4)) + seed[end:]
    ending = data.draw(st.sampled_from(['.csv', '.tsv', '.jsonl']))
    path = str(tmp_path / f'train{ending}')
    with open(path, 'wb') as f:
        f.write(seed)
    try:
        if name == 'custom':
            for stale in {'.csv', '.tsv', '.jsonl'} - {ending}:
                (tmp_path / f'train{stale}').unlink(missing_ok=True)
            task, read = custom_task(str(tmp_path))
            examples = read.train
        else:
            task = TASKS[name]
            examples = read_examples(path, task)
    except InputError:
        return
    for one in examples:
        assert all(t.encode() is not None for t in one.texts)
        assert one.label is None or 0 <= one.label <= 5


# --------------------------------------------------------------------------------- prediction


@pytest.mark.parametrize('name', GLUE)
def test_files_to_predict_in_the_tasks_own_format(tmp_path, name):
    files, expected = glue_files(name)
    put(tmp_path, files)
    assert labels(read_examples(str(tmp_path / 'test.tsv'), TASKS[name])) == [None] * 3
    assert labels(read_examples(str(tmp_path / 'train.tsv'), TASKS[name])) == expected


def test_to_predict_no_broken_row_is_left_out(tmp_path):
    files, _ = glue_files('qqp')
    files['train.tsv'].append(['9', 'half a question'])
    put(tmp_path, files)
    assert 'line 5: 2 fields' in error_of(read_examples, str(tmp_path / 'train.tsv'), TASKS['qqp'])


def test_race_to_predict(tmp_path):
    record = json.loads(passage())
    del record['answers']
    put(tmp_path, {'p/2.txt': json.dumps(record), 'p/10.txt': passage('high99.txt')})
    assert labels(read_examples(str(tmp_path / 'p/2.txt'), TASKS['race'])) == [None, None]
    found = read_examples(str(tmp_path / 'p'), TASKS['race'])
    assert labels(found) == [None, None, 0, 3] and found[2].id == 'high99-0'
    (tmp_path / 'none').mkdir()
    put(tmp_path, {'empty.txt': json.dumps({**record, 'questions': [], 'options': []})})
    for name in ('none', 'empty.txt'):
        assert 'no passages' in error_of(read_examples, str(tmp_path / name), TASKS['race'])


def test_own_data_to_predict(tmp_path):
    task, _ = custom_task(put(tmp_path, {'train.csv': TEXTS}))
    path = str(tmp_path / 'new.csv')
    put(tmp_path, {'new.csv': 'date,text\nMonday,Good.\n,Bad.\n'})
    assert read_examples(path, task) == [
        Example('0', ('Good.',), None),
        Example('1', ('Bad.',), None),
    ]
    put(tmp_path, {'new.csv': 'text,label\nGood.,so\n'})
    assert "row 2: the label is 'so'" in error_of(read_examples, path, task)
    put(tmp_path, {'new.csv': 'text1,text2\na,b\n', 'new.txt': 'x'})
    message = error_of(read_examples, path, task)
    assert "no column 'text' (found: text1, text2); expected text, as in training" in message
    assert 'expected a file that ends with .csv' in error_of(
        read_examples, str(tmp_path / 'new.txt'), task
    )


def own_tasks(tmp_path):
    choices = 'context,choice1,choice2,label\na,b,c,1\na,b,c,2\n'
    regression = 'text,label\na,1\nb,2\nc,4\n'
    for i, (rows, options) in enumerate(
        [(TEXTS, {}), (choices, {}), (regression, {'regression': True})]
    ):
        yield custom_task(put(tmp_path / str(i), {'train.csv': rows}), **options)[0]


def test_tasks_survive_json(tmp_path):
    for task in [*TASKS.values(), *own_tasks(tmp_path)]:
        again = kept_task(json.loads(json.dumps(task.to_dict())))
        assert again == task
        assert again.archive is task.archive and again.published == task.published
    record = TASKS['mrpc'].to_dict()
    del record['positive']  # as earlier versions wrote it
    assert kept_task(record) == TASKS['mrpc']


@pytest.mark.parametrize(
    'change',
    [
        {'name': 'other'}, {'name': ['snli']}, {'title': ''}, {'layout': 'circle'}, {'layout': []},
        {'labels': ['one']}, {'labels': ['a', 'a']}, {'labels': 'ab'}, {'labels': [1, 2]},
        {'labels': None}, {'metrics': []}, {'metrics': ['loss']}, {'metrics': 'f1'},
        {'submission': {'test': '../x.tsv'}}, {'submission': []}, {'first_label': 3},
        {'n_context': 3}, {'n_context': True}, {'pooled': 1}, {'soft_labels': True},
        {'regression': None}, {'submission': {}}, {'title': 5},
        {'mean': float('nan')}, {'std': 0}, {'std': '1'}, {'more': 1},
        {'positive': 3}, {'positive': True}, {'positive': -1},
    ],
)  # fmt: skip
def test_damaged_tasks(change):
    record = TASKS['snli'].to_dict()
    message = error_of(kept_task, {**record, **change}, 'save/x/settings.json')
    assert message.startswith('save/x/settings.json: damaged task')
    del record['layout']
    for damaged in (record, None, [], 'snli'):
        assert 'damaged task' in error_of(kept_task, damaged)


# ---------------------------------------------------------- targets, metrics, submission files


def test_soft_targets_are_the_originals():
    assert soft_targets([3.6, 5.0, 0.0, 2.0, 4.25]) == pytest.approx(
        np.array(
            [
                [0, 0, 0, 0.4, 0.6, 0],
                [0, 0, 0, 0, 0, 1],
                [1, 0, 0, 0, 0, 0],
                [0, 0, 1, 0, 0, 0],
                [0, 0, 0, 0, 0.75, 0.25],
            ]
        )
    )
    assert np.isnan(soft_targets([np.nan, 1.0])).tolist() == [[True] * 6, [False] * 6]


@given(st.lists(st.floats(0, 5)))
def test_the_expected_class_of_soft_targets_is_the_score(scores):
    targets = soft_targets(scores)
    assert targets.sum(1) == pytest.approx(np.ones(len(scores)))
    with np.errstate(divide='ignore'):
        logits = np.log(targets).reshape(-1, 6)
    if scores:
        assert decode(TASKS['stsb'], logits) == pytest.approx(np.array(scores), abs=1e-9)


def test_decode_takes_the_best_class_or_choice():
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 2.0, -np.inf]])
    assert decode(TASKS['snli'], logits).tolist() == [1, 0]
    assert decode(TASKS['race'], logits).tolist() == [1, 0]


def test_metrics_are_those_of_the_paper():
    y, p = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    assert METRICS['accuracy'](y, p) == pytest.approx(100 * accuracy_score(y, p))
    assert METRICS['f1'](y, p) == pytest.approx(200 / 3)
    assert METRICS['matthews'](y, p) == pytest.approx(100 / 6)
    # MRPC's test set: all ones give 79.9 (1,147 of 1,725 are paraphrases)
    mrpc = np.arange(1725) < 1147
    assert METRICS['f1'](mrpc, np.ones(1725)) == pytest.approx(79.9, abs=0.05)
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 10.0])
    assert METRICS['f1'](y, p, positive=None) == pytest.approx(
        100 * f1_score(y, p, average='macro')
    )
    assert METRICS['pearson'](a, b) == pytest.approx(100 * np.corrcoef(a, b)[0, 1])
    assert METRICS['spearman'](a, b) == pytest.approx(100)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', ['f1', 'matthews', 'pearson', 'spearman'])
def test_metrics_of_constant_predictions_are_zero(name):
    y = np.array([0, 1, 1, 0])
    assert METRICS[name](y, np.zeros(4, int)) == 0
    assert METRICS[name](np.zeros(4, int), y) == 0
    assert METRICS[name](np.array([0]), np.array([0])) == 0
    if name in ('pearson', 'spearman'):
        assert METRICS[name](y, np.array([0.1, np.nan, 1, 2])) == 0
        assert METRICS[name](y, np.array([0.1, np.inf, 1, 2])) == 0


@pytest.mark.parametrize(
    'name, predictions, expected',
    [
        ('snli', [0, 2, 1], ['entailment', 'contradiction', 'neutral']),
        ('rte', [0, 1], ['entailment', 'not_entailment']),
        ('qnli', [1], ['not_entailment']),
        ('scitail', [0, 1], ['entails', 'neutral']),
        ('cola', np.array([0, 1]), ['0', '1']),
        ('wnli', [1], ['1']),
        ('rocstories', [0, 1], ['0', '1']),
        ('race', [0, 3], ['A', 'D']),
        ('stsb', np.array([3.6934, -0.2, 5.7, 5]), ['3.693', '0.000', '5.000', '5.000']),
    ],
)
def test_submissions_have_the_format_of_glue(name, predictions, expected):
    f = io.StringIO()
    write_submission(f, TASKS[name], predictions)
    rows = ''.join(f'{i}\t{text}\n' for i, text in enumerate(expected))
    assert f.getvalue() == 'index\tprediction\n' + rows


def test_submissions_of_your_own_data(tmp_path):
    expected = [['neg', 'pos'], ['1', '2'], ['0', '1']]
    for task, words in zip(own_tasks(tmp_path), expected):
        f = io.StringIO()
        write_submission(f, task, [0, 1])
        assert f.getvalue() == f'index\tprediction\n0\t{words[0]}\n1\t{words[1]}\n'


def test_the_submission_files_of_glue_are_complete():
    names = {name for task in TASKS.values() for name in task.submission.values()}
    assert names >= {
        f'{name}.tsv'
        for name in 'CoLA SST-2 MRPC STS-B QQP MNLI-m MNLI-mm QNLI RTE WNLI AX'.split()
    }


def test_published_figures_hold_together():
    """The paper's GLUE score is the plain mean of nine tasks, two metrics averaged first."""
    figures = {
        (task.name, p.split, p.metric): p.value
        for task in TASKS.values()
        for p in task.published
        if p.who.startswith(('paper, QNLI', "GLUE's")) or p.who == 'paper'
    }
    scores = [
        (figures[name, 'test', a] + figures[name, 'test', b]) / 2
        for name, a, b in [
            ('mrpc', 'f1', 'accuracy'),
            ('stsb', 'pearson', 'spearman'),
            ('qqp', 'f1', 'accuracy'),
        ]
    ]
    scores += [figures['cola', 'test', 'matthews']]
    scores += [figures[name, 'test', 'accuracy'] for name in ('sst2', 'qnli', 'rte', 'wnli')]
    matched = ('matched', 'mismatched')
    scores += [sum(figures['mnli', split, 'accuracy'] for split in matched) / 2]
    assert round(sum(scores) / len(scores), 1) == 72.8
    for task in TASKS.values():
        for p in task.published:
            assert p.metric in METRICS and p.on in ('test', 'valid')
            assert p.split in ('test', 'all', 'matched', 'mismatched', 'middle', 'high',
                               'diagnostic')  # fmt: skip


def test_the_table_is_whole():
    assert list(TASKS) == (
        'rocstories snli mnli qnli scitail rte race qqp mrpc stsb cola sst2 wnli'.split()
    )
    outputs = {name: task.n_out for name, task in TASKS.items()}
    assert [outputs[name] for name in ('rocstories', 'race', 'stsb', 'snli', 'cola')] == [
        1, 1, 6, 3, 2,
    ]  # fmt: skip
    first = {name: task.metrics[0] for name, task in TASKS.items()}
    assert {first.pop(name) for name in ('qqp', 'mrpc')} == {'f1'}
    assert first.pop('cola') == 'matthews' and first.pop('stsb') == 'pearson'
    assert set(first.values()) == {'accuracy'}


def test_importing_loads_no_large_library():
    code = "import sys, datasets; print({'pandas', 'sklearn', 'scipy', 'torch'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == 'set()'
