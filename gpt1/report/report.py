"""The report of a run, or of a file with labels: text, tables and pictures."""

import functools
import math
import os
import sys
from collections.abc import Sequence

import numpy as np

from gpt1.report import pictures
from gpt1.report.html import write_html
from gpt1.report.intervals import Score, interval, results, wilson
from gpt1.report.log import Log, best_evaluation, columns_of, is_real, metric_title, plain
from gpt1.report.predictions import Predictions, Sets, decode_sets, name_of, text_names, together
from gpt1.tasks.task import Task
from utils import whole_file

N_MISTAKES = 10


def write_report(
    folder: str, log: Log, task: Task, test: Sets, valid: Sets | None = None, notes: Sequence = ()
) -> None:
    """Write report.md, report.html and their pictures of a run of train.py to `folder`."""
    tested, validated = decode_sets(task, test), decode_sets(task, valid)
    analysed, where = choose_set(tested, validated)
    sample, n_cut = log.start.get('sample'), log.start.get('n_cut')
    sample = sample if isinstance(sample, list) else []
    lines = [f'- Data: {plain(note)}' for note in notes]
    if n_cut:
        counts = ', '.join(f'{n:,} {name}' for name, n in n_cut.items())
        rule = task.cut_rule(log.start['n_ctx'])
        lines.append(f'- Cut: {counts} examples are longer: {rule}.')
    lines += report_scores(log.evaluations, task, tested, validated)
    for score in () if sample else task.published:
        title = metric_title(score.metric, split=score.split)
        kind = 'validation' if score.on == 'valid' else 'test'
        value = f'{score.value} %' if score.metric == 'accuracy' else score.value
        text = f"Published, for the whole data set and OpenAI's weights: {kind} {title} {value}"
        lines.append(f'- {text} ({plain(score.who)}).')
    lines += report_training(folder, log, task, validated)
    if analysed is not None:
        lines += ['', f'The sections below analyse the {where}.']
        lines += report_predictions(folder, task, analysed)
    notes = [*sample, *warnings_of(task, analysed, where)]
    write(os.path.join(folder, 'report.md'), log.start.get('desc', task.name), notes, lines)


def write(path: str, title: str, notes: Sequence[str], lines: Sequence[str]) -> None:
    """Write a report, in Markdown and HTML. The notes are what a reader must know first."""
    notes = [line for note in notes for line in (f'**{plain(str(note))}**', '')]
    with whole_file(path) as f:
        f.write('\n'.join([f'# {plain(str(title))}', '', *notes, *lines]) + '\n')
    write_html(path)


def choose_set(tested: dict, validated: dict) -> tuple[Predictions | None, str]:
    """The predictions to analyse, and in words which they are: the test set if it has labels."""
    for kind, sets in (('test', tested), ('validation', validated)):
        known = {name: part for name, part in sets.items() if part.labels is not None}
        if known:
            names = f'sets {" and ".join(known)} together' if len(known) > 1 else 'set'
            return together(list(known.values())), f'{kind} {names}'
    return None, ''


def warnings_of(task: Task, predictions: Predictions | None, where: str) -> list[str]:
    """A warning if classes that occur in a set are never predicted. F1 may hide it."""
    absent = []
    if task.labels and predictions is not None:
        absent = np.setdiff1d(predictions.labels, predictions.values)
    if not len(absent):
        return []
    names = ', '.join(repr(task.labels[i]) for i in absent[:10])
    names += f' and {len(absent) - 10:,} more' if len(absent) > 10 else ''
    verb = 'class {} is' if len(absent) == 1 else 'classes {} are'
    n, of = np.isin(predictions.labels, absent).sum(), count_examples(len(predictions.labels))
    return [
        f'warning: the {verb.format(names)} never predicted, but right for {n:,} of {of} of the '
        f'{where}'
    ]


def validation_scores(evaluation: dict, task: Task) -> list[tuple[str, str, float]]:
    """The validation scores of an evaluation, that of the task's first metric first."""
    scores = [
        (metric, subset, evaluation[name])
        for name, (part, metric, subset) in columns_of(evaluation).items()
        if part == 'validation' and metric != 'cost'
    ]
    return sorted(scores, key=lambda score: score[:2] != (task.metrics[0], ''))


def report_scores(evaluations: list[dict], task: Task, tested: dict, validated: dict) -> list[str]:
    best = best_evaluation(evaluations, task)
    lines = []
    for metric, subset, value in validation_scores(best, task):
        title = plain(f'validation {metric_title(metric, task, subset)}')
        line = f'  - {title}: {format_score(metric, value)}'
        if not lines:
            line = f'- Best {title}: **{format_score(metric, value)}**, after epoch '
            line += f'{best["n_epochs"]} (update {best["n_updates"]:,}).'
        lines.append(line)
    for split, part in tested.items():
        if part.labels is None:
            title = metric_title(task.metrics[0], split=split)
            lines.append(f'- Test {title}: not known, since the test file has no labels.')
    known = describe(results(task, tested), 'Test ')
    return lines + (known or describe(results(task, validated), 'Validation '))


