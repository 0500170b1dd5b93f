"""The report of paper.py: tables 2 to 5 and figure 2 beside the published ones.

`collect` reads what the runs have written; the functions for each table are pure. Every sentence
about whether a result has the paper's shape is computed.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scipy import stats

from datasets import TASKS
from gpt1.paper import published
from gpt1.paper.plan import (
    LAYER_DATASETS,
    Run,
    Setup,
    State,
    format_seconds,
    layers_variant,
    own_options,
    pretraining_log,
    read_lines_of,
    record_of,
    states_of,
)
from gpt1.report.log import log_name, metric_title
from gpt1.report.report import markdown_table, picture
from gpt1.settings import is_openai_model, is_sample_model
from utils import whole_file

KINDS = {'test': 'test', 'valid': 'validation', 'train': 'training'}
MODELS = {'transformer': 'transformer', 'lstm': 'LSTM', 'given': 'given model'}
PRETRAINED = {  # what pretrain.py makes, and what for
    'transformer': 'the transformer of figure 2, right',
    'lstm': 'the LSTM of table 5 and of figure 2, right',
}
SETS = published.ZERO_SHOT_TITLES  # of figure 2, right
COLORS = {'cola': 'C0', 'sst2': 'C1', 'race': 'C2', 'dprd': 'C3', 'mnli': 'C0'}


# -------------------------------------------------------------------------- what runs have written


@dataclass
class Result:
    """What a fine-tuning has written.

    figures  {(kind, split, metric): figure}; the kind is 'train', 'valid' or 'test', the split of
             the training set ''
    sizes    examples by set
    bold     whether the data are made up or the weights are not OpenAI's
    device   where it ran
    noise    {key of figures: (standard error, score of a guess)}, see `analysis.noise_of`
    """

    dataset: str
    variant: str
    seed: int
    figures: dict[tuple[str, str, str], float]
    sizes: dict[str, int] = field(default_factory=dict)
    bold: bool = False
    device: str = ''
    noise: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)


def collect(plan: Sequence[Run], setup: Setup) -> dict[str, Result]:
    """Return the results of the fine-tunings that are done, by the names of the runs."""
    states = states_of(plan, setup)
    found = {}
    for run in plan:
        if run.script != 'train.py' or states[run.desc].kind != 'done':
            continue
        done = record_of(run, setup)
        figures = {tuple(key): value for *key, value in done['scores']}
        metric = TASKS[run.dataset].metrics[0]
        figures['train', '', metric] = done['best'][f'tr_{log_name(metric)}']
        noise = {tuple(row[:3]): tuple(row[3:]) for row in done.get('noise', [])}
        bold = bool(done['sample']) or run.made_up
        found[run.desc] = Result(
            run.dataset, run.variant, run.seed, figures, done['sizes'], bold, done['device'], noise
        )
    return found


# ---------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class Figure:
    """A figure over several seeds.

    kind   the set it is of: 'test', or 'valid' where the test labels are not at hand
    error  its standard error because the set is a sample; NaN: not known
    guess  what the best constant prediction would have; NaN: not known
    """

    values: tuple[float, ...]
    kind: str
    bold: bool
    error: float = math.nan
    guess: float = math.nan

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """The standard deviation; None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def variance(self) -> float:
        """The variance of the mean, over seeds and over examples; NaN for a single seed."""
        if self.spread is None:
            return math.nan
        return self.spread**2 / len(self.values) + self.error**2

    @property
    def is_guess(self) -> bool:
        """Whether it is not clearly better than a guess, by the examples of its set."""
        return self.mean <= self.guess + 1.96 * self.error

    def __str__(self):
        return embolden(f'{self.mean:.1f}', self.bold)


def embolden(text: str, bold: bool) -> str:
    return f'**{text}**' if bold else text


def figure(
    found: Iterable[Result],
    dataset: str,
    parts: Sequence[tuple[str, str]],
    variant: str = 'full',
    kinds: Sequence[str] = ('test', 'valid'),
) -> Figure | None:
    """Return a figure of a data set over all seeds; None if there is none.

    parts  (split, metric) pairs, whose mean is the figure of a run
    kinds  the sets to take it from: the first one that all runs have
    """
    runs = [r for r in found if (r.dataset, r.variant) == (dataset, variant)]
    if not runs:
        return None
    for kind in kinds:
        keys = [(kind, _split(kind, split), metric) for split, metric in parts]
        if all(key in r.figures for r in runs for key in keys):
            values = tuple(statistics.fmean(r.figures[key] for key in keys) for r in runs)
            noise = [r.noise.get(key, (math.nan, math.nan)) for r in runs for key in keys]
            error = math.sqrt(statistics.fmean(e * e for e, _ in noise) / len(keys))
            guess = statistics.fmean(g for _, g in noise)
            return Figure(values, kind, any(r.bold for r in runs), error, guess)
    return None


