"""Sentences that say whether results have the shape of the paper's, with their standard errors."""

import math
import statistics
from collections.abc import Sequence

from scipy import stats

from datasets import TASKS
from gpt1.paper import published
from gpt1.paper.scores import SETS, Cell, RunScores, ZeroShot, ablation, cell, embolden

MODELS = {'transformer': 'transformer', 'lstm': 'LSTM', 'given': 'given model'}
QUESTIONS = {  # of table 5: a row that is compared with the first one
    'scratch': 'The score is higher with pre-training',
    'lstm': 'The score of the transformer is higher than that of the LSTM',
    'no-lm': 'The score is higher with the auxiliary objective',
}


def student(freedom: int) -> float:
    """How many standard errors a 95 % interval reaches to each side."""
    return float(stats.t.ppf(0.975, freedom))


def difference(pairs: Sequence[tuple[Cell, Cell]]) -> tuple[float, float]:
    """Return the mean of first - second, and how far its 95 % interval reaches to each side.

    The interval is Student's, over the seeds and the examples. NaN: a cell has one seed.
    """
    cells = [c for pair in pairs for c in pair]
    gain = statistics.fmean(a.mean - b.mean for a, b in pairs)
    error = math.sqrt(sum(c.variance for c in cells)) / len(pairs)
    return gain, student(sum(len(c.values) - 1 for c in cells)) * error


def verdict(gain: float, margin: float, paper: float) -> str:
    """Return whether a difference that is beyond the noise has the sign of the paper's."""
    if math.isnan(margin):
        return 'one seed: no verdict is possible'
    if abs(gain) <= margin:
        return 'within the noise: no verdict'
    return 'as in the paper' if gain * paper > 0 else 'NOT as in the paper'


def with_margin(gain: float, margin: float) -> str:
    return f'{gain:+.1f}' if math.isnan(margin) else f'{gain:+.1f} ± {margin:.1f}'


def some_of(names: Sequence[str], n: int) -> str:
    """The names in brackets, unless they are none or all of n."""
    return f' ({", ".join(names)})' if 0 < len(names) < n else ''


def of_table_5(found: Sequence[RunScores]) -> list[str]:
    """Say whether table 5 has the paper's shape, by the means over the seeds."""
    sentences = [_of_ablation(found, variant) for variant in QUESTIONS]
    return [sentence for sentence in sentences if sentence]


def _of_ablation(found, variant) -> str:
    pairs, guesses, theirs = {}, [], []
    paper = published.ABLATION_SCORES
    for (dataset, (title, _)), full, other in zip(
        published.ABLATION_COLUMNS.items(), paper['full'], paper[variant]
    ):
        pair = ablation(found, 'full', dataset), ablation(found, variant, dataset)
        if None in pair:
            continue
        if all(c.is_guess for c in pair):
            guesses.append(title)
        else:
            pairs[title] = pair
            theirs.append(full - other)
    left_out = f' Left out, as no better than a guess: {", ".join(guesses)}.' if guesses else ''
    what = QUESTIONS[variant]
    if not pairs:
        return f'{what}: not known.{left_out}' if guesses else ''
    gains = {title: difference([pair]) for title, pair in pairs.items()}
    better = [title for title, (gain, _) in gains.items() if gain > 0]
    n_clear = sum(gain > margin for gain, margin in gains.values())
    gain, margin = difference(list(pairs.values()))
    clear = '' if math.isnan(margin) else f', beyond the noise on {n_clear}'
    paper_gain = statistics.fmean(theirs)
    sentence = (
        f'{what} on {len(better)} of {len(gains)} tasks{some_of(better, len(gains))}{clear}, by '
        f'{with_margin(gain, margin)} points on average; in the paper on '
        f'{sum(gain > 0 for gain in theirs)} of them, by {paper_gain:+.1f}: '
        f'{verdict(gain, margin, paper_gain)}.{left_out}'
    )
    return embolden(sentence, any(c.bold for pair in pairs.values() for c in pair))


def of_layers(curves: dict[tuple[str, str], list]) -> list[str]:
    """Say whether the accuracy rises steadily with the layers that are transferred.

    That is so where the whole gain is beyond the noise, and the order too (Kendall's tau): a curve
    that stays at chance up to its last point does not rise steadily.
    """
    sentences = []
    for (dataset, part), points in curves.items():
        if part != 'valid' or None in points:
            continue
        means = [point.mean for point in points]
        steps = [b - a for a, b in zip(means, means[1:])]
        paper = published.LAYERS[dataset, part]
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
    """The standard error of a zero-shot score on n examples; `share` is that of right answers."""
    return 100 / math.sqrt(n) * (1 if name == 'cola' else math.sqrt(share * (1 - share)))


def of_zero_shot(curves: dict[str, ZeroShot]) -> list[str]:
    """Say whether zero-shot scores rise above chance, and the LSTM's stay below."""
    sentences = []
    last = {}
    for kind, curve in curves.items():
        for name, points in curve.points.items():
            if not points:
                continue
            first, last[kind, name] = points[0][1], points[-1][1]
            chance = published.ZERO_SHOT_CHANCE[name]
            error = zero_shot_error(name, chance / 100, curve.sets[name]['examples'])
            gain = last[kind, name] - chance
            said = 'above chance' if gain > 2 * error else 'NOT clearly above chance'
            sentence = (
                f'{SETS[name]}, {MODELS[kind]}: {last[kind, name]:.1f} at the end, {gain:+.1f} '
                f'from chance ({said}: two standard errors are {2 * error:.1f}); '
                f'{last[kind, name] - first:+.1f} since the first point.'
            )
            sentences.append(embolden(sentence, curve.sets[name]['sample']))
    both = [n for n in SETS if ('lstm', n) in last and ('transformer', n) in last]
    if both:
        below = [SETS[name] for name in both if last['lstm', name] < last['transformer', name]]
        sentence = (
            f'At the end the LSTM is below the transformer on {len(below)} of {len(both)} sets'
            f'{some_of(below, len(both))}; in the paper on all four. One pre-training of each: no '
            'verdict is possible.'
        )
        made_up = any(curves['transformer'].sets[name]['sample'] for name in both)
        sentences.append(embolden(sentence, made_up))
    return sentences


def of_fine_tuning(curve: ZeroShot, found: Sequence[RunScores]) -> list[str]:
    """Say whether fine-tuned models are better than the same model before, as in the paper."""
    sentences = []
    for name in ('cola', 'sst2', 'race'):  # whose validation sets are those of figure 2
        subset = 'all' if name == 'race' else 'test'
        tuned = cell(found, name, [(subset, TASKS[name].metrics[0])], parts=('valid',))
        if tuned is None or not curve.points.get(name):
            continue
        before = curve.points[name][-1][1]
        error = zero_shot_error(name, before / 100, curve.sets[name]['examples'])
        gain = tuned.mean - before
        margin = student(len(tuned.values) - 1) * math.sqrt(tuned.variance + error**2)
        what = (
            'raises the score' if gain > 0 else 'does NOT raise the score, as it does in the paper'
        )
        sentence = (
            f'{SETS[name]}: fine-tuning {what}: zero-shot {before:.1f}, fine-tuned '
            f'{tuned.mean:.1f}, {with_margin(gain, margin)}: {verdict(gain, margin, 1)}.'
        )
        sentences.append(embolden(sentence, tuned.bold or curve.sets[name]['sample']))
    return sentences
