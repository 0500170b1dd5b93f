"""From a run's log and predictions to the figures, pictures and texts a person reads.

    python analysis.py --desc rocstories
    python analysis.py --desc seed1 seed2 seed3

writes analysis/<desc>/report.md and its pictures, as train.py --analysis does; of several runs, also prints the median and the spread.
"""

import csv
import json
import os
import re
import statistics
import sys

import numpy as np

from datasets import find_csv, read_cloze_test
from utils import InputError, Parser, check_writable, exit_status, whole_file

COLUMNS = ['id', 'score1', 'score2', 'probability', 'prediction', 'label']  # of predictions.csv
PUBLISHED = {  # accuracy on the 1,871 stories of the Story Cloze test set, in %
    'paper, one run': 86.5,
    'original code, median of 10 runs': 85.8,
    'an earlier PyTorch port, one run': 85.84,
    'the reproduction this one started from': 84.18,
}
PUBLISHED_EPOCHS = (
    (74.87, 74.06),
    (86.90, 83.42),
    (92.51, 87.43),
)  # training and validation accuracy in % after each epoch, of the last of these
TEST_STORIES = 1871
N_MISTAKES = 10


# ---------------------------------------------------------------------------------------------------------------- files


def read_log(path):
    """A run's arguments (the first line of its log) and its evaluations, one dict each. Raises InputError."""
    try:
        with open(path, encoding='utf-8') as f:
            arguments, *evaluations = map(json.loads, f)
    except OSError as error:
        raise InputError(f'cannot read the log {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'{path} is no log of train.py: expected a JSON object on each line'
        ) from error
    numbers = ('n_epochs', 'n_updates', 'tr_cost', 'va_cost', 'tr_acc', 'va_acc')
    if not isinstance(arguments, dict) or not all(
        isinstance(line, dict)
        and all(type(line.get(name)) in (int, float) and abs(line[name]) < 1e30 for name in numbers)
        for line in evaluations
    ):
        raise InputError(
            f'{path} is no log of train.py: after the first line, expected {", ".join(numbers)} on each'
        )
    if not evaluations:
        raise InputError(f'{path} has no evaluation yet: its run did not reach the end of an epoch')
    return arguments, evaluations


def read_predictions(path):
    """The predictions, 0 or 1, of a submission file, in the order of its lines. Raises InputError."""
    try:
        with open(path, encoding='utf-8', newline='') as f:
            header, *rows = csv.reader(f, delimiter='\t')
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, csv.Error) as error:
        raise InputError(f'{path} is not a submission ({str(error)[:80]})') from error
    if header != ['index', 'prediction']:
        raise InputError(f'{path}, line 1: expected the header "index", tab, "prediction"')
    for i, row in enumerate(rows):
        if row not in ([str(i), '0'], [str(i), '1']):
            raise InputError(f'{path}, line {i + 2}: expected {i}, tab, 0 or 1')
    return [int(prediction) for _, prediction in rows]


def write_predictions(f, ids, labels, scores):
    """Write predictions.csv: the stories' ids, the classifier's scores [stories, 2], the probability of the ending it predicts, that ending (0 or 1),
    and the right one."""
    writer = csv.writer(f, lineterminator='\n')
    writer.writerow(COLUMNS)
    scores = np.asarray(scores)
    for name, pair, p, prediction, label in zip(
        ids, scores, confidence(scores), scores.argmax(1), labels
    ):
        writer.writerow(
            [
                name,
                *(f'{score:.9g}' for score in pair),
                f'{p:.6f}',
                prediction,
                label if label >= 0 else '',
            ]
        )


def read_scores(path, stories):
    """The scores in a predictions.csv of these stories, [stories, 2]. Raises InputError."""
    try:
        with open(path, encoding='utf-8', newline='') as f:
            rows = list(csv.reader(f))
    except OSError as error:
        raise InputError(
            f'cannot read {path}: {error.strerror}; train.py writes it with --submit'
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f'{path} is not a CSV file ({error})') from error
    if not rows or rows[0] != COLUMNS:
        raise InputError(f'{path}, row 1: expected the header {",".join(COLUMNS)}')
    if [row[:1] for row in rows[1:]] != [[name] for name in stories.id]:
        raise InputError(f'{path} has the predictions of other stories than those of the test file')
    try:
        scores = np.array([row[1:3] for row in rows[1:]], dtype=np.float32)
        if scores.shape != (len(stories.id), 2) or not np.isfinite(scores).all():
            raise ValueError
    except ValueError as error:
        raise InputError(f'{path}: score1 and score2 should be numbers') from error
    return scores