def _split(kind: str, split: str) -> str:
    """A single set is called as its kind."""
    if kind == 'train':
        return ''
    return kind if split == 'test' else split


def glue_score(found: Sequence[Result], seed: int) -> tuple[float, bool] | None:
    """Return GLUE's average of a seed, and whether all of it is of test sets.

    It is the mean over nine tasks, of which those with two figures count with their mean. None if
    one is missing.
    """
    own = [r for r in found if r.seed == seed]
    figures = [figure(own, dataset, parts) for dataset, parts in published.GLUE.items()]
    if None in figures:
        return None
    return statistics.fmean(f.mean for f in figures), all(f.kind == 'test' for f in figures)


def optional(value: float | None) -> str:
    return '' if value is None else f'{value:.1f}'


# ----------------------------------------------------------------------------------------- tables


def table(number: int, found: Sequence[Result]) -> list[str]:
    """Return table 2, 3 or 4 in Markdown."""
    header = ['data set', 'metric', 'set', 'here', 'sd', 'seeds', 'paper', 'best before']
    rows = []
    for row in published.TABLES[number]:
        here = figure(found, row.dataset, [(row.split, row.metric)])
        other = published.reproduced_figure(row)
        before = f'{row.best_before:.1f}' + (f' ({row.note})' if row.note else '')
        cells = ['', 'not run', '', '0']
        if here:
            cells = [KINDS[here.kind], here, optional(here.spread), len(here.values)]
        known = optional(published.paper_figure(row))
        reproduced = f'{other[1]:.1f} ({other[0]})' if other else ''
        rows.append([row.title, metric_title(row.metric), *cells, known, before, reproduced])
    if number == 4:
        rows.append(_glue_row(found))
    return markdown_table([*header, 'best reproduction'], rows)


def _glue_row(found):
    scores = {seed: glue_score(found, seed) for seed in sorted({r.seed for r in found})}
    whole = [score for score in scores.values() if score]
    cells = ['', 'not all tasks are there', '', '0']
    if whole:
        bold = any(r.bold for r in found if r.dataset in published.GLUE)
        kind = 'test' if all(is_test for _, is_test in whole) else 'test or validation'
        here = Figure(tuple(value for value, _ in whole), kind, bold)
        cells = [kind, here, optional(here.spread), len(here.values)]
    who, value = published.GLUE_REPRODUCED
    return [
        *('GLUE', 'mean of 9', *cells, f'{published.GLUE_SCORE:.1f}'),
        *(f'{published.GLUE_BEST_BEFORE:.1f}', f'{value:.1f} ({who})'),
    ]


def ablation(found: Sequence[Result], variant: str, dataset: str) -> Figure | None:
    """Return a figure of table 5. MNLI's is the mean of matched and mismatched."""
    _, metric = published.ABLATION_COLUMNS[dataset]
    splits = ('matched', 'mismatched') if dataset == 'mnli' else ('test',)
    return figure(found, dataset, [(split, metric) for split in splits], variant)


def ablation_average(found: Sequence[Result], variant: str) -> Figure | None:
    """Return the average of a row of table 5; None if a column is missing."""
    figures = [ablation(found, variant, dataset) for dataset in published.ABLATION_COLUMNS]
    if None in figures:
        return None
    mean = statistics.fmean(f.mean for f in figures)
    return Figure((mean,), 'test', any(f.bold for f in figures))


def table_5(found: Sequence[Result]) -> list[str]:
    """Return table 5 in Markdown: ours and the paper's row by row."""
    columns = published.ABLATION_COLUMNS
    header = [
        '',
        '',
        'avg',
        *(f'{title} ({metric_title(metric)})' for title, metric in columns.values()),
    ]
    rows = []
    for variant, title in published.ABLATIONS.items():
        here = [ablation(found, variant, dataset) for dataset in columns]
        here.insert(0, ablation_average(found, variant))
        rows.append([title, 'here', *('' if f is None else f for f in here)])
        paper = published.ABLATION_FIGURES[variant]
        average = f'{published.ABLATION_AVERAGES[variant]:.1f}'
        rows.append(['', 'paper', average, *(f'{value:.1f}' for value in paper)])
    return markdown_table(header, rows)


