"""Small files of data sets, in the exact layout of the official ones, and short words for tests."""

import csv
import io
import json

import pytest

from datasets import TASKS, read_task
from gpt1.tasks.rocstories import COLUMNS
from utils import InputError


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
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(folder)


def read(name, *args, **kwargs):
    return read_task(TASKS[name], *args, **kwargs)


def labels(examples):
    return [e.label for e in examples]


OWN_TEXTS = 'text,label\nGood.,pos\nBad.,neg\nNice.,pos\nAwful.,neg\nFine.,pos\nPoor.,neg\n'

CHOSEN = [  # a quotation mark is a character: with CSV quoting these rows would be one
    ('He said "no.', 'It "rained".'),
    ('"Tea', 'A cup of tea "'),
    ("Tim's  dog \u2028 ran.", 'A dog\u00a0ran.'),
]
GLUE = ('rte', 'wnli', 'qnli', 'qqp', 'mrpc', 'stsb', 'cola', 'sst2')


def numbered(pairs, *more):
    return [[str(i), *pair, *more] for i, pair in enumerate(pairs)]


GLUE_COLUMNS = {  # of the training file
    'qnli': 'index question sentence label',
    'qqp': 'id qid1 qid2 question1 question2 is_duplicate',
    'mrpc': 'Quality,#1 ID,#2 ID,#1 String,#2 String',
    'stsb': 'index genre filename year old_index source1 source2 sentence1 sentence2 score',
    'cola': 'source label mark sentence',
    'sst2': 'sentence label',
}
TEST_COLUMNS = {'qqp': 'id question1 question2', 'mrpc': 'index,#1 ID,#2 ID,#1 String,#2 String'}


def glue_files(name, folder):
    """Write a GLUE task: its three files as rows of fields, and the labels of the training file."""
    expected = [5.0, 3.6, 0.0] if name == 'stsb' else [0, 1, 0]
    words = [f'{x:.3f}' if name == 'stsb' else TASKS[name].word(x) for x in expected]
    archive = TASKS[name].archive
    train = GLUE_COLUMNS.get(name, 'index sentence1 sentence2 label')
    test = TEST_COLUMNS.get(name) or ' '.join(['index', *archive.texts])
    files = {}
    for split, columns, n in (('train', train, 3), ('dev', train, 2), ('test', test, 3)):
        names = columns.split(',' if ',' in columns else ' ')
        rows = []
        for i, (pair, word) in enumerate(zip(CHOSEN[:n], words)):
            values = dict(zip(archive.texts, pair), **{archive.label: word})
            rows.append([values.get(column, f'{i}') for column in names])
        is_bare = name == 'cola' and split != 'test'
        files[f'{split}.tsv'] = rows if is_bare else [names, *rows]
    put(folder, files)
    return files, expected


WORDS = ['entailment', 'neutral', 'contradiction', '-']
TREE = '( ( A cat ) sat )'


def snli_json(words, **more):
    lines = []
    for i, word in enumerate(words):
        texts = {'sentence1': f'A "cat {i}.', 'sentence2': f'Ça {i}.', 'sentence1_parse': TREE}
        about = {'gold_label': word, 'pairID': f'{i}.jpg#0r1', 'annotator_labels': []}
        lines.append(json.dumps({**about, **texts, **more}))
    return lines


def snli_txt(words):
    header = 'gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse '
    header += 'sentence2_parse sentence1 sentence2 captionID pairID label1 label2 label3'
    rows = [
        [w, TREE, TREE, TREE, TREE, f'A "cat {i}.', f'Ça {i}.', f'{i}.jpg#0', f'{i}.jpg#0r1', w]
        for i, w in enumerate(words)
    ]
    rows[0] += ['', '']  # annotated once, with or without the other fields
    return [header.split(), *rows]


def nli_tsv(words, third='captionID', n_labels=1, header_labels=1):
    """GLUE's layout of SNLI and MNLI; rows may have more labels than the header says."""
    texts = 'sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse'
    header = f'index {third} pairID {texts} sentence1 sentence2'.split()
    header += [f'label{k + 1}' for k in range(header_labels)] + ['gold_label']
    rows = []
    for i, word in enumerate(words):
        row = [str(i), f'{i}.jpg', f'{i}.jpg#0r1', *[TREE] * 4, f'A "cat {i}.', f'Ça {i}.']
        rows.append([*row, *['neutral'] * (n_labels if i % 2 else header_labels), word])
    return [header, *rows]


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


def stories(n, label='1'):
    return [
        [f'id{i}', *(f'Sentence {j} of {i}.' for j in range(4)), f'First "ending", {i}.',
         f'Second\nending {i}.', label]
        for i in range(n)
    ]  # fmt: skip


def as_csv(rows, header=COLUMNS, delimiter=',', encoding='utf-8', before=''):
    f = io.StringIO()
    csv.writer(f, delimiter=delimiter).writerows([header, *rows])
    return (before + f.getvalue()).encode(encoding)


def write(path, rows, **options):
    path.write_bytes(as_csv(rows, **options))
    return str(path)