def read_run(folder, log_path, data_dir=None):
    """What `write_report` needs of a run that has ended: its arguments, evaluations, test stories and their scores. Raises InputError."""
    arguments, evaluations = read_log(log_path)
    stories = read_cloze_test(
        find_csv(data_dir or str(arguments.get('data_dir', 'data/')), 'test'), need_labels=False
    )
    return (
        arguments,
        evaluations,
        stories,
        read_scores(os.path.join(folder, 'predictions.csv'), stories),
    )


# -------------------------------------------------------------------------------------------------------------- figures


def confidence(scores):
    """The probability of the likelier ending, [stories]: the larger of the softmax over both scores."""
    return 1 / (1 + np.exp(-abs(scores[:, 0].astype(float) - scores[:, 1])))


def wilson(right, n, z=1.959964):
    """The 95 % interval of a share of which `right` of `n` were seen, in % (Wilson's)."""
    p, shrink = right / n, 1 + z * z / n
    middle, half = (
        (p + z * z / (2 * n)) / shrink,
        z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink,
    )
    return 100 * (middle - half), 100 * (middle + half)


def bins(values, edges):
    """The indices that fall into each bin; the last one includes its upper edge."""
    which = np.clip(np.searchsorted(edges, values, side='right') - 1, 0, len(edges) - 2)
    return [np.flatnonzero(which == i) for i in range(len(edges) - 1)]


def print_accuracies(evaluations, predictions, labels):
    """The two lines that OpenAI's program ends with."""
    print(f'ROCStories Valid Accuracy: {max(line["va_acc"] for line in evaluations):.2f}')
    if -1 in labels:
        print('ROCStories Test Accuracy:  not known: the test file has no labels')
    else:
        print(
            f'ROCStories Test Accuracy:  {100 * sum(p == label for p, label in zip(predictions, labels, strict=True)) / len(labels):.2f}'
        )


def rocstories(data_dir, submission_path, log_path):
    """Print the best validation accuracy of the log and the test accuracy of the submission, in % (`analysis.rocstories` of the original).

    Raises InputError.
    """
    labels = read_cloze_test(find_csv(data_dir, 'test'), need_labels=False).label
    predictions = read_predictions(submission_path)
    if len(predictions) != len(labels):
        raise InputError(
            f'{submission_path} has {len(predictions)} predictions, but the test file has {len(labels)} stories'
        )
    print_accuracies(read_log(log_path)[1], predictions, labels)


# ------------------------------------------------------------------------------------------------------------- pictures


def draw(path, width, height, *panels):
    """Draw panels side by side into a PNG file. Each is a function of its axes."""
    from matplotlib.figure import (
        Figure,
    )  # here, since it takes its time; and not pyplot, which wants a screen and keeps state

    figure = Figure(figsize=(width, height), layout='constrained', dpi=120)
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels):
        axes.spines[['top', 'right']].set_visible(False)
        panel(axes)
    with whole_file(path, 'wb') as f:
        figure.savefig(f, format='png')


def draw_training(path, evaluations, published):
    """Cost and accuracy by epoch; with `published`, beside the reproduction of which these figures are known."""
    last = evaluations[-1]
    epochs = [
        line['n_updates'] * last['n_epochs'] / max(last['n_updates'], 1) for line in evaluations
    ]

    def panel(axes, name, title):
        for split, label, color in (
            ('tr', 'training', 'tab:blue'),
            ('va', 'validation', 'tab:orange'),
        ):
            axes.plot(
                epochs,
                [line[f'{split}_{name}'] for line in evaluations],
                'o-',
                color=color,
                label=label,
            )
            if published and name == 'acc':
                axes.plot(
                    [1, 2, 3],
                    [pair[split == 'va'] for pair in PUBLISHED_EPOCHS],
                    'o--',
                    color=color,
                    alpha=0.35,
                    mfc='white',
                    label=f'{label}, published',
                )
        axes.set(
            title=title,
            xlabel='epochs',
            xticks=range(
                0 if min(epochs) < 1 else 1, max(3 if published else 1, last['n_epochs']) + 1
            ),
        )
        axes.grid(axis='y', alpha=0.3)
        axes.legend(frameon=False)

    def cost(axes):
        panel(axes, 'cost', 'classification cost')
        axes.set_ylim(
            0, 1.1 * max(max(line['tr_cost'], line['va_cost']) for line in evaluations) or 1
        )

    draw(path, 9, 3.6, cost, lambda axes: panel(axes, 'acc', 'accuracy, %'))


