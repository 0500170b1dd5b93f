"""The report of a run: text, tables and pictures."""

import math
import os
import sys
from collections.abc import Sequence

import numpy as np

from gpt1.report import pictures
from gpt1.report.html import write_html
from gpt1.report.intervals import Score, format_interval, interval, results, suffix
from gpt1.report.log import (
    METRIC_NAMES,
    best_evaluation,
    columns_of,
    format_score,
    is_real,
    metric_title,
    plain,
    validation_scores,
)
from gpt1.report.predictions import Predictions, predictions_for, together
from gpt1.tasks.task import Example, Published, Task
from utils import whole_file

N_BINS = 10  # of the calibration
N_MISTAKES = 10
MAX_CLASSES = 20  # in the picture of the confusion matrix


# ------------------------------------------------------------------------------------ the report


def write_report(
    folder: str,
    arguments: dict,
    evaluations: list[dict],
    task: Task,
    test: dict[str, tuple[list[Example], np.ndarray]],
    valid: dict[str, tuple[list[Example], np.ndarray]] | None = None,
    published: bool = False,
    notes: Sequence[str] = (),
    data_notes: Sequence[str] = (),
) -> None:
    """Write report.md, its pictures and report.html to `folder`.

    arguments, evaluations  of the run's log, as `read_log` returns them
    test         name of a test set -> its examples and their logits [examples, scores]
    valid        the same for validation sets, with the parameters that were kept. Where no test set
                 has labels, they are analysed instead
    published    compare with published results, see `can_compare`
    notes        what a reader must know first, for example that the data are the made-up sample
    data_notes   `datasets.Data.notes`

    Raises WriteError.
    """
    tested = {name: predictions_for(task, *pair) for name, pair in test.items()}
    validated = {name: predictions_for(task, *pair) for name, pair in (valid or {}).items()}
    analysed, where = choose_set(tested, validated)
    notes = [*notes, *warnings_of(task, analysed, where)]
    lines = [
        f'# {plain(str(arguments.get("desc", task.name)))}',
        '',
        *[line for note in notes for line in (f'**{plain(note)}**', '')],
        *[f'- Data: {plain(note)}' for note in data_notes],
        *report_cut(arguments, task),
        *report_scores(evaluations, task, tested, validated, published),
        *report_training(folder, evaluations, task),
    ]
    if analysed is not None:
        if where.startswith('validation'):
            lines += ['', f'The sections below analyse the {where}, whose labels are known.']
        if not is_real(task):
            if task.labels:
                lines += report_classes(folder, task, analysed, where)
            lines += report_confidence(folder, analysed, where)
        lines += report_mistakes(task, analysed, where)
    path = os.path.join(folder, 'report.md')
    with whole_file(path) as f:
        f.write('\n'.join(lines) + '\n')
    write_html(path)


def report_cut(arguments: dict, task: Task) -> list[str]:
    """How many examples of which set were cut, and by which rule."""
    n_cut = arguments.get('n_cut')
    if not n_cut:
        return []
    counts = ', '.join(f'{n:,} {name}' for name, n in n_cut.items())
    return [f'- Cut: {counts} examples are longer: {task.cut_rule(arguments["n_ctx"])}.']


def choose_set(
    tested: dict[str, Predictions], validated: dict[str, Predictions]
) -> tuple[Predictions | None, str]:
    """The predictions to analyse, and in words which they are: the test set if it has labels."""
    for kind, sets in (('test', tested), ('validation', validated)):
        known = {name: part for name, part in sets.items() if part.labels is not None}
        if len(known) == 1:
            return next(iter(known.values())), f'{kind} set'
        if known:
            return together(list(known.values())), f'{kind} sets {" and ".join(known)} together'
    return None, ''


def warnings_of(task: Task, predictions: Predictions | None, where: str) -> list[str]:
    """A warning if classes that occur in a set are never predicted. F1 may hide it."""
    if not task.labels or predictions is None or predictions.labels is None:
        return []
    absent = np.setdiff1d(predictions.labels, predictions.values)
    if not len(absent):
        return []
    names = ', '.join(repr(task.labels[i]) for i in absent[:10])
    names += f' and {len(absent) - 10:,} more' if len(absent) > 10 else ''
    kind, verb = ('class', 'is') if len(absent) == 1 else ('classes', 'are')
    n = int(np.isin(predictions.labels, absent).sum())
    return [
        f'warning: the {kind} {names} {verb} never predicted, but right for {n:,} of '
        f'{count_examples(len(predictions.labels))} of the {where}'
    ]


