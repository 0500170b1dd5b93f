"""Writers of the official formats, for the made-up data.

A writer gets the name of a task, a folder, and the examples of each split,
{split: [(texts, label)]}.
"""

import json
import os
from collections.abc import Iterable

Texts = tuple[str, ...]
Block = list[tuple[Texts, int | float | str]]  # texts and label of a few examples

PARSES = 'sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse'
# The columns of the training file, and of the test file, which has no labels. The texts stand in
# their order in those named here.
TEXTS = ('sentence1', 'sentence2', 'question', 'sentence', 'question1', 'question2')
PAIR = 'index sentence1 sentence2'
MNLI = f'index promptID pairID genre {PARSES} sentence1 sentence2'
STSB = 'index genre filename year old_index source1 source2 sentence1 sentence2'
COLUMNS = {
    'mnli': (f'{MNLI} label1 gold_label', MNLI),
    'qnli': ('index question sentence label', 'index question sentence'),
    'scitail': ('sentence1 sentence2 gold_label', 'sentence1 sentence2 gold_label'),
    'rte': (f'{PAIR} label', PAIR),
    'qqp': ('id qid1 qid2 question1 question2 is_duplicate', 'id question1 question2'),
    'stsb': (f'{STSB} score', STSB),
    'cola': ('source label mark sentence', 'index sentence'),
    'sst2': ('sentence label', 'index sentence'),
    'wnli': (f'{PAIR} label', PAIR),
}
MNLI_DEV = f'{MNLI} label1 label2 label3 label4 label5 gold_label'
STSB_ORIGINAL = 'genre filename year old_index score sentence1 sentence2'
BARE = {'scitail': ('train', 'dev', 'test'), 'cola': ('train', 'dev')}  # files without a header


def write_lines(path: str, lines: Iterable[str], encoding: str = 'utf-8', end: str = '\n') -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding=encoding, newline='') as f:
        f.writelines(line + end for line in lines)


def write_table(path: str, columns: str, drawn: Block, bare: bool, genre: str = '') -> None:
    """Write tab-separated rows without quoting. `columns` has the names between blanks."""
    names = columns.split(' ')
    lines = [] if bare else ['\t'.join(names)]
    for i, (texts, label) in enumerate(drawn):
        shown = f'{label:.3f}' if isinstance(label, float) else label
        cells = {
            'qid1': 2 * i,
            'qid2': 2 * i + 1,
            'pairID': f'{i}{label[0]}' if 'gold_label' in names else i,
            'genre': genre,
            'filename': 'sample',
            'year': '2018',
            'old_index': f'{i:04}',
            'source': 'sp18',
            'mark': '' if label else '*',  # the author's, of a wrong sentence
            **dict.fromkeys(('index', 'promptID', 'id'), i),
            **dict.fromkeys(('source1', 'source2'), 'none'),
            **dict.fromkeys(PARSES.split(' '), ''),
            **dict(zip((name for name in names if name in TEXTS), texts)),
        }
        lines.append('\t'.join(str(cells.get(name, shown)) for name in names))
    write_lines(path, lines)


def write_tables(name: str, folder: str, splits: dict[str, Block]) -> None:
    """A table for each split."""
    pattern = os.path.join('tsv_format', 'scitail_1.0_{}.tsv') if name == 'scitail' else '{}.tsv'
    for split, drawn in splits.items():
        kind, _, subset = split.partition('_')
        columns = COLUMNS[name][kind == 'test']
        genre = subset or 'matched'
        if name == 'mnli' and kind == 'dev':
            columns = MNLI_DEV
        if name == 'stsb':
            genre = 'main-captions'
        if name == 'sst2' and kind == 'test':  # without the blank at the end of the other files
            drawn = [((text.rstrip(),), label) for (text,), label in drawn]
        path = os.path.join(folder, pattern.format(split))
        write_table(path, columns, drawn, kind in BARE.get(name, ()), genre)
    if name == 'stsb':  # the original test file has the scores
        path = os.path.join(folder, 'original', 'sts-test.tsv')
        write_table(path, STSB_ORIGINAL, splits['test'], True, genre)


def write_snli(name: str, folder: str, splits: dict[str, Block]) -> None:
    """JSON lines. The parse trees are empty."""
    for split, drawn in splits.items():
        lines = []
        for i, ((premise, hypothesis), label) in enumerate(drawn):
            record = dict.fromkeys(PARSES.split(' '), '') | {
                'annotator_labels': [label],
                'captionID': f'{split}{i}',
                'gold_label': label,
                'pairID': f'{split}{i}{label[0]}',
                'sentence1': premise,
                'sentence2': hypothesis,
            }
            lines.append(json.dumps(record, sort_keys=True))
        write_lines(os.path.join(folder, f'snli_1.0_{split}.jsonl'), lines)


def write_race(name: str, folder: str, splits: dict[str, Block]) -> None:
    """A JSON file for each article. The first half of each split is `middle`, the rest `high`."""
    for split, drawn in splits.items():
        for i, ((article, question, *options), label) in enumerate(drawn):
            level = 'middle' if i < len(drawn) // 2 else 'high'
            record = {
                'answers': ['ABCD'[label]],
                'options': [options],
                'questions': [question],
                'article': article,
                'id': f'{level}{i}.txt',
            }
            path = os.path.join(folder, split, level, f'{i}.txt')
            write_lines(path, [json.dumps(record)], end='')


def write_mrpc(name: str, folder: str, splits: dict[str, Block]) -> None:
    """The files of GLUE's script: Microsoft's test file with its labels is among them."""
    header = '#1 ID\t#2 ID\t#1 String\t#2 String'
    first_id = 0
    for split, drawn in splits.items():
        rows = [
            f'{first_id + 2 * i}\t{first_id + 2 * i + 1}\t' + '\t'.join(texts)
            for i, (texts, _) in enumerate(drawn)
        ]
        first_id += 2 * len(drawn)
        labelled = [f'{label}\t{row}' for row, (_, label) in zip(rows, drawn)]
        labelled.insert(0, f'Quality\t{header}')
        path = os.path.join(folder, f'{split}.tsv')
        if split == 'test':
            source = os.path.join(folder, 'msr_paraphrase_test.txt')
            write_lines(source, labelled, 'utf-8-sig', '\r\n')
            indexed = [f'{i}\t{row}' for i, row in enumerate(rows)]
            write_lines(path, [f'index\t{header}', *indexed])
        else:
            write_lines(path, labelled, 'utf-8-sig')


def write_dprd(name: str, folder: str, splits: dict[str, Block]) -> None:
    """Four lines an item, and an empty one. Twins follow each other."""
    for split, drawn in splits.items():
        lines = []
        for (*sentences, pronoun, first, second), label in drawn:
            for sentence, right in zip(sentences, (label, 1 - label)):
                answer = (first, second)[right]
                lines += [sentence, pronoun, f'{first},{second}', answer, '']
        write_lines(os.path.join(folder, f'{split}.c.txt'), lines)