def draw_test(path, accuracy, interval):
    """This run's test accuracy and its interval, beside the published results."""

    def panel(axes):
        names = ['this run', *PUBLISHED]
        axes.errorbar(
            [accuracy],
            [0],
            xerr=[[accuracy - interval[0]], [interval[1] - accuracy]],
            fmt='o',
            color='tab:blue',
            capsize=4,
        )
        axes.axvspan(*interval, color='tab:blue', alpha=0.1, lw=0)
        axes.plot(list(PUBLISHED.values()), range(1, len(names)), 'o', color='0.4')
        for y, value in enumerate([round(accuracy, 2), *PUBLISHED.values()]):
            axes.annotate(
                str(value), (value, y), (0, 6), textcoords='offset points', ha='center', fontsize=9
            )
        axes.set(
            title='test accuracy, %, with its 95 % interval',
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(len(names) - 0.5, -0.7),
        )
        axes.margins(x=0.15)

    draw(path, 7.5, 2.8, panel)


def draw_confidence(path, p, right):
    """How sure the model is, and, where the right endings are known, how often it is right when so sure."""
    edges = np.linspace(0.5, 1, 11)

    def histogram(axes):
        if right is None:
            axes.hist(p, edges, color='tab:blue', rwidth=0.9)
        else:
            axes.hist(
                [p[right], p[~right]],
                edges,
                stacked=True,
                color=['tab:blue', 'tab:red'],
                rwidth=0.9,
                label=['right', 'wrong'],
            )
            axes.legend(frameon=False, loc='upper left')
        axes.set(
            title='how sure it is',
            xlabel='probability of the predicted ending',
            ylabel='stories',
            xlim=(0.5, 1),
        )

    def calibration(axes):
        found = [i for i in bins(p, edges) if len(i)]
        x, y = (
            np.array([p[i].mean() for i in found]),
            np.array([100 * right[i].mean() for i in found]),
        )
        low, high = np.array([wilson(right[i].sum(), len(i)) for i in found]).T
        axes.plot([0.5, 1], [50, 100], '--', color='0.6', label='as sure as right')
        axes.errorbar(
            x,
            y,
            yerr=np.clip([y - low, high - y], 0, None),
            fmt='o',
            color='tab:blue',
            capsize=3,
            label='right, and 95 % interval',
        )
        axes.set(
            title='how often it is then right, %',
            xlabel='probability of the predicted ending',
            xlim=(0.48, 1.02),
        )
        axes.legend(frameon=False, loc='lower right')

    draw(
        path, 9 if right is not None else 5, 3.6, *[histogram] + [calibration] * (right is not None)
    )


def by_length(stories, right):
    """Accuracy by the words of story and endings, in five groups of about as many stories: (shortest, longest, right, stories) of each."""
    lengths = np.array(
        [
            sum(len(text.split()) for text in texts)
            for texts in zip(stories.story, stories.ending1, stories.ending2)
        ]
    )
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 6)).round())
    groups = bins(lengths, edges) if len(edges) > 1 else [np.arange(len(lengths))]
    return [
        (int(lengths[i].min()), int(lengths[i].max()), int(right[i].sum()), len(i))
        for i in groups
        if len(i)
    ]