# ----------------------------------------------------------------------------------- the scores


def report_scores(
    evaluations: list[dict],
    task: Task,
    tested: dict[str, Predictions],
    validated: dict[str, Predictions],
    published: bool,
) -> list[str]:
    """The first section: the scores, their intervals, and published results."""
    best = best_evaluation(evaluations, task)
    lines = []
    for column, value in validation_scores(best, task):
        text = format_score(column.metric, value)
        if lines:
            lines.append(f'  - {column.title(task)}: {text}')
        else:
            after = f'after epoch {best["n_epochs"]} (update {best["n_updates"]:,})'
            lines.append(f'- Best {column.title(task)}: **{text}**, {after}.')
    others = task.published if published else ()
    for score in results(task, tested):
        lines += describe('test', score, others)
    for split, part in tested.items():
        if part.labels is None:
            title = metric_title(task.metrics[0]) + suffix(split)
            lines.append(f'- Test {title}: not known, since the test file has no labels.')
            lines += [
                f'  - Published {metric_title(other.metric)}: {format_published(other)}.'
                for other in others
                if (other.on, other.split) == ('test', split)
            ]
    if not any(part.labels is not None for part in tested.values()):
        for score in results(task, validated):
            lines += describe('valid', score, others)
    if task.published and not published:
        lines.append(
            '- Not compared with published results: they hold for the complete data set and '
            "OpenAI's weights."
        )
    return lines


def describe(kind: str, score: Score, others: Sequence[Published]) -> list[str]:
    """The lines of a score on a 'test' or 'valid' set, with its interval and `others` beside it.

    '- Test accuracy: **75.00 %** (45 of 60 examples); 95 % interval 62.77 to 84.22.'
    """
    low, high = interval(score)
    examples = count_examples(len(score.predictions.values))
    if score.metric == 'accuracy':
        examples = f'{score.predictions.right.sum():,} of {examples}'
    title = {'test': 'Test', 'valid': 'Validation'}[kind]
    lines = [
        f'- {title} {plain(score.title)}: **{score}** ({examples}); 95 % interval '
        f'{format_interval(low, high)}.'
    ]
    for other in others:
        if (other.on, other.split, other.metric) == (kind, score.split, score.metric):
            line = f'  - {format_published(other)}'
            if not math.isnan(low):
                is_inside = low <= other.value <= high
                line += ': inside the interval.' if is_inside else ': outside the interval.'
            lines.append(line)
    return lines


def format_published(other: Published) -> str:
    """'86.5 % (paper)', with as many digits as it was published with."""
    unit = ' %' if other.metric == 'accuracy' else ''
    return f'{other.value}{unit} ({plain(other.who)})'


def report_training(folder: str, evaluations: list[dict], task: Task) -> list[str]:
    """The section of costs and scores by epoch."""
    columns = columns_of(evaluations[0])
    header = ['epoch', 'update', *(column.title(task) for column in columns.values())]
    rows = [
        [
            line['n_epochs'],
            f'{line["n_updates"]:,}',
            *(format_score(column.metric, line[name]) for name, column in columns.items()),
        ]
        for line in evaluations
    ]
    last = evaluations[-1]
    epochs_per_update = last['n_epochs'] / max(last['n_updates'], 1)

    def curves(metric):
        return {
            column.set: [line[name] for line in evaluations]
            for name, column in columns.items()
            if column.metric == metric
        }

    metric = task.metrics[0]
    pictures.draw_training(
        os.path.join(folder, 'training.png'),
        epochs=[line['n_updates'] * epochs_per_update for line in evaluations],
        costs=curves('cost'),
        scores=curves(metric),
        title='accuracy, %' if metric == 'accuracy' else f'{METRIC_NAMES[metric]} × 100',
    )
    return [
        *['', '## Training', ''],
        *markdown_table(header, rows),
        *picture('training', 'Cost and score by epoch'),
    ]


