"""Readers of the official formats, on small made-up files in their exact layout."""

import json
import os
import shutil

import pytest
from small_files import (
    CHOSEN,
    GLUE,
    WORDS,
    as_csv,
    error_of,
    glue_files,
    labels,
    nli_tsv,
    numbered,
    passage,
    put,
    read,
    snli_json,
    snli_txt,
    stories,
    write,
)

from datasets import TASKS, read_examples, rocstories
from gpt1.tasks.readers import edition_of, read_table
from gpt1.tasks.rocstories import COLUMNS, FILES, find_csv
from gpt1.tasks.task import Data, Example


@pytest.mark.parametrize('name', GLUE)
@pytest.mark.parametrize('folder', ['{}', 'glue_data/{}', '.'])
def test_glue_tasks_without_quoting(tmp_path, name, folder):
    folder = tmp_path / folder.format(TASKS[name].archive.folders[0])
    folder.mkdir(parents=True, exist_ok=True)
    files, expected = glue_files(name, folder)
    data = read(name, str(tmp_path))
    assert labels(data.train) == expected
    assert labels(data.valid['valid']) == expected[:2]
    assert labels(data.test['test']) == [None] * 3
    for examples in (data.train, data.test['test']):
        texts = [tuple(text.rstrip() for text in e.texts) for e in examples]
        assert texts == [pair[: len(texts[0])] for pair in CHOSEN]
        assert len({e.id for e in examples}) == 3
    assert [os.path.basename(path) for path in data.sources] == list(files)
    assert any('not the whole' in note for note in data.notes)
    assert labels(read_examples(str(folder / 'test.tsv'), TASKS[name])) == [None] * 3
    path = str(folder / 'train.tsv')
    assert labels(read_examples(path, TASKS[name])) == expected
    # other line ends, blank lines, no line end at the end
    lines = ['\t'.join(row) for row in files['train.tsv']]
    put(folder, {'train.tsv': '\r\n'.join([*lines, '', '\t' * 3, *lines[-1:]])})
    assert labels(read_examples(path, TASKS[name])) == [*expected, expected[-1]]


def test_qqp_leaves_out_broken_rows_of_labelled_files_and_keeps_empty_questions(tmp_path):
    files, expected = glue_files('qqp', tmp_path)
    files['train.tsv'][2:2] = [['9', '1', 'half a question'], ['the rest', 'b', '1']]
    files['train.tsv'].append(['9', '1', '2', '', 'Why?', '0'])
    data = read('qqp', put(tmp_path, files))
    assert labels(data.train) == [*expected, 0] and data.train[-1].texts == ('', 'Why?')
    for note in ('broken rows left out: 2', 'examples with an empty text: 1'):
        assert f'{tmp_path}/train.tsv: {note}' in data.notes
    path = str(tmp_path / 'train.tsv')
    assert 'line 3: 3 columns' in error_of(read_examples, path, TASKS['qqp'])  # to predict
    files['test.tsv'][2:2] = [['9', 'half a question']]
    message = error_of(read, 'qqp', put(tmp_path, files))
    assert 'test.tsv, line 3: 2 columns, expected 3' in message


def test_editions_are_told_apart_by_their_size():
    one = Example('0', ('a', 'b'), 0)
    for name, sizes, expected in (
        ('qnli', (104_743, 5_463, 5_463), 'QNLI version 2'),
        ('qnli', (20, 5_732, 5_740), 'not the whole QNLI: 20 + 5,732 + 5,740 examples'),
        ('qqp', (363_849, 40_430, 390_965), 'until September 2020'),
    ):
        train, valid, test = ([one] * n for n in sizes)
        assert expected in edition_of(TASKS[name], Data(train, {'valid': valid}, {'test': test}))


MRPC_HEADER = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String'


def test_mrpc_from_microsofts_files(tmp_path):
    """Split by the dev ids."""
    rows = [f'{i % 3 > 0:d}\t{i}\t{i + 100}\t"First {i}\tSecond {i}' for i in range(40)]
    for split, some in (('train', rows), ('test', rows[:4])):
        content = '\r\n'.join([MRPC_HEADER, *some, ''])
        path = put(tmp_path, {f'MRPC/msr_paraphrase_{split}.txt': content})
    assert 'has no mrpc_dev_ids.tsv: python download.py mrpc' in error_of(read, 'mrpc', path)
    put(tmp_path, {'MRPC/mrpc_dev_ids.tsv': '3\t103\r\n7\t107\n99\t100\n', 'MRPC/test.tsv': 'old'})
    data = read('mrpc', path, n_valid=5)
    assert [e.id for e in data.valid['valid']] == ['3-103', '7-107'] and len(data.train) == 38
    assert data.train[0] == Example('0-100', ('"First 0', 'Second 0'), 0)
    assert labels(data.test['test']) == [0, 1, 1, 0] and 'n_valid is not used' in data.notes[0]
    put(tmp_path, {'MRPC/mrpc_dev_ids.tsv': '5\t6\n'})
    assert 'expected the ids of some pairs' in error_of(read, 'mrpc', path)


