"""The report of a run: text, tables and pictures."""

import math
import os
import sys
from collections.abc import Sequence

import numpy as np

from gpt1.report import pictures
from gpt1.report.intervals import (
    Result,
    confusion,
    format_interval,
    format_metric,
    interval,
    results,
    suffix,
    wilson,
    with_unit,
)
from gpt1.report.log import (
    METRIC_NAMES,
    best_evaluation,
    figure_names,
    figure_title,
    is_real,
    log_name,
    metric_of,
    metric_title,
    plain,
    set_title,
)
from gpt1.report.pictures import Measured
from gpt1.report.predictions import Predictions, name_of, predictions_for, together
from gpt1.tasks.task import Example, Published, Task
from utils import whole_file

PUBLISHED_EPOCHS = {
    # Training and validation accuracy in % after each epoch, of the reproduction that this one
    # started from.
    'rocstories': ((74.87, 74.06), (86.90, 83.42), (92.51, 87.43)),
}


N_BINS = 10  # of the calibration


N_GROUPS = 5  # of the lengths


N_MISTAKES = 10


MAX_CLASSES = 20  # in the picture of the confusion matrix


def bins(values: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """The indices of the values in each bin. The last bin includes its upper edge."""
    which = np.clip(np.searchsorted(edges, values, side='right') - 1, 0, len(edges) - 2)
    return [np.flatnonzero(which == i) for i in range(len(edges) - 1)]


def confidence_edges(n_classes: int) -> np.ndarray:
    """The edges of N_BINS bins, from about the lowest probability that a prediction can have."""
    return np.linspace(math.floor(10 / n_classes) / 10, 1, N_BINS + 1)


def calibrate(predictions: Predictions, edges: np.ndarray) -> tuple[np.ndarray, float]:
    """How often predictions are right, by their confidence.

    Returns [bins that are not empty, 4]: the mean confidence, and the accuracy in % with its
    interval; and the expected calibration error (Guo et al., 2017), the mean distance of
    confidence and accuracy.
    """
    confidence = predictions.confidence
    groups = [group for group in bins(confidence, edges) if len(group)]
    n = np.array([len(group) for group in groups])
    n_right = np.array([predictions.right[group].sum() for group in groups])
    mean = np.array([confidence[group].mean() for group in groups])
    error = (n * abs(mean - n_right / n)).sum() / n.sum()
    limits = np.array([wilson(*pair) for pair in zip(n_right, n, strict=True)])
    return np.column_stack([mean, 100 * n_right / n, limits]), float(error)


def count_words(example: Example) -> int:
    return sum(len(text.split()) for text in example.texts)


def by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """The indices of up to N_GROUPS groups of about the same size, from short to long texts."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, N_GROUPS + 1)).round())
    if len(edges) == 1:
        return [np.arange(len(lengths))]
    return [group for group in bins(lengths, edges) if len(group)]


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
    """Write report.md and its pictures to `folder`.

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
        *report_scores(folder, evaluations, task, tested, validated, published),
        *report_training(folder, evaluations, task, published),
    ]
    unknown = {name: part for name, part in tested.items() if part.labels is None}
    if unknown:
        lines += report_unknown(folder, task, unknown, validated)
    if analysed is not None:
        if where.startswith('validation'):
            lines += ['', f'The sections below analyse the {where}, whose labels are known.']
        if is_real(task):
            lines += report_numbers(folder, analysed, where)
        else:
            if task.labels:
                lines += report_classes(folder, task, analysed, where)
            lines += report_confidence(folder, analysed, where)
        lines += report_lengths(folder, task, analysed, where)
        lines += report_mistakes(task, analysed, where)
    with whole_file(os.path.join(folder, 'report.md')) as f:
        f.write('\n'.join(lines) + '\n')


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