# --------------------------------------------------------------------------------- figure 2, left


def layer_curves(found: Sequence[Result], n_layer: int) -> dict[tuple[str, str], list]:
    """Return the curves of figure 2, left: {(data set, 'valid' or 'train'): figures or None}.

    A point for each number of parts transferred: 0 (nothing), 1 (the embeddings), ...
    """
    curves = {}
    for dataset in LAYER_DATASETS:
        split = 'matched' if dataset == 'mnli' else 'all'
        for kind in ('valid', 'train'):
            points = [
                figure(
                    found, dataset, [(split, 'accuracy')], layers_variant(n, n_layer), kinds=(kind,)
                )
                for n in range(-1, n_layer + 1)
            ]
            if any(points):
                curves[dataset, kind] = points
    return curves


def layers_table(curves: dict[tuple[str, str], list], n_layer: int) -> list[str]:
    names = ['nothing', 'embeddings', '1 layer', *(f'{n} layers' for n in range(2, n_layer + 1))]
    header = ['transferred', *(f'{TASKS[name].title} {KINDS[kind]}' for name, kind in curves)]
    with_paper = n_layer == 12
    if with_paper:
        header += [f'paper: {TASKS[name].title} {KINDS[kind]}' for name, kind in curves]
    rows = []
    for i, name in enumerate(names):
        row = [name, *('' if points[i] is None else points[i] for points in curves.values())]
        if with_paper:
            row += [f'{published.LAYERS[key][i]:.1f}' for key in curves]
        rows.append(row)
    return markdown_table(header, rows)


# -------------------------------------------------------------------------------- figure 2, right


@dataclass
class ZeroShot:
    """The zero-shot figures of a pre-training.

    points  {set: [(update, figure)]}
    sets    {set: {'examples', 'source', 'sample', 'notes'}}
    epochs  {update: epochs until then}; empty: not known
    """

    points: dict[str, list[tuple[int, float]]]
    sets: dict[str, dict]
    epochs: dict[int, float] = field(default_factory=dict)

    def scaled(self, name: str) -> list[tuple[int, float]]:
        """The curve of a set on the scale of figure 2."""
        from gpt1.paper.zero_shot import normalize

        sample = self.sets[name]['sample']
        return [(update, normalize(name, value, sample)) for update, value in self.points[name]]


def collect_zero_shot(plan: Sequence[Run], setup: Setup) -> dict[str, ZeroShot]:
    """Return the zero-shot figures, by the kind of model: 'transformer', 'lstm', or 'given'."""
    found = {}
    states = states_of(plan, setup)
    for kind, folder in setup.pretrained.items():
        if f'pretrain-{kind}' in states and states[f'pretrain-{kind}'].kind == 'missing':
            continue  # what is there is of other options
        lines = read_lines_of(pretraining_log(folder))
        sets = lines[0].get('zero_shot_sets', {}) if lines else {}
        points = {
            name: [
                (line['n_updates'], line[f'zs_{name}'])
                for line in lines[1:]
                if f'zs_{name}' in line
            ]
            for name in sets
        }
        if any(points.values()):
            epochs = {line['n_updates']: line['n_epochs'] for line in lines[1:]}
            found[kind] = ZeroShot(points, sets, epochs)
    for run in plan:
        if run.script == 'zero_shot.py' and states[run.desc].kind == 'done':
            with open(setup.path('zero-shot.json'), encoding='utf-8') as f:
                record = json.load(f)
            sets = {name: record[name] for name in SETS if name in record}
            points = {name: [(0, sets[name]['figure'])] for name in sets}
            found['given'] = ZeroShot(points, sets)
    return found


def zero_shot_table(curves: dict[str, ZeroShot]) -> list[str]:
    header = ['set', 'model', 'updates', 'epochs', 'figure', 'on the scale of figure 2']
    rows = []
    for name, title in SETS.items():
        for kind, curve in curves.items():
            if name not in curve.points:
                continue
            for (update, value), (_, scaled) in zip(curve.points[name], curve.scaled(name)):
                epochs = f'{curve.epochs[update]:.2f}' if update in curve.epochs else ''
                sample = curve.sets[name]['sample']
                texts = [embolden(text, sample) for text in (f'{value:.1f}', f'{scaled:.3f}')]
                rows.append([title, MODELS[kind], f'{update:,}', epochs, *texts])
    return markdown_table(header, rows)