def draw_lengths(path, groups, accuracy):
    def panel(axes):
        y = np.array([100 * right / n for _, _, right, n in groups])
        low, high = np.array([wilson(right, n) for _, _, right, n in groups]).T
        axes.errorbar(
            range(len(groups)),
            y,
            yerr=np.clip([y - low, high - y], 0, None),
            fmt='o',
            color='tab:blue',
            capsize=4,
        )
        axes.axhline(accuracy, color='0.6', ls='--', lw=1)
        axes.set(
            title='accuracy by length, %, with 95 % intervals (dashed: all stories)',
            xlabel='words of the story and both endings',
            xticks=range(len(groups)),
            xticklabels=[f'{a}–{b}\n{n:,} stories' for a, b, _, n in groups],
        )
        axes.margins(x=0.1)

    draw(path, 7, 3.4, panel)


# --------------------------------------------------------------------------------------------------------------- report


def plain(text):
    """A text as Markdown that shows it as it is, on one line."""
    return re.sub(r'([\\`*_<>|#\[\]~])', r'\\\1', ' '.join(text.split()))


def write_report(folder, arguments, evaluations, stories, scores):
    """Write report.md and its pictures.

    arguments, evaluations  of the run's log
    stories, scores         the test set, `datasets.Stories`, with the classifier's scores [stories, 2]; labels of -1 are not known
    """
    scores, labels = np.asarray(scores), np.array(stories.label)
    p, predictions, n = confidence(scores), scores.argmax(1), len(labels)
    known, notes = -1 not in labels, arguments.get('sample')
    notes = (
        list(map(str, notes)) if isinstance(notes, list) else []
    )  # that stories or weights are our sample
    best = max(evaluations, key=lambda line: line['va_acc'])
    published = known and not notes and n == TEST_STORIES
    lines = [
        f'# {plain(str(arguments.get("desc", "run")))}',
        '',
        *(line for note in notes for line in (f'**{plain(note)}**', '')),
        f'- Best validation accuracy: **{best["va_acc"]:.2f} %**, after epoch {best["n_epochs"]} (update {best["n_updates"]:,}).',
    ]

    def picture(name, alt):
        lines.extend(['', f'![{alt}]({name}.png)'])
        return os.path.join(folder, f'{name}.png')

    if known:
        right = predictions == labels
        accuracy, interval = 100 * right.mean(), wilson(right.sum(), n)
        lines.append(
            f'- Test accuracy: **{accuracy:.2f} %** ({right.sum():,} of {n:,} stories); 95 % interval {interval[0]:.2f} to {interval[1]:.2f}.'
        )
        if published:
            lines.extend(
                f'  - {value} % ({name}): {"inside" if interval[0] <= value <= interval[1] else "outside"} the interval.'
                for name, value in PUBLISHED.items()
            )
            draw_test(picture('test', 'Test accuracy beside published results'), accuracy, interval)
        elif not notes:
            lines.append(
                f'- Not compared with published results: those are for the {TEST_STORIES:,} stories of the Story Cloze test set.'
            )
    else:
        lines.append('- Test accuracy: not known, since the test file has no labels.')
    lines.extend(
        [
            '',
            '## Training',
            '',
            '| epoch | update | training cost | validation cost | training accuracy | validation accuracy |',
            '|--:|--:|--:|--:|--:|--:|',
        ]
    )
    lines.extend(
        '| {n_epochs} | {n_updates:,} | {tr_cost:.3f} | {va_cost:.3f} | {tr_acc:.2f} % | {va_acc:.2f} % |'.format(
            **line
        )
        for line in evaluations
    )
    if published:
        epochs = (
            f'after epoch {i}, training accuracy {train:.2f} %, validation accuracy {valid:.2f} %'
            for i, (train, valid) in enumerate(PUBLISHED_EPOCHS, 1)
        )
        lines.extend(
            ['', f'Published, of the reproduction this one started from: {"; ".join(epochs)}.']
        )
    draw_training(picture('training', 'Cost and accuracy by epoch'), evaluations, published)

    lines.extend(
        [
            '',
            '## Confidence',
            '',
            f'The model gives the ending it predicts a probability of {p.mean():.3f} on average (median {np.median(p):.3f}).',
        ]
    )
    if known:
        error = (
            sum(
                len(i) * abs(p[i].mean() - right[i].mean())
                for i in bins(p, np.linspace(0.5, 1, 11))
                if len(i)
            )
            / n
        )
        lines[-1] += (
            f' It is right in {right.mean():.3f} of the stories; expected calibration error, over ten bins: {error:.3f}.'
        )
    draw_confidence(
        picture('confidence', 'Confidence and calibration'), p, right if known else None
    )
    if known:
        groups = by_length(stories, right)
        lines.extend(
            [
                '',
                '## Length',
                '',
                '| words of the story and both endings | stories | accuracy | 95 % interval |',
                '|--:|--:|--:|--:|',
            ]
        )
        lines.extend(
            f'| {a} to {b} | {n:,} | {100 * r / n:.2f} % | {low:.2f} to {high:.2f} |'
            for a, b, r, n in groups
            for low, high in [wilson(r, n)]
        )
        draw_lengths(picture('length', 'Accuracy by length'), groups, accuracy)
        wrong = np.flatnonzero(~right)
        surest = wrong[np.argsort(-p[wrong], kind='stable')][:N_MISTAKES]
        lines.extend(
            [
                '',
                '## The surest mistakes',
                '',
                f'{len(wrong):,} predictions are wrong. The surest of them:'
                if len(wrong)
                else 'There are none.',
            ]
        )
        for rank, i in enumerate(surest, 1):
            lines.extend(['', f'{rank}. {plain(stories.story[i])}'])
            for k, ending in enumerate((stories.ending1[i], stories.ending2[i])):
                share = p[i] if predictions[i] == k else 1 - p[i]
                lines.append(
                    f'   - {share:.1%}{" (right)" if labels[i] == k else ""}: {plain(ending)}'
                )
            lines.append(f'   - story {plain(stories.id[i])}')
    with whole_file(os.path.join(folder, 'report.md')) as f:
        f.write('\n'.join(lines) + '\n')