def report_scores(
    folder: str,
    evaluations: list[dict],
    task: Task,
    tested: dict[str, Predictions],
    validated: dict[str, Predictions],
    published: bool,
) -> list[str]:
    """The first section: the scores, their intervals, and published results."""
    best = best_evaluation(evaluations, task)
    first, *others = [f'va_{name}' for name in validation_figures(best, task)]
    lines = [
        f'- Best {figure_title(first, task)}: **{format_figure(first, best[first])}**, '
        f'after epoch {best["n_epochs"]} (update {best["n_updates"]:,}).'
    ]
    lines += [
        f'  - {figure_title(name, task)}: {format_figure(name, best[name])}' for name in others
    ]
    rows = []
    for result in results(task, tested):
        limits = interval(result)
        lines.append(f'- Test {plain(result.title)}: {describe(result, limits)}')
        figures = published_figures(task, 'test', result) if published else []
        lines += compare(figures, limits)
        if figures and result.metric == task.metrics[0]:
            place = suffix(result.split)
            rows.append(Measured(f'this run{place}', result.value, *limits))
            rows += [Measured(f.who + place, f.value, math.nan, math.nan) for f in figures]
    for split, part in tested.items():
        if part.labels is None:
            lines += not_known(task, split, published)
    if not any(part.labels is not None for part in tested.values()):
        for result in results(task, validated):
            limits = interval(result)
            lines.append(f'- Validation {plain(result.title)}: {describe(result, limits)}')
            if published:
                lines += compare(published_figures(task, 'valid', result), limits)
    if task.published and not published:
        lines.append(
            '- Not compared with published results: they hold for the complete data set and '
            "OpenAI's weights."
        )
    if rows:
        pictures.draw_scores(os.path.join(folder, 'test.png'), rows, with_unit(task.metrics[0]))
        lines += picture('test', 'Test scores beside published results')
    return lines


def validation_figures(evaluation: dict, task: Task) -> list[str]:
    """The names of the validation metrics without `va_`, the first metric of the task first."""
    names = [name[3:] for name in figure_names(evaluation) if name.startswith('va_')]
    first = log_name(task.metrics[0])
    others = [name for name in names if name != first and not name.startswith('cost')]
    return [first, *others]


def format_figure(name: str, value: float) -> str:
    """A figure of the log as text: `name` says which."""
    metric = name[3:].partition('_')[0]
    return f'{value:.3f}' if metric == 'cost' else format_metric(metric_of(metric), value)


def describe(result: Result, limits: tuple[float, float]) -> str:
    """'**75.00 %** (45 of 60 examples); 95 % interval 62.77 to 84.22.'"""
    examples = count_examples(len(result.predictions.values))
    if result.metric == 'accuracy':
        examples = f'{result.predictions.right.sum():,} of {examples}'
    return f'**{result}** ({examples}); 95 % interval {format_interval(*limits)}.'


def published_figures(task: Task, kind: str, result: Result) -> list[Published]:
    """What others found on this set of the `kind` 'test' or 'valid', with this metric."""
    wanted = (kind, result.split, result.metric)
    return [
        figure for figure in task.published if (figure.on, figure.split, figure.metric) == wanted
    ]


def compare(figures: list[Published], limits: tuple[float, float]) -> list[str]:
    """Published figures as lines, which say whether they are in the interval of this run."""
    lines = []
    for figure in figures:
        line = f'  - {format_published(figure)}'
        if not math.isnan(limits[0]):
            is_inside = limits[0] <= figure.value <= limits[1]
            line += ': inside the interval.' if is_inside else ': outside the interval.'
        lines.append(line)
    return lines


def format_published(figure: Published) -> str:
    """'86.5 % (paper)', with as many digits as it was published with."""
    unit = ' %' if figure.metric == 'accuracy' else ''
    return f'{figure.value}{unit} ({plain(figure.who)})'


def not_known(task: Task, split: str, published: bool) -> list[str]:
    """The lines for a test set without labels."""
    title = metric_title(task.metrics[0]) + suffix(split)
    lines = [f'- Test {title}: not known, since the test file has no labels.']
    if published:
        figures = [
            figure for figure in task.published if (figure.on, figure.split) == ('test', split)
        ]
        lines += [
            f'  - Published {metric_title(figure.metric)}: {format_published(figure)}.'
            for figure in figures
        ]
    return lines