# ------------------------------------------------------------------------------ the paper's shape


def difference(pairs: Sequence[tuple[Figure, Figure]]) -> tuple[float, float]:
    """Return the mean of first - second, and how far its 95 % interval reaches to each side.

    The interval is Student's, over the seeds and the examples. NaN: a figure has one seed.
    """
    figures = [f for pair in pairs for f in pair]
    gain = statistics.fmean(a.mean - b.mean for a, b in pairs)
    error = math.sqrt(sum(f.variance for f in figures)) / len(pairs)
    freedom = sum(len(f.values) - 1 for f in figures)
    return gain, float(stats.t.ppf(0.975, freedom)) * error


def verdict(gain: float, margin: float, paper: float) -> str:
    """Return whether a difference that is beyond the noise has the sign of the paper's."""
    if math.isnan(margin):
        return 'one seed: no verdict is possible'
    if abs(gain) <= margin:
        return 'within the noise: no verdict'
    return 'as in the paper' if gain * paper > 0 else 'NOT as in the paper'


def with_margin(gain: float, margin: float) -> str:
    return f'{gain:+.1f}' if math.isnan(margin) else f'{gain:+.1f} ± {margin:.1f}'


def shape_of_table_5(found: Sequence[Result]) -> list[str]:
    """Say whether table 5 has the paper's shape, by the means over the seeds."""
    sentences = []
    for variant, what in (
        ('scratch', 'The score is higher with pre-training'),
        ('lstm', 'The score of the transformer is higher than that of the LSTM'),
        ('no-lm', 'The score is higher with the auxiliary objective'),
    ):
        pairs, guesses, theirs = {}, [], []
        for (dataset, (title, _)), *paper in zip(
            published.ABLATION_COLUMNS.items(),
            published.ABLATION_FIGURES['full'],
            published.ABLATION_FIGURES[variant],
        ):
            pair = tuple(ablation(found, v, dataset) for v in ('full', variant))
            if None in pair:
                continue
            if all(f.is_guess for f in pair):
                guesses.append(title)
                continue
            pairs[title] = pair
            theirs.append(paper[0] - paper[1])
        left_out = f' Left out, as no better than a guess: {", ".join(guesses)}.' if guesses else ''
        bold = any(f.bold for pair in pairs.values() for f in pair)
        if not pairs:
            if guesses:
                sentences.append(f'{what}: not known.{left_out}')
            continue
        gains = {title: difference([pair]) for title, pair in pairs.items()}
        better = [title for title, (gain, _) in gains.items() if gain > 0]
        n_clear = sum(gain > margin for gain, margin in gains.values())
        gain, margin = difference(list(pairs.values()))
        paper_gain = statistics.fmean(theirs)
        clear = '' if math.isnan(margin) else f', beyond the noise on {n_clear}'
        sentence = (
            f'{what} on {len(better)} of {len(gains)} tasks{_list(better, gains)}{clear}, by '
            f'{with_margin(gain, margin)} points on average; in the paper on '
            f'{sum(gain > 0 for gain in theirs)} of them, by {paper_gain:+.1f}: '
            f'{verdict(gain, margin, paper_gain)}.{left_out}'
        )
        sentences.append(embolden(sentence, bold))
    return sentences


def _list(better: list[str], gains: dict) -> str:
    return f' ({", ".join(better)})' if 0 < len(better) < len(gains) else ''