def test_test_labels_are_taken_from_the_original_files(tmp_path):
    """If they are of the same rows."""
    glue_files('mrpc', tmp_path)
    ids = [line.split('\t')[1:3] for line in (tmp_path / 'test.tsv').read_text().split('\n')[1:4]]
    source = [MRPC_HEADER, *([f'{i % 2}', *pair, 'other', 'x'] for i, pair in enumerate(ids))]
    data = read('mrpc', put(tmp_path, {'msr_paraphrase_test.txt': source}))
    assert labels(data.test['test']) == [0, 1, 0] and data.test['test'][0].texts == CHOSEN[0]
    data = read('mrpc', put(tmp_path, {'msr_paraphrase_test.txt': source[:-1]}))
    assert labels(data.test['test']) == [None] * 3
    assert any('other rows than the test file: not used' in note for note in data.notes)

    glue_files('stsb', tmp_path)
    rows = [['main-captions', 'MSRvid', '2012test', '0024', f'{i}.5', a, f'{b} ']
            for i, (a, b) in enumerate(CHOSEN)]  # fmt: skip
    rows[1] += ['http://licence', 'source']
    data = read('stsb', put(tmp_path, {'original/sts-test.tsv': rows}))
    assert labels(data.test['test']) == [0.5, 1.5, 2.5] and data.test['test'][1].texts == CHOSEN[1]
    put(tmp_path, {'original/sts-test.tsv': rows[1:]})
    assert labels(read('stsb', str(tmp_path)).test['test']) == [None] * 3


SNLI = {
    'jsonl': ('snli_1.0/snli_1.0_{}.jsonl', snli_json),
    'txt': ('SNLI/snli_1.0/snli_1.0_{}.txt', snli_txt),
    'glue': ('SNLI/{}.tsv', lambda words: nli_tsv(words, n_labels=5)),
}


@pytest.mark.parametrize('kind', SNLI)
def test_snli_in_each_format(tmp_path, kind):
    pattern, make = SNLI[kind]
    words = [*WORDS, 'neutral']
    files = {'train': words, 'dev': words[:2], 'test': words[1:4]}
    files = {pattern.format(split): make(some) for split, some in files.items()}
    path = put(tmp_path, {**files, 'snli_1.0/Icon\r': b'', 'snli_1.0/.DS_Store': b'\xff'})
    data = read('snli', path)
    assert labels(data.train) == [0, 1, 2, 1]
    assert data.train[0] == Example('0.jpg#0r1', ('A "cat 0.', 'Ça 0.'), 0)
    assert labels(data.valid['valid']) == [0, 1] and labels(data.test['test']) == [1, 2]
    train = os.path.join(path, pattern.format('train'))
    assert f"{train}: pairs without a majority label ('-') left out: 1" in data.notes
    # to predict, no row is left out
    assert labels(read_examples(train, TASKS['snli'])) == [0, 1, 2, None, 1]


def mnli_tsv(name):
    if name.startswith('test'):
        return [row[:9] for row in nli_tsv(WORDS[:3], 'promptID')]
    n = 5 if name.startswith('dev') else 1
    return nli_tsv(WORDS[:3], 'promptID', n_labels=n, header_labels=n)


@pytest.mark.parametrize('ax', [None, 'AX/diagnostic.tsv', 'AX.tsv', 'MNLI/AX.tsv'])
@pytest.mark.parametrize('inside', ['', 'MNLI'])
def test_mnli_and_its_diagnostic_set(tmp_path, ax, inside):
    names = 'train dev_matched dev_mismatched test_matched test_mismatched'.split()
    files = {f'MNLI/{name}.tsv': mnli_tsv(name) for name in names}
    if ax:
        files[ax] = [['index', 'sentence1', 'sentence2'], *numbered(CHOSEN)]
    data = read('mnli', os.path.join(put(tmp_path, files), inside))
    assert labels(data.train) == [0, 1, 2]
    assert {split: labels(e) for split, e in data.valid.items()} == dict.fromkeys(
        ('matched', 'mismatched'), [0, 1, 2]
    )
    assert labels(data.test['matched']) == [None] * 3
    assert ('diagnostic' in data.test) == (ax is not None)
    if ax:
        assert [e.texts for e in data.test['diagnostic']] == CHOSEN


