"""Your own data: `--dataset custom`."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_files import OWN_TEXTS as TEXTS
from small_files import (
    as_csv,
    error_of,
    labels,
    numbered,
    passage,
    put,
    snli_json,
    write,
)

from datasets import TASKS, read_data, read_examples
from gpt1.report.predictions import name_of
from gpt1.tasks.own_data import read_own
from gpt1.tasks.task import Example, decode
from utils import InputError


def own(folder, **options):
    return read_data('custom', folder, **options)


def own_texts(path, layout):
    found, rows = read_own(path)
    assert found == layout
    return [row.texts for row in rows]


def test_the_split_is_stratified_and_the_same_for_the_same_seed(tmp_path):
    task, data = own(put(tmp_path, {'train.csv': TEXTS}))
    assert task.layout == 'text' and task.labels == ('neg', 'pos') and len(data.train) == 4
    assert sorted(labels(data.valid['valid'])) == [0, 1] and data.test == {}
    assert any('no valid file: 2 examples are set aside' in note for note in data.notes)
    rows = ''.join(f'text {i},{"ab"[i % 4 == 0]}\n' for i in range(400)) + 'one,c\n'
    task, data = own(put(tmp_path, {'train.csv': 'text,label\n' + rows}), n_valid=40)
    assert sorted(labels(data.valid['valid'])) == [0] * 30 + [1] * 10
    assert labels(data.train).count(2) == 1 and len(data.train) == 361
    assert own(str(tmp_path), n_valid=40)[1].valid == data.valid
    assert own(str(tmp_path), n_valid=40, seed=1)[1].valid != data.valid
    for n_valid in (1, 400):
        assert 'cannot set' in error_of(own, str(tmp_path), n_valid=n_valid)


def test_pairs_in_each_format(tmp_path):
    columns = ['Text1', 'text2', 'label', 'id']
    rows = [['He said "hi', 'Ça va?', 'yes', 'n0'], ['b', 'c', 'no', 'n1'], ['d', 'e', 'no', 'n2']]
    lines = [json.dumps(dict(zip(columns, row))) for row in rows]
    content = as_csv(rows, header=columns)
    put(tmp_path, {'train.jsonl': lines, 'valid.tsv': [columns, *rows], 'test.csv': content})
    task, data = own(str(tmp_path), symmetric=True)
    assert task.layout == 'similarity' and task.labels == ('no', 'yes')
    expected = [Example(name, (a, b), int(c == 'yes')) for a, b, c, name in rows]
    assert data.train == data.valid['valid'] == data.test['test'] == expected
    assert read_examples(str(tmp_path / 'test.csv'), task) == expected
    assert own(str(tmp_path))[0].layout == 'pair'


def test_choices_whose_number_varies(tmp_path):
    rows = 'context,choice1,choice2,choice3,label\nA?,b,c,,2\nD?,e,f,g,3.0\nH?,i,j,,1\n'
    task, data = own(put(tmp_path, {'train.csv': rows, 'valid.csv': rows}))
    assert task.layout == 'choices' and task.labels is None and task.n_out == 1
    assert [len(e.texts) for e in data.train] == [3, 4, 3] and labels(data.train) == [1, 2, 0]
    assert [name_of(task, label) for label in labels(data.train)] == ['2', '3', '1']
    for label in ('0', '3', 'x', ''):
        put(tmp_path, {'valid.csv': rows.replace('c,,2', f'c,,{label}')})
        message = error_of(own, str(tmp_path))
        assert f'valid.csv, row 2: the label is {label!r}' in message and 'one of 1, 2' in message
    lines = ['{"context": "a", "choice1": "b", "choice2": "c", "label": 1}']
    lines += ['{"context": "a", "choice1": "b", "choice2": "c", "choice3": "d", "label": 3}']
    put(tmp_path, {'valid.csv': rows, 'test.jsonl': lines})
    assert labels(own(str(tmp_path))[1].test['test']) == [0, 2]


def test_ids_are_the_rows_of_the_file(tmp_path):
    """As an editor or a spreadsheet counts them; with several files, each with its name."""
    blank = 'text,label\na,x\n,\nb,y\nc,x\nd,y\n'
    _, data = own(put(tmp_path, {'train.csv': blank}))
    assert sorted(e.id for e in data.train + data.valid['valid']) == ['2', '4', '5', '6']
    put(tmp_path, {'test.jsonl': ['', '{"text": "a"}', '{"text": "b", "id": 7}']})
    _, data = own(str(tmp_path))
    assert {e.id for e in data.train} <= {f'train.csv:{row}' for row in (2, 4, 5, 6)}
    assert [e.id for e in data.test['test']] == ['test.jsonl:2', '7']


def test_a_part_of_the_training_set(tmp_path):
    """Each class in proportion, and a larger part has all of a smaller one."""
    rows = ''.join(f'text {i},{"abbb"[i % 4]}\n' for i in range(80))
    put(tmp_path, dict.fromkeys(('train.csv', 'valid.csv'), 'text,label\n' + rows))
    whole = own(str(tmp_path))[1].train
    parts = {n: own(str(tmp_path), n_train=n)[1].train for n in (8, 40, 80)}
    assert labels(parts[8]).count(0) == 2 and labels(parts[40]).count(0) == 10
    assert set(parts[8]) < set(parts[40]) < set(whole) and parts[80] == whole
    assert parts[40] == sorted(parts[40], key=whole.index)
    data = own(str(tmp_path), n_train=8, seed=1)[1]
    assert data.train != parts[8] and len(data.valid['valid']) == 80
    assert '8 of 80 training examples are used (--n_train)' in data.notes


def test_a_regression(tmp_path):
    rows = 'text,label\n' + ''.join(f'text {i},{i / 4}\n' for i in range(40))
    task, data = own(put(tmp_path, {'train.csv': rows}), regression=True)
    assert task.regression and task.labels is None and task.n_out == 1 and len(data.train) == 36
    assert task.metrics == ('pearson', 'spearman')
    train = np.array(labels(data.train))
    assert task.mean == pytest.approx(train.mean()) and task.std == pytest.approx(train.std())
    assert len(own(str(tmp_path), regression=True, n_train=7)[1].train) == 7
    standardized = (train - task.mean) / task.std
    assert decode(task, standardized[:, None]) == pytest.approx(train)
    put(tmp_path, {'train.csv': rows.replace('3.25', 'many')})
    message = error_of(own, str(tmp_path), regression=True)
    assert "train.csv, row 15: the label is 'many', expected a number" in message


def test_class_names_are_sorted_and_numbers_are_numbers(tmp_path):
    rows = 'text,label\n' + ''.join(f'{x},{x}\n' for x in ('10.0', '9.0', '10.0', '9', '-1'))
    lines = [json.dumps({'text': 'a', 'label': x}) for x in (10.0, 9, '-1', -1)]
    task, data = own(put(tmp_path, {'train.csv': rows, 'valid.jsonl': lines}))
    assert task.labels == ('-1', '9', '10') and labels(data.train) == [2, 1, 2, 1, 0]
    assert labels(data.valid['valid']) == [2, 1, 0, 0]


@pytest.mark.parametrize(
    'files, options, expected',
    [
        ({'a.csv': TEXTS}, {}, 'has no train.csv, train.tsv or train.jsonl'),
        ({'train.csv': TEXTS, 'train.TSV': TEXTS}, {}, 'has "train.TSV", "train.csv": keep one'),
        ({'train.csv': TEXTS, 'dev.csv': TEXTS}, {}, 'dev.csv: rename it to valid'),
        ({'train.csv': 'text,label\n'}, {}, 'train.csv has no rows below the header'),
        ({'train.csv': 'sentence,label\na,b\n'}, {},
         "train.csv, row 1: no column 'text1' (found: sentence, label); expected text and label"),
        ({'train.csv': 'text,label,lable\na,b,c\n'}, {}, "row 1: unknown column 'lable'"),
        ({'train.csv': 'text,Label,label\na,b,c\n'}, {}, "the column 'label' is there twice"),
        ({'train.jsonl': '{"text": "a", "text": "b"}'}, {}, 'line 1: not JSON (a name is there'),
        ({'train.jsonl': '{"text": "a", "label": NaN}'}, {}, 'train.jsonl, row 1: no label'),
        ({'train.jsonl': '{"text": "a", "label": ["b"]}'}, {}, 'the label is ["b"], expected'),
        ({'train.csv': 'context,choice1,choice3,label\na,b,c,1\n'}, {}, "no column 'choice2'"),
        ({'train.csv': 'text,label\na,x\n ,y\n'}, {}, 'train.csv, row 3: text is empty'),
        ({'train.csv': 'text,label\na,x\nb,\n'}, {}, 'train.csv, row 3: no label'),
        ({'train.csv': 'text,label\na,x\nb,NaN\n'}, {}, 'train.csv, row 3: no label'),
        ({'train.csv': 'text,label\na,x\nb,x\n'}, {}, "every label is 'x', expected two classes"),
        ({'train.csv': TEXTS, 'valid.csv': 'text,label\na,pos\nb,so\n'}, {},
         "valid.csv, row 3: the label is 'so', expected one of neg, pos"),
        ({'train.csv': TEXTS, 'test.csv': 'text,label\na,pos\nb,\n'}, {},
         "test.csv, row 3: the label is ''"),
        ({'train.csv': TEXTS, 'test.csv': 'text1,text2\na,b\n'}, {}, 'other columns than'),
        ({'train.csv': 'text,label\na,1\nb,1\nc,1\n'}, {'regression': True}, 'nothing to learn'),
        ({'train.tsv': [['text', 'label'], *([str(i), str(i)] for i in range(10_001))]}, {},
         '10,001 classes, expected at most 10,000; for numbers, add --regression'),
        ({'train.csv': TEXTS}, {'symmetric': True}, '--symmetric needs the columns'),
        ({'train.csv': 'context,choice1,choice2,label\na,b,c,1\n'}, {'regression': True},
         '--regression needs the columns'),
        ({'train.csv': 'text,label\na,x\nb,y\n'}, {}, 'cannot set 1 aside for validation'),
        ({'train.csv': TEXTS}, {'metric': 'pearson'},
         'train.csv are classes; expected one of accuracy, f1, matthews'),
        ({'train.csv': TEXTS}, {'n_train': 5}, '--n_train 5: there are only 4 training examples'),
    ],
)  # fmt: skip
def test_own_data_that_cannot_be_used(tmp_path, files, options, expected):
    assert expected in error_of(own, put(tmp_path, files), **options)


@pytest.mark.parametrize(
    'labels, options, metrics, chosen',
    [
        ('abb', {}, ('accuracy', 'f1'), 'a'),
        ('aab', {}, ('accuracy', 'f1'), 'b'),
        ('ab', {}, ('accuracy', 'f1'), 'b'),
        ('aab', {'positive': 'a'}, ('accuracy', 'f1'), 'a'),
        ('abc', {'metric': 'matthews'}, ('matthews', 'accuracy', 'f1'), None),
        ('abc', {'metric': 'f1', 'positive': ' c '}, ('f1', 'accuracy'), 'c'),
        ('112', {'positive': '2.0'}, ('accuracy', 'f1'), '2'),
        ('124', {'regression': True, 'metric': 'spearman'}, ('spearman', 'pearson'), None),
    ],
)
def test_the_metric_that_selects_and_the_class_of_f1(tmp_path, labels, options, metrics, chosen):
    """The rarer one, or the one that was chosen; of more than two the mean."""
    rows = 'text,label\n' + ''.join(f'text {i},{label}\n' for i, label in enumerate(labels))
    task, _ = own(put(tmp_path, {'train.csv': rows, 'valid.csv': rows}), **options)
    assert task.metrics == metrics
    if task.labels:
        assert (None if task.positive is None else task.labels[task.positive]) == chosen
        message = error_of(own, str(tmp_path), positive='z')
        assert "--positive 'z'" in message and f'has the classes "{labels[0]}"' in message


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
    data = own(str(tmp_path))[1]
    assert [e.texts[0] for e in data.train] == [p for p, _ in PARAGRAPHS]
    noted = '4 rows hold line breaks within a quoted field, the first is row 2'
    assert any(noted in note for note in data.notes)
    races = [[json.loads(passage())['article'], 'a', 'b', '1'] for _ in range(3)]
    path = write(tmp_path / 'x.csv', races, header=['context', 'choice1', 'choice2', 'label'],
                 delimiter=delimiter)  # fmt: skip
    assert len(own_texts(path, 'choices')) == 3


def test_blanks_before_a_quotation_mark(tmp_path):
    rows = ['label, text', 'a, "Long, dull."', 'b, ""', 'c, Fine.', 'd, "A, ""b"".', '""C"", d"']
    texts = own_texts(put(tmp_path, {'x.csv': rows}) + '/x.csv', 'text')
    assert [t.strip() for (t,) in texts] == ['Long, dull.', '""', 'Fine.', 'A, "b".\n"C", d']


@pytest.mark.parametrize('comma', ['One, two.', '"One, two."'])  # of pandas, of Excel
def test_tabs_as_pandas_and_spreadsheets_write_them(tmp_path, comma):
    """A quotation mark is a character, unless the whole file has the marks of CSV."""
    rows = ['text\tlabel', '"He said ""no, no""."\ta', '"Two\nlines."\tb', f'{comma}\tc', 'd\t']
    texts = [('He said "no, no".',), ('Two\nlines.',), ('One, two.',), ('d',)]
    path = put(tmp_path, {'x.tsv': rows}) + '/x.tsv'
    assert own_texts(path, 'text') == texts
    rows[2] = '"A "mark"."\tb'
    put(tmp_path, {'x.tsv': rows})
    assert own_texts(path, 'text')[0] == ('"He said ""no, no""."',)
    put(tmp_path, {'x.tsv': 'text\tlabel\n"one\ta\nb"\tc\n'})
    assert own_texts(path, 'text') == [('"one',), ('b"',)]
    put(tmp_path, {'x.tsv': 'text\n"a ""b"""\n""\n"c\nd"\n'})
    assert own_texts(path, 'text') == [('a "b"',), ('c\nd',)]