def shape_of_layers(curves: dict[tuple[str, str], list]) -> list[str]:
    """Say whether the accuracy rises steadily with the layers that are transferred.

    That is so where the whole gain is beyond the noise, and the order too (Kendall's tau): a curve
    that stays at chance up to its last point does not rise steadily.
    """
    sentences = []
    for (dataset, kind), points in curves.items():
        if kind != 'valid' or None in points:
            continue
        means = [point.mean for point in points]
        steps = [b - a for a, b in zip(means, means[1:])]
        paper = published.LAYERS[dataset, kind]
        their_steps = sum(b > a for a, b in zip(paper, paper[1:]))
        gain, margin = difference([(points[-1], points[0])])
        said = verdict(gain, margin, paper[-1] - paper[0])
        order = stats.kendalltau(range(len(means)), means, alternative='greater')
        if said == 'as in the paper' and not order.pvalue < 0.05:
            said = 'NOT as in the paper, since the rise is not steady'
        n_guesses = sum(point.is_guess for point in points)
        sentence = (
            f'{TASKS[dataset].title}: {sum(s > 0 for s in steps)} of {len(steps)} parts raise the '
            f'validation accuracy when they are transferred too, all together by '
            f'{with_margin(gain, margin)} points; {n_guesses} of {len(points)} points are no '
            f'better than a guess; in the paper {their_steps} of {len(paper) - 1} parts, by '
            f'{paper[-1] - paper[0]:+.1f}: {said}.'
        )
        sentences.append(embolden(sentence, any(point.bold for point in points)))
    return sentences


def zero_shot_error(name: str, share: float, n: int) -> float:
    """The standard error of a zero-shot figure on n examples; `share` is that of right answers."""
    return 100 / math.sqrt(n) * (1 if name == 'cola' else math.sqrt(share * (1 - share)))


def shape_of_zero_shot(curves: dict[str, ZeroShot]) -> list[str]:
    """Say whether zero-shot figures rise above chance, and the LSTM's stay below."""
    sentences = []
    for kind, curve in curves.items():
        for name, points in curve.points.items():
            if not points:
                continue
            (_, first), (_, last) = points[0], points[-1]
            chance = published.ZERO_SHOT_CHANCE[name]
            error = zero_shot_error(name, chance / 100, curve.sets[name]['examples'])
            said = 'above chance' if last - chance > 2 * error else 'NOT clearly above chance'
            sentence = (
                f'{SETS[name]}, {MODELS[kind]}: {last:.1f} at the end, {last - chance:+.1f} from '
                f'chance ({said}: two standard errors are {2 * error:.1f}); {last - first:+.1f} '
                'since the first point.'
            )
            sentences.append(embolden(sentence, curve.sets[name]['sample']))
    if {'transformer', 'lstm'} <= set(curves):
        both = [curves[kind] for kind in ('transformer', 'lstm')]
        names = [n for n in SETS if all(curve.points.get(n) for curve in both)]
        below = [
            SETS[name]
            for name in names
            if both[1].points[name][-1][1] < both[0].points[name][-1][1]
        ]
        sentence = (
            f'At the end the LSTM is below the transformer on {len(below)} of {len(names)} sets'
            f'{_list(below, dict.fromkeys(names))}; in the paper on all four. One pre-training of '
            'each: no verdict is possible.'
        )
        sentences.append(embolden(sentence, any(both[0].sets[name]['sample'] for name in names)))
    return sentences


def shape_of_fine_tuning(curve: ZeroShot, found: Sequence[Result]) -> list[str]:
    """Say whether fine-tuned models are better than the same model before, as in the paper."""
    sentences = []
    for name in ('cola', 'sst2', 'race'):  # whose validation sets are those of figure 2
        split = 'all' if name == 'race' else 'test'
        tuned = figure(found, name, [(split, TASKS[name].metrics[0])], kinds=('valid',))
        if tuned is None or not curve.points.get(name):
            continue
        before = curve.points[name][-1][1]
        error = zero_shot_error(name, before / 100, curve.sets[name]['examples'])
        gain = tuned.mean - before
        freedom = len(tuned.values) - 1
        margin = float(stats.t.ppf(0.975, freedom)) * math.sqrt(tuned.variance + error**2)
        what = (
            'raises the score' if gain > 0 else 'does NOT raise the score, as it does in the paper'
        )
        sentence = (
            f'{SETS[name]}: fine-tuning {what}: zero-shot {before:.1f}, fine-tuned '
            f'{tuned.mean:.1f}, {with_margin(gain, margin)}: {verdict(gain, margin, 1)}.'
        )
        sentences.append(embolden(sentence, tuned.bold or curve.sets[name]['sample']))
    return sentences


# --------------------------------------------------------------------------------------- pictures