def report_training(folder: str, evaluations: list[dict], task: Task, published: bool) -> list[str]:
    """The section of costs and metrics by epoch."""
    names = figure_names(evaluations[0])
    header = ['epoch', 'update', *(figure_title(name, task) for name in names)]
    rows = [
        [
            line['n_epochs'],
            f'{line["n_updates"]:,}',
            *(format_figure(name, line[name]) for name in names),
        ]
        for line in evaluations
    ]
    lines = ['', '## Training', '', *markdown_table(header, rows)]
    known = {}
    if published and task.name in PUBLISHED_EPOCHS:
        train, valid = zip(*PUBLISHED_EPOCHS[task.name], strict=True)
        known = {'training': train, 'validation': valid}
        epochs = [
            f'after epoch {i}, training accuracy {a:.2f} %, validation accuracy {b:.2f} %'
            for i, (a, b) in enumerate(zip(train, valid, strict=True), 1)
        ]
        lines += [
            '',
            f'Published, of the reproduction that this one started from: {"; ".join(epochs)}.',
        ]
    last = evaluations[-1]
    epochs_per_update = last['n_epochs'] / max(last['n_updates'], 1)

    def curves(metric):
        chosen = [name for name in names if name[3:].partition('_')[0] == metric]
        return {set_title(name): [line[name] for line in evaluations] for name in chosen}

    pictures.draw_training(
        os.path.join(folder, 'training.png'),
        epochs=[line['n_updates'] * epochs_per_update for line in evaluations],
        costs=curves('cost'),
        scores=curves(log_name(task.metrics[0])),
        title=with_unit(task.metrics[0]),
        published=known,
    )
    return [*lines, *picture('training', 'Cost and score by epoch')]


def report_unknown(
    folder: str, task: Task, unknown: dict[str, Predictions], validated: dict[str, Predictions]
) -> list[str]:
    """The section of test sets without labels: the distribution of the predictions."""
    lines = [
        '',
        '## Predictions for the test set',
        '',
        'The labels of the test set are not known. These are the predictions:',
        '',
    ]
    known = {f'validation{suffix(name)}, labels': part for name, part in validated.items()}
    known = {name: part for name, part in known.items() if part.labels is not None}
    path = os.path.join(folder, 'predictions.png')
    shown = {f'test{suffix(name)}': part.values for name, part in unknown.items()}
    shown |= {name: part.labels for name, part in known.items()}
    if is_real(task):
        header = ['set', 'examples', 'mean', 'standard deviation', 'lowest', 'median', 'highest']
        rows = []
        for name, values in shown.items():
            figures = (values.mean(), values.std(), values.min(), np.median(values), values.max())
            rows.append([name, f'{len(values):,}', *(f'{figure:.3f}' for figure in figures)])
        pictures.draw_values(
            path, {f'predictions{suffix(name)}': part.values for name, part in unknown.items()}
        )
    else:
        header = ['class' if task.labels else 'choice', *shown]
        n_rows = max(part.shares.shape[1] for part in (*unknown.values(), *known.values()))
        counts = [np.bincount(values, minlength=n_rows) for values in shown.values()]
        rows = [
            [plain(name_of(task, i)), *(f'{c[i]:,} ({c[i] / c.sum():.1%})' for c in counts)]
            for i in range(n_rows)
        ]
        confidence = together(list(unknown.values())).confidence
        pictures.draw_confidence(path, confidence, None, confidence_edges(n_rows), None)
    return [
        *lines,
        *markdown_table(header, rows),
        *picture('predictions', 'Distribution of the predictions'),
    ]


def heading(title: str, where: str) -> list[str]:
    """The heading of a section. It names the set, except for a single test set."""
    return ['', f'## {title}' if where == 'test set' else f'## {title} ({where})', '']


def percentage(part: int, whole: int) -> str:
    return f'{100 * part / whole:.2f} %' if whole else '–'


def report_classes(folder: str, task: Task, predictions: Predictions, where: str) -> list[str]:
    """The section of the confusion matrix."""
    counts = confusion(predictions.labels, predictions.values, len(task.labels))
    names = [plain(name) for name in task.labels]
    right = counts.diagonal()
    n_labels, n_predicted = counts.sum(1), counts.sum(0)
    rows = [
        [
            name,
            f'{n_labels[i]:,}',
            f'{n_predicted[i]:,}',
            percentage(right[i], n_predicted[i]),
            percentage(right[i], n_labels[i]),
        ]
        for i, name in enumerate(names)
    ]
    header = ['class', 'examples', 'predictions', 'precision', 'recall']
    lines = [*heading('Classes', where), *markdown_table(header, rows)]
    if len(names) <= MAX_CLASSES:
        pictures.draw_confusion(os.path.join(folder, 'confusion.png'), counts, task.labels)
        return [*lines, *picture('confusion', 'Confusion matrix')]
    wrong = counts - np.diag(right)
    pairs = np.argsort(-wrong, axis=None, kind='stable')[:N_MISTAKES]
    rows = [
        [names[label], names[prediction], f'{wrong[label, prediction]:,}']
        for label, prediction in zip(*np.unravel_index(pairs, wrong.shape), strict=True)
        if wrong[label, prediction]
    ]
    lines += ['', 'The most frequent mistakes:', '']
    return [*lines, *markdown_table(['class', 'prediction', 'examples'], rows)]