def summarize(runs):
    """Print a table of several runs, each (desc, seed, best validation accuracy, test accuracy or None), and their median and spread."""
    print(
        f'\n| {"run":20} | {"seed":>6} | valid % |  test % |\n|:{"-" * 20}-|-{"-" * 6}:|--------:|--------:|'
    )
    for desc, seed, *accuracies in runs:
        print(
            f'| {desc:20} | {seed!s:>6} | '
            + ' | '.join(f'{a:7.2f}' if a is not None else f'{"?":>7}' for a in accuracies)
            + ' |'
        )
    valid, test = ([a for a in column if a is not None] for column in list(zip(*runs))[2:])
    for name, figure in (
        ('median', statistics.median),
        ('lowest', min),
        ('highest', max),
        ('standard deviation', statistics.stdev),
    ):
        print(
            f'| {name:20} | {"":6} | '
            + ' | '.join(
                f'{figure(column):7.2f}' if len(column) > 1 else f'{"":7}'
                for column in (valid, test)
            )
            + ' |'
        )


# --------------------------------------------------------------------------------------------------------- command line


def parse_args(argv=None):
    parser = Parser(usage='python analysis.py [--desc NAME ...] [options]', description=__doc__)
    parser.add_argument(
        '--desc', nargs='+', metavar='NAME', help='names of the runs (default: rocstories)'
    )
    parser.add_argument('--log_dir', default='log/', help='their logs')
    parser.add_argument(
        '--analysis_dir',
        default='analysis/',
        help='their <desc>/predictions.csv, and where the reports go',
    )
    parser.add_argument(
        '--data_dir', help='the Story Cloze CSV files (default: where each run read them)'
    )
    return parser.parse_args(argv)


def run(args):
    """Report on runs that have ended. Raises InputError."""
    check_writable(args.analysis_dir)
    runs = []
    for desc in args.desc or ['rocstories']:
        folder = os.path.join(args.analysis_dir, desc)
        arguments, evaluations, stories, scores = read_run(
            folder, os.path.join(args.log_dir, f'{desc}.jsonl'), args.data_dir
        )
        write_report(folder, arguments, evaluations, stories, scores)
        predictions = scores.argmax(1)
        print(f'{desc}: {os.path.join(folder, "report.md")}')
        print_accuracies(evaluations, predictions, stories.label)
        runs.append(
            (
                desc,
                arguments.get('seed', '?'),
                max(line['va_acc'] for line in evaluations),
                None if -1 in stories.label else 100 * float((predictions == stories.label).mean()),
            )
        )
    if len(runs) > 1:
        summarize(runs)


def main(argv=None):
    return exit_status('analysis.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