def draw_tables(path: str, found: Sequence[Result]) -> None:
    """Draw the figures of tables 2 to 4 beside the paper's: a bar for each."""
    from gpt1.report.pictures import draw

    rows = [row for table in published.TABLES.values() for row in table]
    shown = [(row, figure(found, row.dataset, [(row.split, row.metric)])) for row in rows]
    shown = [(row, here) for row, here in shown if here]

    def panel(axes):
        places = range(len(shown))
        here = [figure.mean for _, figure in shown]
        spreads = [figure.spread or 0 for _, figure in shown]
        paper = [published.paper_figure(row) for row, _ in shown]
        axes.bar([p - 0.2 for p in places], here, 0.38, yerr=spreads, color='C0', label='here')
        axes.bar([p + 0.2 for p in places], paper, 0.38, color='0.75', label='paper')
        axes.set_xticks(list(places), [row.title for row, _ in shown], rotation=45, ha='right')
        axes.set(ylabel='score', ylim=(0, 105), title=f'Tables 2 to 4{_made_up(shown)}')
        axes.legend(frameon=False, ncols=2, loc='upper right')

    draw(path, 9, 4, panel)


def _made_up(shown) -> str:
    return "; here: not the paper's data or weights" if any(here.bold for _, here in shown) else ''


def draw_layers(path: str, curves: dict[tuple[str, str], list], n_layer: int) -> None:
    """Draw figure 2, left, beside the paper's."""
    from gpt1.report.pictures import draw

    def panel_of(values, title, last):
        def panel(axes):
            for (dataset, kind), points in values.items():
                known = [(i, value) for i, value in enumerate(points) if value is not None]
                axes.plot(
                    *zip(*known),
                    color=COLORS[dataset],
                    linestyle='-' if kind == 'valid' else '--',
                    marker='.',
                    label=f'{TASKS[dataset].title} {KINDS[kind]}',
                )
            axes.set(xlabel='parts transferred: embeddings, then layers', ylabel='accuracy, %')
            axes.set_title(title)
            axes.set_xticks(range(0, last + 1, max(1, last // 7)))
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize='small')

        return panel

    here = {key: [p and p.mean for p in points] for key, points in curves.items()}
    bold = any(p and p.bold for points in curves.values() for p in points)
    title = "here: not the paper's data or weights" if bold else 'here'
    paper = {key: published.LAYERS[key] for key in curves}
    panels = panel_of(here, title, n_layer + 1), panel_of(paper, 'paper, figure 2, left', 13)
    draw(path, 9.5, 4, *panels)


def draw_zero_shot(path: str, curves: dict[str, ZeroShot]) -> None:
    """Draw figure 2, right, beside the paper's."""
    from gpt1.report.pictures import draw

    def panel_of(values, title):
        def panel(axes):
            from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

            drawn = [(name, kind) for kind in MODELS for name in SETS if (name, kind) in values]
            for name, kind in drawn:
                known = [(x, max(y, -0.05)) for x, y in values[name, kind] if y is not None]
                axes.plot(
                    *zip(*known),
                    color=COLORS[name],
                    linestyle='--' if kind == 'lstm' else '-',
                    marker='.',
                    label=f'{SETS[name]}, {MODELS[kind]}',
                )
            axes.axhline(0, color='0.6', linewidth=0.8)
            axes.set(xlabel='updates of pre-training', ylabel='0: chance, 1: best', xscale='log')
            first, last = axes.get_xlim()
            if last < 100 * first:  # powers of ten alone would be one or two ticks
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(title)
            axes.grid(alpha=0.3)
            place = {'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.17)}
            axes.legend(frameon=False, fontsize='small', ncols=2, **place)

        return panel

    here = {
        (name, kind): [(max(x, 1), y) for x, y in curve.scaled(name)]
        for kind, curve in curves.items()
        for name in curve.points
    }
    paper = {
        key: list(zip(published.ZERO_SHOT_UPDATES, points))
        for key, points in published.ZERO_SHOT.items()
    }
    sample = any(part['sample'] for curve in curves.values() for part in curve.sets.values())
    title = 'here: made-up data, 1 is 100 %' if sample else 'here'
    draw(path, 9.5, 5.2, panel_of(here, title), panel_of(paper, 'paper, figure 2, right'))


# ----------------------------------------------------------------------------------- what was run


def attempts_of(plan: Sequence[Run], setup: Setup) -> dict[str, list[dict]]:
    """Return what paper.py recorded of each run."""
    return {run.desc: read_lines_of(setup.path('runs', run.desc, 'attempts.jsonl')) for run in plan}


def time_of(attempts: list[dict], state: State, run_id: str | None) -> float:
    """Return the seconds that a run took: its processes, or else by its log."""
    attempts = [attempt for attempt in attempts if attempt.get('id') == run_id]
    if attempts:
        return sum(attempt['ended'] - attempt['started'] for attempt in attempts)
    return state.seconds or 0.0


def describe_runs(
    plan: Sequence[Run], setup: Setup, found: dict[str, Result], parts: Sequence[str]
) -> list[str]:
    """Return the section that says what was run on what."""
    attempts = attempts_of(plan, setup)
    states = states_of(plan, setup)
    records = {
        run.desc: record_of(run, setup) for run in plan if states[run.desc].kind != 'missing'
    }
    seconds = {
        desc: time_of(attempts[desc], state, records.get(desc, {}).get('id'))
        for desc, state in states.items()
    }
    rows = []
    groups = {part: [run.desc for run in plan if part in run.parts] for part in parts}
    groups['all, each run once'] = list(states)
    for title, names in groups.items():
        n_done = sum(states[name].kind == 'done' for name in names)
        total = sum(seconds[name] for name in names)
        rows.append([title, f'{n_done} of {len(names)}', format_seconds(total)])
    lines = markdown_table(['', 'runs done', 'time of the runs, one after the other'], rows)

    rows = []
    kinds = ('training', 'validation', 'test')
    for name, (folder, is_sample) in setup.data.items():
        results_of = [r for r in found.values() if r.dataset == name]
        if results_of:
            sizes = results_of[0].sizes
            shown = f'**{folder} (made up)**' if is_sample else folder
            counts = [f'{sizes[kind]:,}' if kind in sizes else '' for kind in kinds]
            rows.append([TASKS[name].title, shown, *counts])
    if rows:
        lines += ['', *markdown_table(['data', 'folder', *kinds], rows)]
    weights = f'{setup.model_dir}, {setup.n_layer} layers'
    if setup.sample_model:
        weights = f"**{weights}: the sample model, not OpenAI's**"
    elif not is_openai_model(setup.model_dir):
        weights = f"**{weights}: not OpenAI's**"
    devices = sorted({result.device for result in found.values()} - {''})
    commits = sorted({commit for done in records.values() for commit in done['commits']})
    lines += ['', f'- weights: {weights}']
    lines += [f"- **not the paper's setting: {text}**" for text in own_options(plan)]
    folders = {PRETRAINED[kind]: folder for kind, folder in setup.pretrained.items()}
    if setup.model_dir not in folders.values():
        folders = {'these weights': setup.model_dir, **folders}
    for what, folder in folders.items():
        read = _describe_pretraining(folder)
        if read:
            text = f'pre-training of {what}: {read}'
            lines.append(f'- **{text}; made-up text**' if is_sample_model(folder) else f'- {text}')
    lines.append(f'- devices: {"; ".join(devices) or "not known"}')
    lines.append(f'- commits: {", ".join(commits) or "not known"}')
    return lines


def _describe_pretraining(folder: str) -> str:
    """Say how much text a model has read, by the log of pretrain.py; '' if there is none."""
    lines = read_lines_of(pretraining_log(folder))
    if len(lines) < 2:
        return ''
    arguments, *_, last = lines
    n_tokens = last['n_updates'] * arguments['n_windows'] * arguments['n_ctx']
    return (
        f'{last["n_updates"]:,} updates, {n_tokens:,} tokens, '
        f'perplexity {last["va_perplexity"]:.2f} on held-out text'
    )


# --------------------------------------------------------------------------------------- the report


def decisions() -> list[str]:
    """Return what zero_shot.py decides where the paper leaves it open, in Markdown."""
    from gpt1.paper.zero_shot import DECISIONS

    return [f'- {name}: {text}' for name, text in DECISIONS.items()]


def write_report(
    plan: Sequence[Run], setup: Setup, tables: Sequence[int], figures: Sequence[int]
) -> str:
    """Write report.md, report.json and the pictures. Returns the path of report.md."""
    found = collect(plan, setup)
    results_found = list(found.values())
    parts = [part for run in plan for part in run.parts]
    parts = sorted(set(parts), key=lambda part: (part.startswith('figure'), part))
    lines = ['# The paper again', '']
    if any(result.bold for result in results_found) or setup.sample_model:
        lines += [
            "**Scores in bold are of made-up data or of weights that are not OpenAI's. They show "
            'how the program works; do not compare them with the paper.**',
            '',
        ]
    record = {'tables': {}, 'figures': {}, 'runs': {}}
    for number in sorted(tables):
        lines += [f'## Table {number}: {published.TITLES[number]}', '']
        lines += table_5(results_found) if number == 5 else table(number, results_found)
        lines.append('')
        if number == 5:
            sentences = shape_of_table_5(results_found)
            lines += [f'- {sentence}' for sentence in sentences]
            if 'lstm' not in setup.pretrained:
                lines.append('- The LSTM needs a text to pre-train on: `--text`.')
            lines.append('')
            record['tables']['5 shape'] = sentences
    if set(tables) & {2, 3, 4} and results_found:
        draw_tables(setup.path('tables.png'), results_found)
        lines += [*picture('tables', 'Tables 2 to 4: bars for here and the paper'), '']
    if figures:
        lines += _figure_2(plan, setup, results_found, record)
    lines += ['## What was run on what', '', *describe_runs(plan, setup, found, parts)]
    for desc, result in found.items():
        named = {
            field: {' '.join(filter(None, key)): v for key, v in getattr(result, field).items()}
            for field in ('figures', 'noise')
        }
        record['runs'][desc] = {**vars(result), **named}
    for number in sorted(set(tables) - {5}):
        record['tables'][str(number)] = {
            row.title: _record_of(figure(results_found, row.dataset, [(row.split, row.metric)]))
            for row in published.TABLES[number]
        }
    if 5 in tables:
        columns = published.ABLATION_COLUMNS
        record['tables']['5'] = {
            variant: {
                'avg': _record_of(ablation_average(results_found, variant)),
                **{d: _record_of(ablation(results_found, variant, d)) for d in columns},
            }
            for variant in published.ABLATIONS
        }
    with whole_file(setup.path('report.json')) as f:
        json.dump(record, f, indent=1)
    path = setup.path('report.md')
    with whole_file(path) as f:
        f.write('\n'.join(lines) + '\n')
    return path


def _record_of(here: Figure | None) -> dict | None:
    if here is None:
        return None
    return {
        'mean': here.mean,
        'sd': here.spread,
        'seeds': len(here.values),
        'set': KINDS[here.kind],
        'made_up': here.bold,
    }


def _figure_2(plan, setup, found, record) -> list[str]:
    """Return the section of figure 2, and draw it."""
    lines = []
    curves = layer_curves(found, setup.n_layer)
    if curves:
        draw_layers(setup.path('figure2-left.png'), curves, setup.n_layer)
        sentences = shape_of_layers(curves)
        lines += ['## Figure 2, left: layers transferred', '', *layers_table(curves, setup.n_layer)]
        lines += ['', *(f'- {sentence}' for sentence in sentences)]
        lines += ['- Training accuracy is that of the first training examples, as many as 374.']
        lines += [*picture('figure2-left', 'Accuracy by layers transferred, here and in the paper')]
        lines.append('')
        record['figures']['left'] = {
            f'{name} {kind}': [p and p.mean for p in points]
            for (name, kind), points in curves.items()
        }
        record['figures']['left shape'] = sentences
    zero_shot_curves = collect_zero_shot(plan, setup)
    if zero_shot_curves:
        draw_zero_shot(setup.path('figure2-right.png'), zero_shot_curves)
        sentences = shape_of_zero_shot(zero_shot_curves)
        kind = 'given' if setup.pretrained.get('transformer') != setup.model_dir else 'transformer'
        if kind in zero_shot_curves:
            sentences += shape_of_fine_tuning(zero_shot_curves[kind], found)
        lines += ['## Figure 2, right: zero-shot', '']
        lines += picture('figure2-right', 'Zero-shot figures during pre-training')[1:]
        lines += ['', *(f'- {sentence}' for sentence in sentences), '']
        lines += [*zero_shot_table(zero_shot_curves), '', 'What the paper leaves open is decided:']
        lines += ['', *decisions()]
        curve = next(iter(zero_shot_curves.values()))
        for name, part in curve.sets.items():
            notes = '; '.join([f'{part["examples"]:,} examples', *part['notes']])
            lines.append(f'- {SETS[name]}: {notes}')
        lines.append('')
        record['figures']['right'] = {
            kind: curve.points for kind, curve in zero_shot_curves.items()
        }
        record['figures']['right shape'] = sentences
    if not setup.pretrained:
        lines += ['Figure 2, right, needs a text to pre-train on: `--text`.', '']
    return lines