def report_confidence(folder: str, predictions: Predictions, where: str) -> list[str]:
    """The section of confidence and calibration."""
    confidence = predictions.confidence
    right = predictions.right
    edges = confidence_edges(predictions.shares.shape[1])
    calibration, error = calibrate(predictions, edges)
    path = os.path.join(folder, 'confidence.png')
    pictures.draw_confidence(path, confidence, right, edges, calibration)
    return [
        *heading('Confidence', where),
        f'The model gives its prediction a probability of {confidence.mean():.3f} on average '
        f'(median {np.median(confidence):.3f}). {right.mean():.3f} of the predictions are right. '
        f'The expected calibration error, over {N_BINS} bins, is {error:.3f}.',
        *picture('confidence', 'Confidence and calibration'),
    ]


def report_numbers(folder: str, predictions: Predictions, where: str) -> list[str]:
    """The section of predicted and given scores."""
    labels, values = predictions.labels, predictions.values
    errors = values - labels
    pictures.draw_scatter(os.path.join(folder, 'scatter.png'), labels, values)
    return [
        *heading('Predictions and scores', where),
        f'The mean score is {labels.mean():.3f} (standard deviation {labels.std():.3f}), the mean '
        f'prediction {values.mean():.3f} (standard deviation {values.std():.3f}). The mean '
        f'absolute error is {abs(errors).mean():.3f}, the root mean squared error '
        f'{math.sqrt((errors**2).mean()):.3f}.',
        *picture('scatter', 'Predictions and scores'),
    ]


def report_lengths(folder: str, task: Task, predictions: Predictions, where: str) -> list[str]:
    """The section of the first metric by the length of the texts."""
    metric = task.metrics[0]
    lengths = np.array([count_words(example) for example in predictions.examples])
    groups = []
    rows = []
    for indices in by_length(lengths):
        part = predictions.take(indices)
        result = Result('', metric, task.score(metric, part.labels, part.values), part, task)
        low, high = interval(result)
        group = lengths[indices]
        words = f'{group.min()} to {group.max()}' if np.ptp(group) else str(group.min())
        name = f'{words}\n{count_examples(len(group))}'
        groups.append(Measured(name, result.value, low, high))
        rows.append([words, f'{len(group):,}', str(result), format_interval(low, high)])
    overall = task.score(metric, predictions.labels, predictions.values)
    path = os.path.join(folder, 'length.png')
    pictures.draw_lengths(path, groups, with_unit(metric), overall)
    header = ['words in all texts', 'examples', metric_title(metric), '95 % interval']
    return [
        *heading('Length', where),
        *markdown_table(header, rows),
        *picture('length', f'{METRIC_NAMES[metric]} by length'),
    ]


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


def print_metrics(
    task: Task,
    evaluations: list[dict],
    test: dict[str, tuple[list[Example], np.ndarray]],
    valid: dict[str, tuple[list[Example], np.ndarray]] | None = None,
) -> None:
    """Print the metrics of the best parameters, as OpenAI's program does for ROCStories at its end.

    test, valid  name of a set -> its examples and their logits [examples, scores]
    """

    def title_of(metric):
        return METRIC_NAMES[metric] if metric == 'accuracy' else metric_title(metric, task)

    best = best_evaluation(evaluations, task)
    for name in validation_figures(best, task):
        metric, _, split = name.partition('_')
        title = title_of(metric_of(metric))
        value = best[f'va_{name}']
        print(f'{task.title} Valid {title}{suffix(split or "valid")}: {value:.2f}')
    tested = {name: predictions_for(task, *pair) for name, pair in test.items()}
    for result in results(task, tested):
        title = title_of(result.metric) + suffix(result.split)
        print(f'{task.title} Test {title}:  {result.value:.2f}')
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