def format_score(metric: str, value: float) -> str:
    """'75.00 %' for accuracy, '0.512' for the cost, '75.00' for the other metrics."""
    if metric == 'cost':
        return f'{value:.3f}'
    if math.isnan(value):
        return 'not defined'
    return f'{value:.2f} %' if metric == 'accuracy' else f'{value:.2f}'


def describe(scores: Sequence[Score], kind: str = '') -> list[str]:
    """Scores with intervals: '- Test accuracy: **75.00 %** (45 of 60 examples); 95 % ...'."""
    lines = []
    for score in scores:
        examples = count_examples(len(score.predictions.values))
        method, (low, high) = 'bootstrap', interval(score)
        if score.metric == 'accuracy':
            method, examples = 'Wilson', f'{score.predictions.right.sum():,} of {examples}'
        ends = 'not defined' if math.isnan(low) else f'{low:.2f} to {high:.2f}'
        title = kind + plain(metric_title(score.metric, score.task, score.split))
        value = format_score(score.metric, score.value)
        line = f'**{value}** ({examples}); 95 % interval ({method}) {ends}.'
        lines.append(f'- {title[0].upper()}{title[1:]}: {line}')
    if lines:
        lines.append(
            '- The intervals say how far a score may move with other examples of the same kind. '
            'Another seed moves it too.'
        )
    return lines


def report_training(folder: str, log: Log, task: Task, validated: dict) -> list[str]:
    columns = columns_of(log.evaluations[0])
    header = ['epoch', 'update']
    header += [plain(f'{part} {metric_title(m, task, s)}') for part, m, s in columns.values()]
    rows = []
    for line in log.evaluations:
        cells = [format_score(metric, line[name]) for name, (_, metric, _) in columns.items()]
        rows.append([line['n_epochs'], f'{line["n_updates"]:,}', *cells])
    best, scores = best_evaluation(log.evaluations, task), results(task, validated)

    def curves(metric, axes):
        updates = [line['n_updates'] for line in log.evaluations]
        for name, (part, kind, subset) in columns.items():
            if kind == metric:
                values = [line[name] for line in log.evaluations]
                label = ', '.join(filter(None, [part, subset]))
                axes.plot(updates, values, 'o-', ms=4, label=label)
        if scores and metric != 'cost':
            kept = best['n_updates'], scores[0].value, *interval(scores[0])
            style = {'fmt': 'none', 'ecolor': 'C1', 'label': 'kept, 95 % interval'}
            pictures.with_interval(axes, *kept, **style)
        titles = {'cost': 'cost of the task', 'accuracy': 'accuracy, %'}
        pictures.finish(axes, titles.get(metric, f'{metric.capitalize()} × 100'))

    lines = ['', '## Training', '', *markdown_table(header, rows)]
    panels = [pictures.loss_panel(log.progress)] if len(log.progress) > 1 else []
    if len(log.evaluations) > 1:  # a curve needs two points
        panels += [functools.partial(curves, metric) for metric in ('cost', task.metrics[0])]
    if panels:
        path = os.path.join(folder, 'training.png')
        pictures.draw(path, 6, max(2.4 * len(panels), 3), *panels)
        lines += picture('training', 'Loss, cost and score by update')
    return lines


def report_predictions(folder: str, task: Task, predictions: Predictions) -> list[str]:
    """The sections about predictions with labels."""
    lines = report_classes(folder, task, predictions) if task.labels else []
    if not is_real(task):
        lines += report_confidence(folder, predictions)
    return lines + report_mistakes(task, predictions)


def report_classes(folder: str, task: Task, predictions: Predictions) -> list[str]:
    """The section of precision and recall; with a confusion matrix if it is not too large."""
    n_classes, labels, values = len(task.labels), predictions.labels, predictions.values
    right, of_labels, predicted = (
        np.bincount(ids, minlength=n_classes) for ids in (labels[predictions.right], labels, values)
    )
    with np.errstate(invalid='ignore'):  # NaN where there are none
        f1 = 2 * right / (of_labels + predicted)
        scores = zip(right / predicted, right / of_labels, f1)
    rows = [
        [plain(name), f'{n:,}', f'{m:,}', *map(percent, some)]
        for name, n, m, some in zip(task.labels, of_labels, predicted, scores)
    ]
    rows.append(['mean (macro F1)', *[''] * 4, percent(np.nanmean(f1))])
    header = ['class', 'examples', 'predictions', 'precision', 'recall', 'F1']
    lines = ['', '## Classes', '', *markdown_table(header, rows)]
    if n_classes <= 20:
        counts = np.zeros((n_classes, n_classes), dtype=int)
        np.add.at(counts, (labels, values), 1)
        pictures.draw_confusion(os.path.join(folder, 'confusion.png'), counts, task.labels)
        lines += picture('confusion', 'Confusion matrix')
    return lines


