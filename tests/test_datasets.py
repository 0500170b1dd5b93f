"""Reading and splitting the Story Cloze files."""

import csv
import os

import pytest
from sklearn.model_selection import train_test_split

from datasets import COLUMNS, FILES, SPLIT_SEED, find_csv, read_cloze_test, rocstories
from utils import InputError


def rows(n, label='1'):
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


def write(path, table, header=COLUMNS, encoding='utf-8'):
    with open(path, 'w', encoding=encoding, newline='') as f:
        csv.writer(f).writerows([header, *table])
    return str(path)


def error_of(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_reads_the_columns(tmp_path):
    path = write(tmp_path / 'x.csv', rows(2) + [['ü', 'a', 'b', 'c', 'd', '好', '', ' 2 ']])
    stories = read_cloze_test(path)
    assert stories.id == ['id0', 'id1', 'ü'] and stories.label == [0, 0, 1]
    assert (
        stories.story[0] == 'Sentence 0 of 0. Sentence 1 of 0. Sentence 2 of 0. Sentence 3 of 0.'
        and stories.story[2] == 'a b c d'
    )
    assert (
        stories.ending1[0] == 'First "ending", 0.'
        and stories.ending2[1] == 'Second\nending 1.'
        and stories.ending1[2] == '好'
    )


def test_byte_order_mark_empty_lines_and_more_columns(tmp_path):
    path = write(
        tmp_path / 'x.csv',
        [[], *rows(1), [], ['x'] * 7 + ['2', 'more']],
        header=[*COLUMNS, 'More'],
        encoding='utf-8-sig',
    )
    assert read_cloze_test(path).label == [0, 1]


@pytest.mark.parametrize('n, n_valid', [(10, 3), (57, 1), (57, 56), (400, 374)])
def test_the_split_is_that_of_sklearn(tmp_path, n, n_valid):
    write(tmp_path / FILES['val'][0], rows(n))
    write(tmp_path / FILES['test'][1], rows(2))
    train, valid, test = rocstories(str(tmp_path), n_valid)
    everything = read_cloze_test(find_csv(str(tmp_path), 'val'))
    for column, whole, part in zip(train, everything, valid):
        assert [column, part] == train_test_split(whole, test_size=n_valid, random_state=SPLIT_SEED)
    assert test.id == ['id0', 'id1']


def test_both_file_names(tmp_path):
    for which, (published, handed_out) in FILES.items():
        write(tmp_path / handed_out, rows(1))
        assert find_csv(str(tmp_path), which) == str(tmp_path / handed_out)
        write(tmp_path / published, rows(1))
        assert find_csv(str(tmp_path), which) == str(tmp_path / published)


@pytest.mark.parametrize(
    'table, header',
    [([row[:7] for row in rows(3)], COLUMNS[:7]), (rows(3, ''), COLUMNS), (rows(3, ' '), COLUMNS)],
)
def test_a_test_file_may_lack_labels(tmp_path, table, header):
    path = write(tmp_path / 'x.csv', table, header)
    assert read_cloze_test(path, need_labels=False).label == [-1, -1, -1]
    error_of(read_cloze_test, path)


@pytest.mark.parametrize('label', ['0', '3', '', '1.0', 'x\ny', '١'])
def test_a_wrong_label(tmp_path, label):
    path = write(tmp_path / 'x.csv', rows(2) + rows(1, label))
    for need_labels in (True, False):
        message = error_of(read_cloze_test, path, need_labels)
        assert f'{path}, row 4: AnswerRightEnding' in message and 'expected 1 or 2' in message


@pytest.mark.parametrize(
    'content, expected',
    [
        (b'', 'is empty'),
        (b'\n', 'row 1: expected the header'),
        (b'a,b,c\n1,2,3\n', 'row 1: expected the header InputStoryid,'),
        (','.join(COLUMNS).encode(), 'a header but no stories'),
        (','.join(COLUMNS).encode() + b'\na,b,c\n', 'row 2: 3 columns, expected 8'),
        (','.join(COLUMNS).encode() + b'\na,b,c,d,e,f,\xff,1\n', 'not UTF-8'),
        (','.join(COLUMNS).encode('utf-16'), 'not UTF-8'),
        (
            ','.join(COLUMNS).encode() + b'\na,b,c,d,e,f,"' + b'x' * 200_000 + b'",1\n',
            'row 2: not a CSV file (field larger',
        ),
        (b'PK\x03\x04' + bytes(100), 'row 1: expected the header'),
    ],
)
def test_what_is_no_such_file(tmp_path, content, expected):
    path = tmp_path / 'x.csv'
    path.write_bytes(content)
    message = error_of(read_cloze_test, str(path))
    assert str(path) in message and expected in message


def test_missing_and_too_few(tmp_path):
    assert 'no such folder' in error_of(rocstories, str(tmp_path / 'none'))
    message = error_of(rocstories, str(tmp_path))
    assert (
        all(name in message for name in FILES['val'])
        and 'https://cs.rochester.edu/nlp/rocstories/' in message
    )
    write(tmp_path / FILES['val'][0], rows(5))
    assert all(name in error_of(rocstories, str(tmp_path)) for name in FILES['test'])
    write(tmp_path / FILES['test'][0], rows(5))
    assert 'has 5 stories, too few to set 5 aside' in error_of(rocstories, str(tmp_path), n_valid=5)
    error_of(read_cloze_test, str(tmp_path))  # a folder
    error_of(read_cloze_test, os.path.join(tmp_path, 'none\nat all'))