def test_scitail_in_both_formats(tmp_path):
    expected = [Example('0', ('He said "no.', 'It  rained'), 0), Example('1', ('"Tea', 'Cup'), 1)]
    rows = [[*e.texts, word] for e, word in zip(expected, ('entails', 'neutral'))]
    columns = ('sentence1', 'sentence2', 'gold_label')
    lines = [json.dumps(dict(zip(columns, row))) for row in rows]
    lines[0] = lines[0].replace('entails', 'entailment')
    for folder, pattern, content in (
        ('a', 'tsv_format/scitail_1.0_{}.tsv', rows),
        ('b', 'snli_format/scitail_1.0_{}.txt', lines),
    ):
        files = {pattern.format(split): content for split in ('train', 'dev', 'test')}
        files['dgem_format/scitail_1.0_structure_train.tsv'] = 'not this one'
        files = {f'{folder}/SciTailV1.1/{name}': text for name, text in files.items()}
        data = read('scitail', put(tmp_path, files) + f'/{folder}')
        assert data.train == data.valid['valid'] == data.test['test'] == expected


def race_files():
    files = {}
    for split in ('train', 'dev', 'test'):
        for level in ('middle', 'high'):
            folder = f'RACE/{split}/{level}'
            files |= {f'{folder}/{n}.txt': passage(f'{level}{n}.txt') for n in (10, 9, 100)}
            files[f'{folder}/.DS_Store'] = b'\xff'
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
    shutil.rmtree(tmp_path / 'RACE' / 'test')
    data = read('race', str(tmp_path), n_valid=5)
    assert len(data.train) == 12 and data.test == {}
    assert f'{tmp_path}/RACE has no test/high: no test set' in data.notes
    assert 'n_valid is not used: RACE has validation files' in data.notes
    shutil.rmtree(tmp_path / 'RACE' / 'train' / 'high')
    message = error_of(read, 'race', str(tmp_path))
    assert f'{tmp_path}/RACE has no RACE, or not all of it: expected "train/high"' in message


def test_race_to_predict(tmp_path):
    record = json.loads(passage())
    del record['answers']
    put(tmp_path, {'p/2.txt': json.dumps(record), 'p/10.txt': passage('high99.txt')})
    assert labels(read_examples(str(tmp_path / 'p/2.txt'), TASKS['race'])) == [None, None]
    found = read_examples(str(tmp_path / 'p'), TASKS['race'], [])
    assert labels(found) == [None, None, 0, 3] and found[2].id == 'high99-0'
    (tmp_path / 'none').mkdir()
    put(tmp_path, {'empty.txt': json.dumps({**record, 'questions': [], 'options': []})})
    for name in ('none', 'empty.txt'):
        assert 'has no examples' in error_of(read_examples, str(tmp_path / name), TASKS['race'])


def read_stories(path, need_labels=True):
    return read_table(str(path), TASKS['rocstories'], need_labels)


def test_reads_the_columns_of_a_story(tmp_path):
    long = 'long ' * 100_000
    path = write(tmp_path / 'x.csv', [*stories(2), ['ü', 'a', 'b', long, 'd', '好', 'e', ' 2 ']])
    found = read_stories(path)
    assert [e.id for e in found] == ['id0', 'id1', 'ü'] and labels(found) == [0, 0, 1]
    context = 'Sentence 0 of 0. Sentence 1 of 0. Sentence 2 of 0. Sentence 3 of 0.'
    assert found[0].texts == (context, 'First "ending", 0.', 'Second\nending 0.')
    assert found[2].texts == (f'a b {long} d', '好', 'e')


REORDERED = [7, 0, 3, 4, 1, 2, 6, 5]
HEADER = ','.join(COLUMNS).encode()