# ----------------------------------------------------------------------------- the predictions


def heading(title: str, where: str) -> list[str]:
    """The heading of a section. It names the set, except for a single test set."""
    return ['', f'## {title}' if where == 'test set' else f'## {title} ({where})', '']


def report_classes(folder: str, task: Task, predictions: Predictions, where: str) -> list[str]:
    """The section of precision and recall, and the confusion matrix of not too many classes."""
    labels, values, n_classes = predictions.labels, predictions.values, len(task.labels)

    def count(ids):
        return np.bincount(ids, minlength=n_classes)

    right, of_labels, predicted = count(labels[predictions.right]), count(labels), count(values)
    rows = [
        [
            plain(name),
            f'{of_labels[i]:,}',
            f'{predicted[i]:,}',
            percentage(right[i], predicted[i]),
            percentage(right[i], of_labels[i]),
        ]
        for i, name in enumerate(task.labels)
    ]
    header = ['class', 'examples', 'predictions', 'precision', 'recall']
    lines = [*heading('Classes', where), *markdown_table(header, rows)]
    if n_classes > MAX_CLASSES:
        return lines
    counts = np.bincount(labels * n_classes + values, minlength=n_classes**2)
    counts = counts.reshape(n_classes, n_classes)
    pictures.draw_confusion(os.path.join(folder, 'confusion.png'), counts, task.labels)
    return [*lines, *picture('confusion', 'Confusion matrix')]


def percentage(part: int, whole: int) -> str:
    return f'{100 * part / whole:.2f} %' if whole else '–'


def report_confidence(folder: str, predictions: Predictions, where: str) -> list[str]:
    """The section of confidence and calibration."""
    calibration, error = calibrate(predictions)
    pictures.draw_confidence(os.path.join(folder, 'confidence.png'), calibration)
    return [
        *heading('Confidence', where),
        f'The mean probability of a prediction is {predictions.confidence.mean():.3f}, and '
        f'{predictions.right.mean():.3f} of the predictions are right. The expected calibration '
        f'error, over {N_BINS} bins, is {error:.3f}.',
        *picture('confidence', 'Confidence and calibration'),
    ]


def calibrate(predictions: Predictions) -> tuple[np.ndarray, float]:
    """How often predictions are right, by their probability.

    Returns [bins that are not empty, 2]: the mean probability and the accuracy; and the expected
    calibration error (Guo et al., 2017), the mean distance of the two.
    """
    confidence = predictions.confidence
    edges = np.linspace(0, 1, N_BINS + 1)[1:-1]
    which = np.searchsorted(edges, confidence, side='right')
    n, sure, right = (
        np.bincount(which, weights, N_BINS) for weights in (None, confidence, predictions.right)
    )
    error = abs(sure - right).sum() / n.sum()
    filled = n > 0
    return np.column_stack([sure, right])[filled] / n[filled, None], float(error)


def report_mistakes(task: Task, predictions: Predictions, where: str) -> list[str]:
    """The section of the surest mistakes, or of the largest errors, with their texts."""
    if is_real(task):
        errors = abs(predictions.values - predictions.labels)
        worst = np.argsort(-errors, kind='stable')[:N_MISTAKES]
        lines = heading('The largest errors', where)
        lines.append('The examples with the largest difference of prediction and score:')
    else:
        wrong = np.flatnonzero(~predictions.right)
        order = np.argsort(-predictions.confidence[wrong], kind='stable')
        worst = wrong[order][:N_MISTAKES]
        lines = heading('The surest mistakes', where)
        lines.append(
            f'{len(wrong):,} of {len(predictions.values):,} predictions are wrong. '
            'The surest of them:'
            if len(wrong)
            else 'There are none.'
        )
    for rank, i in enumerate(worst, 1):
        lines += ['', *describe_mistake(task, predictions, rank, i)]
    return lines


