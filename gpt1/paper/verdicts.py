"""Sentences that say whether results have the shape of the paper's, with their standard errors.

A verdict needs two seeds or more, and a difference beyond the noise.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

from scipy import stats

from datasets import TASKS
from gpt1.paper.published import ABLATION_COLUMNS, ABLATIONS, LAYERS, ZERO_SHOT
from gpt1.paper.scores import Cell, RunScores, ZeroShot, ablation, cell, embolden

ONE_SEED = 'With one seed no verdict is possible.'
QUESTIONS = {  # of table 5: a row that is compared with the first one
    'scratch': 'The score is higher with pre-training',
    'lstm': 'The score of the transformer is higher than that of the LSTM',
    'no-lm': 'The score is higher with the auxiliary objective',
}


def student(freedom: int) -> float:
    """How many standard errors a 95 % interval reaches to each side."""
    return float(stats.t.ppf(0.975, freedom))


def difference(pairs: Iterable[tuple[Cell, Cell]]) -> tuple[float, float]:
    """Return the mean of first - second, and how far its 95 % interval reaches to each side.

    The interval is Student's, over the seeds and the examples.
    """
    pairs = list(pairs)
    cells = [c for pair in pairs for c in pair]
    gain = statistics.fmean(a.mean - b.mean for a, b in pairs)
    error = math.sqrt(sum(c.variance for c in cells)) / len(pairs)
    return gain, student(sum(len(c.values) - 1 for c in cells)) * error


def verdict(gain: float, margin: float, paper: float) -> str:
    """Return whether a difference that is beyond the noise has the sign of the paper's."""
    if not abs(gain) > margin:
        return 'within the noise: no verdict'
    return 'as in the paper' if gain * paper > 0 else 'NOT as in the paper'


def have_seeds(cells: Iterable[Cell]) -> bool:
    return all(len(c.values) > 1 for c in cells)


def of_table_5(found: Sequence[RunScores]) -> list[str]:
    """Say whether table 5 has the paper's shape, by the means over the seeds."""
    sentences = []
    for variant, what in QUESTIONS.items():
        pairs, theirs, guesses = {}, [], []
        for i, (dataset, (title, _)) in enumerate(ABLATION_COLUMNS.items()):
            pair = ablation(found, 'full', dataset), ablation(found, variant, dataset)
            if None in pair:
                continue
            if all(c.is_guess for c in pair):
                guesses.append(title)
                continue
            pairs[title] = pair
            theirs.append(ABLATIONS['full']['scores'][i] - ABLATIONS[variant]['scores'][i])
        cells = [c for pair in pairs.values() for c in pair]
        if not have_seeds(cells):
            return [ONE_SEED]
        left_out = f' Left out, as no better than a guess: {", ".join(guesses)}.' if guesses else ''
        if cells:
            gains = [difference([pair]) for pair in pairs.values()]
            gain, margin = difference(pairs.values())
            paper_gain = statistics.fmean(theirs)
            sentence = (
                f'{what} on {sum(gain > 0 for gain, _ in gains)} of {len(gains)} tasks, beyond the '
                f'noise on {sum(gain > margin for gain, margin in gains)}, by {gain:+.1f} ± '
                f'{margin:.1f} points on average; in the paper on {sum(g > 0 for g in theirs)} of '
                f'them, by {paper_gain:+.1f}: {verdict(gain, margin, paper_gain)}.{left_out}'
            )
            sentences.append(embolden(sentence, any(c.bold for c in cells)))
        elif guesses:
            sentences.append(f'{what}: not known.{left_out}')
    return sentences


def of_layers(curves: dict[tuple[str, str], list]) -> list[str]:
    """Say whether the accuracy rises steadily with the layers that are transferred.

    That is so where the whole gain is beyond the noise, and the order too (Kendall's tau): a curve
    that stays at chance up to its last point does not rise steadily.
    """
    sentences = []
    for (dataset, part), points in curves.items():
        if part != 'valid' or None in points:
            continue
        if not have_seeds(points):
            return [ONE_SEED]
        paper = LAYERS[dataset][part]
        gain, margin = difference([(points[-1], points[0])])
        said = verdict(gain, margin, paper[-1] - paper[0])
        means = [point.mean for point in points]
        order = stats.kendalltau(range(len(means)), means, alternative='greater')
        if said == 'as in the paper' and not order.pvalue < 0.05:
            said = 'NOT as in the paper, since the rise is not steady'
        n_guesses = sum(point.is_guess for point in points)
        sentence = (
            f'{TASKS[dataset].title}: all parts together raise the validation accuracy by '
            f'{gain:+.1f} ± {margin:.1f} points, in the paper by {paper[-1] - paper[0]:+.1f}; '
            f'{n_guesses} of {len(points)} points are no better than a guess: {said}.'
        )
        sentences.append(embolden(sentence, any(point.bold for point in points)))
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
        gain, said = tuned.mean - before, ONE_SEED
        if have_seeds([tuned]):
            error = math.sqrt(tuned.variance + curve.error(name, before) ** 2)
            margin = student(len(tuned.values) - 1) * error
            said = f'± {margin:.1f}: {verdict(gain, margin, 1)}.'
        sentence = (
            f'{ZERO_SHOT[name]["title"]}: zero-shot {before:.1f}, fine-tuned {tuned.mean:.1f}, '
            f'{gain:+.1f} {said}'
        )
        sentences.append(embolden(sentence, tuned.bold or curve.sets[name]['sample']))
    return sentences