@pytest.mark.parametrize(
    'content',
    [
        as_csv(stories(3), encoding='utf-8-sig'),
        as_csv(stories(3, '1.0'), encoding='utf-16'),
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
    expected = read_stories(write(tmp_path / 'plain.csv', stories(3)))
    for need_labels in (True, False):
        assert read_stories(tmp_path / 'x.csv', need_labels) == expected


@pytest.mark.parametrize(
    'rows',
    [
        's3,a,b,c,d,e,"She flew away.',  # the last cell: nothing closes it
        's3,a,b,c,d,e,"She flew away.\ns4,a,b,c,d,e,"She flew away.',
        's3,a,b,c,d,e,"She flew away.\ns4,a,b,c,d,e,She flew away."',
        's3,a,b,c,d,"e,She flew away.\ns4,a,b,c,d,e",She flew away.\ns5,a,b,c,d,e,f',
        's3,a,b,c,d,e,"She flew" away.',
        '"s3,a,b,c,d,e,f\ns4,a,b,c,d,e,f\ns5",a,b,c,d,e,f',
    ],
)
def test_a_stray_quotation_mark_never_glues_stories_silently(tmp_path, rows):
    good = 's{},a,b,c,d,e,f\n'
    text = ','.join(COLUMNS[:7]) + '\n' + good.format(1) + good.format(2) + rows + '\n'
    (tmp_path / 'x.csv').write_text(text)
    message = error_of(read_stories, str(tmp_path / 'x.csv'), need_labels=False)
    assert 'x.csv, row 4' in message and 'quotation mark' in message


def damaged_files():
    """(task, a file of it, content that cannot be read, what the message says after the file)."""
    lines = [
        ('{"gold_label": "neutral"', 'not JSON'),
        ('[' * 100_000, 'not JSON'),
        ('[1]', 'expected a JSON object'),
        ('{"gold_label": "neutral", "sentence1": "a"}', 'sentence2 is missing or not a string'),
        (snli_json(['neutral'], sentence1=5)[0], 'sentence1 is missing or not a string'),
        (snli_json(['maybe'])[0], "the label is 'maybe', expected one of entailment, neutral"),
        (snli_json([None])[0], "the label is '', expected"),
        (snli_json([3])[0], "the label is '3', expected"),
    ]
    for line, expected in lines:
        content = [*snli_json(WORDS), '', line]
        yield 'snli', 'snli_1.0_train.jsonl', content, f', line 6: {expected}'
    for score in ('5.001', '-0.1', 'inf', '', '1,5'):
        rows = [['index', 'sentence1', 'sentence2', 'score'], ['0', 'a', 'b', score]]
        expected = f', line 2: the label is {score!r}, expected a number from 0 to 5'
        yield 'stsb', 'train.tsv', rows, expected
    rte = [['index', 'sentence1', 'sentence2', 'label'], ['0', 'a', 'b', 'entailment']]
    yield 'rte', 'dev.tsv', rte * 2, ', line 3: the header again'
    yield 'rte', 'dev.tsv', [*rte, [*rte[1], 'more']], ', line 3: 5 columns, expected 4'
    yield 'rte', 'dev.tsv', [*rte, rte[1][:3]], ', line 3: 3 columns, expected 4'
    cola = [['gj04', '1', '', 'A cat sat.'], ['gj04', 'x', '*', 'sat cat']]
    yield 'cola', 'dev.tsv', cola, ", line 2: the label is 'x', expected one of 0, 1"
    yield 'rte', 'dev.tsv', [['sentence1', *rte[0]]], ", line 1: the column 'sentence1' is there"
    yield 'wnli', 'dev.tsv', rte, ", line 2: the label is 'entailment', expected one of 0, 1"
    yield 'qnli', 'dev.tsv', rte, ", line 1: no column 'question'; expected a header with question,"
    race = [
        (passage(answers='AE'), ", question 2: the label is 'E', expected one of A, B, C, D"),
        (passage(answers='A', options=[['one']]), ', question 1: expected two options'),
        (passage(answers='A', options=[[1, 2]]), ', question 1: an option is missing or not a'),
        (passage(answers='AB', questions=['Why?']), ': expected lists of as many'),
        (passage(answers='A', options=7), ': expected lists of as many'),
        (passage(answers='A', article=None), ': article is missing'),
        ('{', ': not JSON'),
        (b'\xff\n', ': not UTF-8'),
    ]
    yield from (('race', 'train/high/9.txt', content, expected) for content, expected in race)
    csv = [
        (b'', ' is empty'),
        (b'a,b,c\n1,2,3\n', ", row 1: no column 'InputSentence1'; expected a header with Input"),
        (HEADER, ' has no examples'),
        (HEADER + b'\na,b,c\n', ', row 2: 3 columns, expected 8'),
        (HEADER + b'\n\na,b,c,d,e, ,g,1', ', row 3: RandomFifthSentenceQuiz1 is empty'),
        (HEADER + b'\n' + HEADER, ', row 2: the header again'),
        (HEADER + b',InputSentence1\n', ", row 1: the column 'InputSentence1' is there twice"),
        (HEADER + b'\na,b,c,d,e,f,g,1,x\n', ', row 2: 9 columns, expected 8'),
        (HEADER + b'\na,b,c,d,e,f,\xff,1\n', ': not UTF-8'),
        (','.join(COLUMNS).encode('utf-16')[:-1], ': not UTF-8'),
    ]
    for label in ('0', '3', '', '1.5', '.0', 'x y', '١'):
        expected = f', row 4: the label is {label!r}, expected one of 1, 2'
        csv.append((as_csv(stories(2) + stories(1, label)), expected))
    yield from (('rocstories', FILES['val'][0], content, expected) for content, expected in csv)


@pytest.mark.parametrize('name, file, content, expected', list(damaged_files()))
def test_what_cannot_be_read_is_named(tmp_path, name, file, content, expected):
    if name in GLUE:
        glue_files(name, tmp_path)
    whole = {
        'snli': {f'snli_1.0_{split}.jsonl': snli_json(WORDS) for split in ('train', 'dev')},
        'race': {path.removeprefix('RACE/'): text for path, text in race_files().items()},
        'rocstories': {FILES['test'][0]: as_csv(stories(3))},
    }.get(name, {})
    put(tmp_path, {**whole, file: content})
    assert f'{tmp_path}/{file}{expected}' in error_of(read, name, str(tmp_path))


@pytest.mark.parametrize('which', FILES)
def test_names_of_the_story_files(tmp_path, which):
    """Of several, the paper's edition, under the name that it was published with."""
    spring = f'cloze_test_{which}__spring2016'
    published = f'{spring} - cloze_test_ALL_{which}.csv'
    winter = f'cloze_test_{which}__winter2018-cloze_test_ALL_{which} - 1 - 1.csv'
    for name in (winter, f'{spring} (1).CSV', f'{spring}.csv', published):  # each before the last
        (tmp_path / name).touch()
        assert find_csv(str(tmp_path), which) == str(tmp_path / name)
    for name in (published, f'{spring}.csv'):
        os.unlink(tmp_path / name)
    (tmp_path / f'{spring} (2).csv').touch()
    assert f'several {which} files' in error_of(find_csv, str(tmp_path), which)


def test_the_edition_of_2018_whose_test_file_has_no_labels(tmp_path):
    names = [f'cloze_test_{w}__winter2018-cloze_test_ALL_{w} - 1.csv' for w in FILES]
    write(tmp_path / names[0], stories(5))
    write(tmp_path / FILES['val'][0], stories(7))  # of 2016, but without its test file
    write(tmp_path / names[1], [row[:7] for row in stories(3)], header=COLUMNS[:7])
    data = read('rocstories', str(tmp_path), n_valid=2)
    assert len(data.train) == 3 and labels(data.test['test']) == [None] * 3
    assert data.notes == ["the edition of 2018; the paper's is that of 2016"]


def test_missing_files_are_named_with_their_address(tmp_path):
    for name, parts in {
        'snli': ('"snli_1.0_train.jsonl" and "snli_1.0_dev.jsonl"', '"snli_1.0"', 'https://nlp.'),
        'mrpc': ('"train.tsv"', '"msr_paraphrase_train.txt"', '"MRPC"', 'https://'),
        'race': ('expected "train/middle" and "train/high" and ', '"RACE"', 'http://www.cs.cmu'),
        'rocstories': (*FILES['val'], 'https://cs.rochester.edu/nlp/rocstories/'),
    }.items():
        message = error_of(read, name, str(tmp_path))
        assert all(part in message for part in parts)
        assert 'no such folder' in error_of(read, name, str(tmp_path / 'none'))
    put(tmp_path, {'SNLI/snli_1.0_train.txt': snli_txt(WORDS)})
    message = error_of(read, 'snli', str(tmp_path))
    assert f'{tmp_path}/SNLI has no SNLI, or not all of it: expected "snli_1.0_dev.' in message
    for folder in ('train/middle', 'train/high', 'dev/middle', 'dev/high'):
        (tmp_path / folder).mkdir(parents=True)
    assert 'has no examples' in error_of(read, 'race', str(tmp_path))
    write(tmp_path / FILES['val'][0], stories(5))
    assert all(name in error_of(rocstories, str(tmp_path)) for name in FILES['test'])
    write(tmp_path / FILES['test'][0], stories(5))
    assert 'has 5 examples: cannot set 5 aside' in error_of(rocstories, str(tmp_path), n_valid=5)
    for path in (str(tmp_path), os.path.join(tmp_path, 'none\nat all'), 'a\0b'):
        error_of(read_stories, path)