def describe_mistake(task: Task, predictions: Predictions, rank: int, i: int) -> list[str]:
    """One item of the list of mistakes."""
    example = predictions.examples[i]
    prediction, label = predictions.values[i], predictions.labels[i]
    first = f'{rank}. Example {plain(example.id)}: '
    item = ' ' * len(f'{rank}. ') + '- '  # Markdown wants it below the first word
    if is_real(task):
        first += f'predicted {prediction:.2f}, the score is {label:.2f}'
        return [first, *(f'{item}text: {plain(text)}' for text in example.texts)]
    shares = predictions.shares[i]
    if task.labels:
        first += (
            f'predicted {plain(task.labels[prediction])} ({shares[prediction]:.1%}), '
            f'right is {plain(task.labels[label])} ({shares[label]:.1%})'
        )
        return [first, *(f'{item}text: {plain(text)}' for text in example.texts)]
    first += f'predicted {task.word(prediction)}, right is {task.word(label)}'
    context = example.texts[: task.n_context]
    choices = example.texts[task.n_context :]
    lines = [first, *(f'{item}context: {plain(text)}' for text in context)]
    for k, choice in enumerate(choices):
        right = ' (right)' if k == label else ''
        lines.append(f'{item}{task.word(k)}, {shares[k]:.1%}{right}: {plain(choice)}')
    return lines


# ---------------------------------------------------------------------------------- Markdown


def count_examples(n: int) -> str:
    """'1 example', '60 examples'."""
    return f'{n:,} example' if n == 1 else f'{n:,} examples'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence]) -> list[str]:
    """A Markdown table that is also legible as text. The first column is aligned left."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row):
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f'| {" | ".join(padded)} |'

    rule = [':' + '-' * (widths[0] + 1), *('-' * (width + 1) + ':' for width in widths[1:])]
    return [line(cells[0]), f'|{"|".join(rule)}|', *map(line, cells[1:])]


def picture(name: str, alt: str) -> list[str]:
    """The lines that show a picture of the run's folder."""
    return ['', f'![{alt}]({name}.png)']


# ------------------------------------------------------------------------------ what is printed


def print_metrics(
    task: Task,
    evaluations: list[dict],
    test: dict[str, tuple[list[Example], np.ndarray]],
    valid: dict[str, tuple[list[Example], np.ndarray]] | None = None,
) -> None:
    """Print the scores of the best parameters, as OpenAI's program does for ROCStories at its end.

    test, valid  name of a set -> its examples and their logits [examples, scores]
    """

    def title_of(metric, split):
        title = METRIC_NAMES[metric] if metric == 'accuracy' else metric_title(metric, task)
        return title + suffix(split)

    for column, value in validation_scores(best_evaluation(evaluations, task), task):
        print(f'{task.title} Valid {title_of(column.metric, column.subset)}: {value:.2f}')
    tested = {name: predictions_for(task, *pair) for name, pair in test.items()}
    for score in results(task, tested):
        print(f'{task.title} Test {title_of(score.metric, score.split)}:  {score.value:.2f}')
    for split, part in tested.items():
        if part.labels is None:
            title = METRIC_NAMES[task.metrics[0]] + suffix(split)
            print(f'{task.title} Test {title}:  not known: the test file has no labels')
    validated = {name: predictions_for(task, *pair) for name, pair in (valid or {}).items()}
    for warning in warnings_of(task, *choose_set(tested, validated)):
        print(warning, file=sys.stderr)


def print_next_step(notes: Sequence[str]) -> None:
    """Print what to do after a run on sample data or with the sample model."""
    if any(note.startswith('sample') for note in notes):
        print(
            'next: real files (python download.py, docs/data.md), your own data '
            '(--dataset custom --data_dir FOLDER), or the whole paper (python paper.py)'
        )


def can_compare(
    arguments: dict, task: Task, test: dict[str, tuple[list[Example], np.ndarray]]
) -> bool:
    """Whether a run can be compared with published results.

    It can if it used the complete test set, and all layers of pre-trained weights, and neither are
    our sample. `arguments` are those in the log.
    """
    sizes = {edition[2] for edition in task.archive.editions} if task.archive else set()
    if task.name == 'rocstories':
        sizes = {1871}
    n_test = sum(len(examples) for name, (examples, _) in test.items() if name != 'diagnostic')
    all_layers = arguments.get('n_transfer') == arguments.get('n_layer')
    all_layers &= arguments.get('model', 'transformer') == 'transformer'
    return n_test in sizes and all_layers and not arguments.get('sample')