def report_confidence(folder: str, predictions: Predictions) -> list[str]:
    confidence = predictions.confidence
    lines = [
        *['', '## Confidence', ''],
        f'The mean probability of a prediction is {percent(confidence.mean())}, and '
        f'{percent(predictions.right.mean())} of the predictions are right.',
    ]
    bins = calibrate(confidence, predictions.right)
    if len(bins) > 1:
        pictures.draw_confidence(os.path.join(folder, 'confidence.png'), bins)
        lines += picture('confidence', 'Confidence and calibration')
    return lines


def calibrate(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The `bins` of `pictures.draw_confidence`, ten without those that are empty."""
    which = np.minimum((10 * confidence).astype(int), 9)
    rows = []
    for i in np.unique(which):
        here = which == i
        sure, share = 100 * confidence[here].mean(), 100 * right[here].mean()
        rows.append([sure, share, *wilson(right[here].sum(), here.sum()), here.sum()])
    return np.array(rows)


def report_mistakes(task: Task, predictions: Predictions) -> list[str]:
    """The section of the surest mistakes, or of the largest errors, with their texts."""
    if is_real(task):
        worst = np.argsort(-abs(predictions.values - predictions.labels), kind='stable')
        title = 'The largest errors'
        first = 'The examples with the largest difference of prediction and score:'
    else:
        wrong = np.flatnonzero(~predictions.right)
        worst = wrong[np.argsort(-predictions.confidence[wrong], kind='stable')]
        title, first = 'The surest mistakes', 'There are none.'
        if len(wrong):
            n = len(predictions.values)
            first = f'{len(wrong):,} of {n:,} predictions are wrong. The surest of them:'
    lines = ['', f'## {title}', '', first]
    for rank, i in enumerate(worst[:N_MISTAKES], 1):
        lines += ['', *describe_mistake(task, predictions, rank, i)]
    return lines


def describe_mistake(task: Task, predictions: Predictions, rank: int, i: int) -> list[str]:
    example = predictions.examples[i]
    pair = predictions.values[i], predictions.labels[i]
    if is_real(task):
        predicted, right = (f'{value:.2f}' for value in pair)
    else:
        shares = predictions.shares[i]
        predicted, right = (f'{plain(name_of(task, k))} ({percent(shares[k])})' for k in pair)
    first = f'{rank}. '  # Markdown wants all that follows below its first word
    lines = [f'{first}Example {plain(example.id)}: predicted {predicted}, right is {right}']
    names = text_names(task, len(example.texts))
    if task.layout == 'choices':
        for k in range(len(names) - task.n_context):
            mark = ' (right)' if k == pair[1] else ''
            names[task.n_context + k] = f'{name_of(task, k)}, {percent(shares[k])}{mark}'
    texts = zip(names, example.texts, strict=True)
    return lines + [f'{" " * len(first)}- {name}: {plain(text)}' for name, text in texts]


def count_examples(n: int) -> str:
    """'1 example', '60 examples'."""
    return f'{n:,} example' if n == 1 else f'{n:,} examples'


def percent(share: float) -> str:
    """'93.2 %'; a dash where it is not defined."""
    return '–' if math.isnan(share) else f'{100 * share:.1f} %'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence]) -> list[str]:
    """A Markdown table that is also legible as text. The first column is aligned left."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = []
    for first, *others in cells:
        padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(f'| {" | ".join([first.ljust(widths[0]), *padded])} |')
    rule = [':' + '-' * (widths[0] + 1), *('-' * (width + 1) + ':' for width in widths[1:])]
    return [lines[0], f'|{"|".join(rule)}|', *lines[1:]]


def picture(name: str, alt: str) -> list[str]:
    """The lines that show a picture of the run's folder."""
    return ['', f'![{alt}]({name}.png)']


def print_metrics(task: Task, evaluations: list[dict], test: Sets, valid: Sets | None = None):
    """Print the scores of the best parameters, as OpenAI's program does for ROCStories."""
    tested = decode_sets(task, test)
    best = validation_scores(best_evaluation(evaluations, task), task)
    scores = [('Valid', metric, subset, f' {value:.2f}') for metric, subset, value in best]
    scores += [('Test', s.metric, s.split, f'  {s.value:.2f}') for s in results(task, tested)]
    unknown = [name for name, part in tested.items() if part.labels is None]
    text = '  not known: the test file has no labels'
    scores += [('Test', task.metrics[0], name, text) for name in unknown]
    for kind, metric, split, text in scores:
        title = metric_title(metric, task, split)
        title = title.capitalize() if metric == 'accuracy' else title
        print(f'{task.title} {kind} {title}:{text}')
    for warning in warnings_of(task, *choose_set(tested, decode_sets(task, valid))):
        print(warning, file=sys.stderr)


def print_next_step(notes: Sequence[str]) -> None:
    """Print what to do after a run on sample data or with the sample model."""
    if any(note.startswith('sample') for note in notes):
        print(
            'next: real files (python download.py, docs/data.md), your own data '
            '(--dataset custom --data_dir FOLDER), or the whole paper (python paper.py)'
        )