def classes(tmp_path, *labels, **more):
    """The task and the notes of texts with these labels, as JSON values."""
    lines = [json.dumps({'text': f'text {i}', 'label': x}) for i, x in enumerate(labels)]
    put(tmp_path, {'train.jsonl': lines, 'valid.jsonl': lines, **more})
    task, data = own(str(tmp_path))
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
    notes = classes(tmp_path, *labels.split())[2]
    assert expected in notes and ('warning' in notes) == ('bad' not in labels)


def test_minus_one_is_a_label_that_is_not_known(tmp_path):
    """As GLUE and SNLI from Hugging Face have it; but classes can be -1, 0 and 1."""
    rows = [*[0] * 8, *[1] * 8, -1, -1]
    test = ['{"text": "a", "label": -1}']
    task, data, notes = classes(tmp_path, *rows, **{'test.jsonl': test})
    assert task.labels == ('0', '1') and len(data.train) == len(data.valid['valid']) == 16
    assert 'train.jsonl: 2 rows with the label -1, not known, are left out' in notes
    assert labels(data.test['test']) == [None]
    put(tmp_path, {'test.jsonl': [*test, '{"text": "b", "label": 1}']})
    assert labels(own(str(tmp_path))[1].test['test']) == [1]
    for some in ([-1, 0, 1] * 4, [-1, 1] * 4, [-1, 'a', 'b'] * 4):
        assert '-1' in classes(tmp_path, *some, **{'test.jsonl': test})[0].labels
    choice = '{"context": "a", "choice1": "b", "choice2": "c", "label": %d}'
    content = [choice % 1, choice % 2]
    put(tmp_path, {'train.jsonl': content, 'valid.jsonl': content, 'test.jsonl': [choice % -1]})
    assert labels(own(str(tmp_path))[1].test['test']) == [None]


