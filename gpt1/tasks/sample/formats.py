"""Writers of the official formats, for the made-up data.

A writer gets a folder and the examples of each split, {split: [(texts, label)]}.
"""

import json
import os
from collections.abc import Callable, Iterable

Texts = tuple[str, ...]
Block = list[tuple[Texts, int | float | str]]  # texts and label of a few examples
Row = Callable[[int, Texts, object], list]  # cells from the number, the texts and the label


def write_lines(path: str, lines: Iterable[str], encoding: str = 'utf-8', end: str = '\n') -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding=encoding, newline='') as f:
        f.writelines(line + end for line in lines)


def write_table(path: str, header: str, drawn: Block, row: Row) -> None:
    """Write tab-separated rows without quoting. `header` has the names between blanks."""
    rows = [row(i, texts, label) for i, (texts, label) in enumerate(drawn)]
    table = [header.split(' '), *rows] if header else rows
    write_lines(path, ('\t'.join(map(str, cells)) for cells in table))


def tables(header: str, row: Row, test_header: str, test_row: Row, name: str = '{}.tsv'):
    """A writer of a table for each split, of which that of the test has no labels."""

    def write(folder: str, splits: dict[str, Block]) -> None:
        for split, drawn in splits.items():
            path = os.path.join(folder, name.format(split))
            if split.startswith('test'):
                write_table(path, test_header, drawn, test_row)
            else:
                write_table(path, header, drawn, row)

    return write


def numbered(i: int, texts: Texts, label) -> list:
    return [i, *texts]


def glue(columns: str):
    """A writer of `index`, the texts and the label: most of GLUE."""
    header = f'index {columns}'
    return tables(f'{header} label', lambda i, texts, label: [i, *texts, label], header, numbered)


write_qqp = tables(
    'id qid1 qid2 question1 question2 is_duplicate',
    lambda i, texts, label: [i, 2 * i, 2 * i + 1, *texts, label],
    'id question1 question2',
    numbered,
)
write_cola = tables(  # without a header; the author's mark of a wrong sentence is `*`
    '', lambda i, texts, label: ['sp18', label, '' if label else '*', *texts],
    'index sentence', numbered,
)  # fmt: skip
write_sst2 = tables(  # sentences end with a blank, but for those of the test file
    'sentence label', lambda i, texts, label: [*texts, label],
    'index sentence', lambda i, texts, label: [i, texts[0].rstrip()],
)  # fmt: skip


def _labelled(i: int, texts: Texts, label) -> list:
    return [*texts, label]


write_scitail = tables(
    '', _labelled, '', _labelled, os.path.join('tsv_format', 'scitail_1.0_{}.tsv')
)
PARSES = 'sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse'


def write_snli(folder: str, splits: dict[str, Block]) -> None:
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


def write_mnli(folder: str, splits: dict[str, Block]) -> None:
    """GLUE's files: 12 columns for training, 16 for development, 10 without labels for the test."""
    for split, drawn in splits.items():
        kind, _, genre = split.partition('_')
        labels = {'train': ' label1 gold_label', 'test': ''}.get(
            kind, ' label1 label2 label3 label4 label5 gold_label'
        )

        def row(i, texts, label, genre=genre or 'matched', labels=labels):
            pair_id = f'{i}{label[0]}' if labels else i
            return [i, i, pair_id, genre, '', '', '', '', *texts, *[label] * labels.count(' ')]

        header = f'index promptID pairID genre {PARSES} sentence1 sentence2{labels}'
        write_table(os.path.join(folder, f'{split}.tsv'), header, drawn, row)


def write_race(folder: str, splits: dict[str, Block]) -> None:
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


def write_mrpc(folder: str, splits: dict[str, Block]) -> None:
    """The files of GLUE's script: Microsoft's test file with its labels is among them."""
    first_id = 0
    for split, drawn in splits.items():
        labelled = ['Quality\t#1 ID\t#2 ID\t#1 String\t#2 String']
        indexed = ['index\t#1 ID\t#2 ID\t#1 String\t#2 String']
        for i, ((first, second), label) in enumerate(drawn):
            row = f'{first_id}\t{first_id + 1}\t{first}\t{second}'
            labelled.append(f'{label}\t{row}')
            indexed.append(f'{i}\t{row}')
            first_id += 2
        path = os.path.join(folder, f'{split}.tsv')
        if split == 'test':
            source = os.path.join(folder, 'msr_paraphrase_test.txt')
            write_lines(source, labelled, 'utf-8-sig', '\r\n')
            write_lines(path, indexed)
        else:
            write_lines(path, labelled, 'utf-8-sig')


def write_stsb(folder: str, splits: dict[str, Block]) -> None:
    """GLUE's files, and the original test file, which has the scores."""
    header = 'index genre filename year old_index source1 source2 sentence1 sentence2'
    source = ['main-captions', 'sample', '2018']

    def row(i, texts, score):
        return [i, *source, f'{i:04}', 'none', 'none', *texts]

    def scored(i, texts, score):
        return [*row(i, texts, score), f'{score:.3f}']

    def original(i, texts, score):
        return [*source, f'{i:04}', f'{score:.3f}', *texts]

    tables(f'{header} score', scored, header, row)(folder, splits)
    path = os.path.join(folder, 'original', 'sts-test.tsv')
    write_table(path, '', splits['test'], original)


def write_dprd(folder: str, splits: dict[str, Block]) -> None:
    """Four lines an item, and an empty one. Twins follow each other."""
    for split, drawn in splits.items():
        lines = []
        for (*sentences, pronoun, first, second), label in drawn:
            for sentence, right in zip(sentences, (label, 1 - label)):
                answer = (first, second)[right]
                lines += [sentence, pronoun, f'{first},{second}', answer, '']
        write_lines(os.path.join(folder, f'{split}.c.txt'), lines)