text = st.text(st.characters(codec='utf-8'), min_size=1).filter(str.strip)
# Quotation marks at both ends may be those of CSV.
no_tabs = text.filter(lambda t: not set(t) & set('\t\n\r') and not (t[0] == t[-1] == '"'))


def snli(pairs):
    return [snli_json(['neutral'], sentence1=a, sentence2=b)[0] for a, b in pairs]


FORMATS = {  # name -> the ending, and the content of a file of pairs; official ones with their task
    'csv': ('csv', lambda pairs: as_csv(pairs, ['text1', 'text2'])),
    'csv;': ('csv', lambda pairs: as_csv(pairs, ['text1', 'text2'], ';')),
    'csv tab': ('csv', lambda pairs: as_csv(pairs, ['text1', 'text2'], '\t')),
    'tsv': ('tsv', lambda pairs: [['text1', 'text2'], *pairs]),
    'jsonl': ('jsonl', lambda pairs: [json.dumps({'text1': a, 'text2': b}) for a, b in pairs]),
    'rte': ('tsv', lambda pairs: [['index', 'sentence1', 'sentence2'], *numbered(pairs)]),
    'snli': ('jsonl', snli),
}


@pytest.mark.parametrize('name', FORMATS)
def test_any_texts_survive(tmp_path, name):
    ending, content = FORMATS[name]

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(*[no_tabs if ending == 'tsv' else text] * 2), min_size=1))
    @example([('a"b', '"'), ('\x00', 'a\x85'), ('\ufeff', 'a\u2028b'), ('x,y;z', '\\')])
    @example(
        [('"0', '0"'), ('0', '\r\t0' if ending == 'csv' else '0'), ('"sentence1": "x"', '\\"}')]
    )
    def check(pairs):
        path = put(tmp_path, {f'x.{ending}': content(pairs)}) + f'/x.{ending}'
        if name in TASKS:
            assert [e.texts for e in read_examples(path, TASKS[name])] == pairs
            return
        texts = [t for pair in pairs for t in pair]
        looks_like_rows = any(
            '\n' in t and ('\t' in t or max(map(t.count, ',;')) >= 3) for t in texts
        )
        refused = contextlib.suppress(InputError) if looks_like_rows else contextlib.nullcontext()
        with refused:
            assert own_texts(path, 'pair') == pairs

    check()


def test_own_data_to_predict(tmp_path):
    task, _ = own(put(tmp_path, {'train.csv': TEXTS}))
    path = str(tmp_path / 'new.csv')
    put(tmp_path, {'new.csv': 'date,text\nMonday,Good.\n,Bad.\n'})
    found = [Example('2', ('Good.',), None), Example('3', ('Bad.',), None)]
    assert read_examples(path, task) == found
    put(tmp_path, {'new.csv': 'text,label\nGood.,so\n,NaN\n'})
    assert 'row 3: text is empty' in error_of(read_examples, path, task)
    warnings = []
    assert len(read_examples(path, task, warnings)) == len(warnings) == 2
    assert "row 2: the label is 'so'" in warnings[1]
    put(tmp_path, {'new.csv': 'text1,text2\na,b\n', 'new.txt': 'x'})
    message = error_of(read_examples, path, task)
    assert "no column 'text' (found: text1, text2); expected text, as in training" in message
    message = error_of(read_examples, str(tmp_path / 'new.txt'), task)
    assert 'expected a file that ends with .csv' in message
