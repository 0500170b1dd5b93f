"""What a pre-trained model knows without fine-tuning (paper, section 5; figure 2, right).

    python -m gpt1.paper.zero_shot --model_dir model/mine
    python -m gpt1.paper.zero_shot --model_dir model/ --data_dir data/ --out zero-shot.json

prints four scores of a language model, on the data sets that are in --data_dir; where one is not
there, on made-up data. `pretrain.py --zero_shot` writes them to its log.

    CoLA   a sentence is acceptable if the mean log-probability of its tokens is above a threshold
    SST-2  after the text and `very`: is `positive` or `negative` the likelier next word?
    RACE   after the document and the question: which answer has the highest mean log-probability?
    DPRD   with which candidate in the pronoun's place has the rest of the sentence the higher mean
           log-probability? (definite pronouns: Rahman & Ng 2012; "Winograd schemas" in the paper)
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import functools
import json
import re
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gpt1.options import number
from gpt1.parsing import Parser, add_model_options, check_paths
from gpt1.settings import is_sample_model
from utils import InputError, exit_status, whole_file

WORDS = ('very', 'positive', 'negative')
DECISIONS = {  # where the paper leaves it open
    'first token': (
        'a line break precedes each text, as in the pre-training text, so that the first token '
        'has a probability. Where the vocabulary has none, that token is not counted, and a '
        'sentence of DPRD that begins with its pronoun is left out'
    ),
    'vocabulary': (
        'probabilities are over the vocabulary. Special tokens and positions, which are rows of '
        'the same matrix, do not count'
    ),
    'long texts': 'a model reads the last n_ctx tokens: the document loses its beginning',
    'examples': (
        'the validation sets of CoLA, SST-2 and RACE (middle and high together), the test set of '
        'DPRD, which has no other'
    ),
    'threshold': (
        'CoLA: the one with the best Matthews correlation on the training set. The score is the '
        'Matthews correlation on the validation set'
    ),
    'words': 'SST-2: --words. A word of several tokens has the product of their probabilities',
    'blanks': 'RACE: the answer follows the question, also where that has a blank, `_`',
    'pronouns': (
        "DPRD: the first occurrence is meant. `'s` follows the name in place of `his`, `its`, "
        '`their`, and of `her` before a noun'
    ),
    'last words': (
        "DPRD: where no word follows the pronoun, the candidates' own tokens are compared"
    ),
    'scale': (
        '0 is a random guess: 0, 50, 25 and 50. 1 is the best of the time: 35.0, 93.2, 53.3 '
        '(ensemble; no single-model result) and 76.4; on made-up data 1 is 100'
    ),
}


def parse_args(argv=None):
    """Parse the command line. Ends the process if something is wrong."""
    decisions = [
        textwrap.fill(text, 100, initial_indent=f'    {name:13}', subsequent_indent=' ' * 17)
        for name, text in DECISIONS.items()
    ]
    parser = Parser(
        prog='zero_shot.py',
        usage='python -m gpt1.paper.zero_shot [--model_dir DIR] [options]',
        description='\n'.join([__doc__, 'Choices where the paper is silent:\n', *decisions]),
    )
    add = parser.add_argument
    add('--data_dir', help='folder of the data (default: data/, or made-up data where one is not)')
    add(
        '--words',
        nargs=3,
        metavar=('VERY', 'POSITIVE', 'NEGATIVE'),
        default=WORDS,
        help='what stands after a text of SST-2, and the two words that are compared (default: '
        f'{" ".join(WORDS)})',
    )
    n_examples = 'use so many examples of each set, the first ones (default: all)'
    add('--n_examples', type=number(int, 2, 10**9), help=n_examples)
    add('--precision', choices=('fp32', 'bf16'), default='fp32', help='of the matrix products')
    add('--out', metavar='FILE', help='write the scores to this JSON file too')
    add_model_options(parser)
    args = parser.parse_args(argv)
    check_paths(parser, model_dir=args.model_dir, data_dir=args.data_dir)
    return args


ARGS = parse_args() if __name__ == '__main__' else None  # before PyTorch, which is slow to import

import numpy as np
import torch

from datasets import find_data, find_dprd, make_samples, read_data
from gpt1.ops.batches import Tree, collate
from gpt1.ops.tied import plain_cross_entropy
from gpt1.paper.published import ZERO_SHOT_BEST as BEST
from gpt1.paper.published import ZERO_SHOT_CHANCE as CHANCE
from gpt1.paper.published import ZERO_SHOT_TITLES as TITLES
from gpt1.run import record
from gpt1.run.parallel import StepSize, find_devices, to_device
from gpt1.run.precision import autocast
from gpt1.tasks.data_files import read_lines
from gpt1.tasks.metrics import METRICS, matthews
from gpt1.weights.open import open_model
from text_utils import TextEncoder

MEASURES = {'cola': 'matthews', 'sst2': 'accuracy', 'race': 'accuracy', 'dprd': 'accuracy'}
TOKENS = 4096  # in a batch, about; no result depends on it
PREDICTIONS = 1024  # whose probabilities are in memory at a time
POSSESSIVE = ('his', 'its', 'their')
# `her` is no possessive after these, as in "made her gasp", nor before those below; a noun or an
# adjective follows a possessive.
CAUSES = ('make', 'makes', 'made', 'making', 'let', 'lets', 'letting')
AFTER_OBJECT = frozenset(
    'a about after again against all an and any as at away back be because before but by down '
    'during every for from her him his how if in into it off on or out over so than that the '
    'them then there this to too until up very was were what when where while who why with'.split()
)


# ------------------------------------------------------------------------------------- the items


class Pronoun(NamedTuple):
    """An item of DPRD: a sentence, a pronoun in it, and two candidates for whom it stands for."""

    sentence: str
    pronoun: str
    candidates: tuple[str, str]
    answer: int  # 0 or 1


def read_dprd(path: str) -> list[Pronoun]:
    """Read a file of DPRD. Raises InputError with the file and the line.

    An item has four lines: the sentence, the pronoun, the candidates with a comma between them, the
    right one. An empty line follows it.
    """
    groups = []
    last = -1
    for line_number, line in read_lines(path):
        if line_number != last + 1:
            groups.append((line_number, []))
        groups[-1][1].append(line.strip())
        last = line_number
    if not groups:
        raise InputError(f'{path} is empty: expected pronouns and their candidates')
    return [_pronoun(f'{path}, line {first}', lines) for first, lines in groups]


def _pronoun(where: str, lines: list[str]) -> Pronoun:
    if len(lines) != 4:
        raise InputError(
            f'{where}: an item of {len(lines)} lines, expected four: a sentence, a pronoun, two '
            'candidates, the right one'
        )
    sentence, pronoun, names, right = lines
    candidates = tuple(name.strip() for name in names.split(','))
    if len(candidates) != 2 or not all(candidates) or candidates[0] == candidates[1]:
        raise InputError(f'{where}: the candidates are {names[:40]!r}, expected two')
    if right not in candidates:
        raise InputError(f'{where}: {right[:40]!r} is not one of the candidates')
    item = Pronoun(sentence, pronoun, candidates, candidates.index(right))
    if find_pronoun(item) is None:
        raise InputError(f'{where}: the sentence has no {pronoun[:40]!r}')
    return item


def find_pronoun(item: Pronoun) -> re.Match | None:
    """Find the first occurrence of the pronoun as a word; the case counts only if it must."""
    pattern = rf'(?<!\w){re.escape(item.pronoun)}(?!\w)'
    return re.search(pattern, item.sentence) or re.search(pattern, item.sentence, re.IGNORECASE)


def is_possessive(before: str, pronoun: str, rest: str) -> bool:
    """Return whether a pronoun is a possessive, given the text before and after it."""
    following = re.match(r'\s+([\w-]+)', rest)
    if pronoun.lower() in POSSESSIVE:
        return following is not None
    last = (before.lower().split() or [''])[-1]
    is_her = pronoun.lower() == 'her' and last not in CAUSES
    return is_her and following is not None and following[1].lower() not in AFTER_OBJECT


@dataclass
class Items:
    """Texts with two or more ways to go on, as token ids.

    trees     the beginning of each text, and its branches: the ways to go on
    labels    [items] the right branch, or the class of a single branch
    n_scored  [items] so many tokens at the end of each branch count; 0: all of them
    n_cut     the number of texts that were longer than the model can read
    """

    trees: list[Tree] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    n_scored: list[int] = field(default_factory=list)
    n_cut: int = 0

    def add(
        self,
        trunk: Sequence[int],
        branches: Sequence[Sequence[int]],
        label: int,
        n_ctx: int,
        n_scored: int = 0,
    ) -> None:
        """Add a text. What a model of `n_ctx` positions cannot read is cut off."""
        longest = max(map(len, branches))
        room = max(n_ctx - longest, 1)
        if len(trunk) > room or longest > n_ctx - 1:
            self.n_cut += 1
        trunk = trunk[-room:]
        branches = [branch[: n_ctx - len(trunk)] for branch in branches]
        self.trees.append(
            Tree(np.array(trunk, np.int64), tuple(np.array(b, np.int64) for b in branches))
        )
        self.labels.append(label)
        self.n_scored.append(min([n_scored, *map(len, branches)]))


@dataclass
class ZeroShotSet:
    """A data set of figure 2, encoded.

    items   those that the score is about
    choose  CoLA: those that the threshold is chosen on
    sample  whether they are made up
    source  the folder or file they are from
    notes   what was decided about single items
    """

    name: str
    items: Items
    sample: bool
    source: str
    choose: Items | None = None
    notes: list[str] = field(default_factory=list)


def load_sets(
    encoder: TextEncoder,
    n_ctx: int,
    data_dir: str | None = None,
    words: Sequence[str] = WORDS,
    n_examples: int | None = None,
    names: Sequence[str] = tuple(TITLES),
) -> list[ZeroShotSet]:
    """Read and encode the data sets in `data_dir`, or made-up ones where one is not there.

    n_ctx       the number of tokens that the model can read
    words       see the description of this script
    n_examples  use so many of each set; None: all

    Raises InputError.
    """
    make_samples(names, data_dir)
    newline = encoder.encoder.get('\n</w>')
    start = [] if newline is None else [newline]
    sets = []
    for name in names:
        if name == 'dprd':
            source, is_sample = find_dprd(data_dir)
        else:
            source, is_sample = find_data(name, data_dir, or_sample=True)
        found = ZeroShotSet(name, Items(), is_sample, source)
        if name == 'dprd':
            _add_pronouns(found, read_dprd(source)[:n_examples], encoder, start, n_ctx)
        else:
            _, data = read_data(name, source)
            examples = [example for part in data.valid.values() for example in part][:n_examples]
        if name == 'cola':
            found.choose = Items()
            for items, part in ((found.items, examples), (found.choose, data.train[:n_examples])):
                _add_sentences(items, part, encoder, start, n_ctx)
            n_known = len(found.choose.trees)
            found.notes.append(f'threshold chosen on {n_known:,} training sentences')
        elif name == 'sst2':
            _add_opinions(found, examples, encoder, start, n_ctx, words)
        elif name == 'race':
            _add_questions(found.items, examples, encoder, start, n_ctx)
        if found.items.n_cut:
            found.notes.append(f'{found.items.n_cut:,} are cut to {n_ctx} tokens')
        if not start:
            found.notes.append('the vocabulary has no line break to precede a text')
        sets.append(found)
    return sets


def _add_sentences(items, examples, encoder, start, n_ctx) -> None:
    """CoLA: all tokens of a sentence count, or all but the first where nothing precedes it."""
    for example, ids in zip(examples, encoder.encode_all(e.texts[0] for e in examples)):
        trunk, branch = (start, ids) if start else (ids[:1], ids[1:])
        if not trunk or not branch:
            raise InputError(f'CoLA, sentence {example.id}: too short to have a probability')
        items.add(trunk, [branch], example.label, n_ctx)


def _add_opinions(found, examples, encoder, start, n_ctx, words) -> None:
    """SST-2: the branches are the words for negative and positive, as the labels 0 and 1 are."""
    very, positive, negative = encoder.encode_all(words)
    if not very or not positive or not negative or positive == negative:
        raise InputError(f'--words {" ".join(words)}: the vocabulary does not tell them apart')
    for example, ids in zip(examples, encoder.encode_all(e.texts[0] for e in examples)):
        found.items.add([*start, *ids, *very], [negative, positive], example.label, n_ctx)
    found.notes.append(f'"{words[1]}" against "{words[2]}" after "{words[0]}"')
    for word, ids in zip(words, (very, positive, negative)):
        if len(ids) > 1:
            found.notes.append(f'"{word}" is {len(ids)} tokens')


def _add_questions(items, examples, encoder, start, n_ctx) -> None:
    """RACE: the branches are the answers."""
    texts = iter(encoder.encode_all(text for e in examples for text in e.texts))
    for example in examples:
        article, question, *answers = [next(texts) for _ in example.texts]
        empty = [i for i, answer in enumerate(answers, 1) if not answer]
        if empty or not article + question:
            raise InputError(f'RACE, {example.id}: a text is empty')
        items.add([*start, *article, *question], answers, example.label, n_ctx)


def _add_pronouns(found, pronouns, encoder, start, n_ctx) -> None:
    """DPRD: the branches are a candidate and the rest of the sentence."""
    n_last = n_possessive = n_first = 0
    for item in pronouns:
        match = find_pronoun(item)
        before, after = item.sentence[: match.start()], item.sentence[match.end() :]
        names = item.candidates
        if is_possessive(before, item.pronoun, after):
            names = [f"{name}'s" for name in names]
            n_possessive += 1
        before, after, *names = encoder.encode_all([before, after, *names])
        n_scored = len(after)
        if not re.search(r'\w', item.sentence[match.end() :]):
            after, n_scored = [], 0
            n_last += 1
        trunk = [*start, *before]
        branches = [[*name, *after] for name in names]
        if not trunk:
            n_first += 1
            continue
        found.items.add(trunk, branches, item.answer, n_ctx, n_scored)
    if n_first:
        found.notes.append(f'{n_first:,} begin with the pronoun and are left out')
    if n_last:
        found.notes.append(f'the candidates themselves are compared in {n_last:,}')
    if n_possessive:
        found.notes.append(f"a name has 's in {n_possessive:,}")


# ------------------------------------------------------------------------------------- the scores


@torch.inference_mode()
def branch_scores(
    model: torch.nn.Module, trees: Sequence[Tree], precision: str = 'fp32'
) -> list[list[np.ndarray]]:
    """Return the log-probability of each token of each branch, given all before it.

    model  an `LMModel` or a `DoubleHeadModel`, set to evaluation

    The result has an entry for each tree, and in it one for each branch: float32 [tokens].
    """
    config = model.config
    device = next(model.parameters()).device
    share = not config.separate_rows
    batch = to_device(collate(trees, config.first_position, share), device)
    with autocast(device, precision):
        h, embedding = model.transformer(batch)
        vocabulary = embedding.matrix[: config.n_vocab]
        parts = [
            -plain_cross_entropy(h[parents], vocabulary.to(h.dtype), targets)
            for parents, targets in zip(
                batch.lm_parent.split(PREDICTIONS), batch.lm_target.split(PREDICTIONS)
            )
        ]
    scores = torch.cat(parts).float().cpu().numpy()
    result = []
    at = 0
    for tree in trees:
        of_tree = []
        for i, branch in enumerate(tree.branches):
            # Every token after the first is predicted. A shared row has the trunk once.
            if i == 0 or not share:
                at += len(tree.trunk) - 1
            of_tree.append(scores[at : at + len(branch)])
            at += len(branch)
        result.append(of_tree)
    return result


def score_items(
    model: torch.nn.Module, items: Items, total: bool = False, precision: str = 'fp32'
) -> np.ndarray:
    """Return the score of each branch, [items, branches]; -inf where an item has fewer.

    That is the mean log-probability of the tokens that count, or with `total` their sum. Items of
    similar length form a batch.
    """
    lengths = [len(tree.trunk) + sum(map(len, tree.branches)) for tree in items.trees]
    n_branches = max(len(tree.branches) for tree in items.trees)
    result = np.full((len(items.trees), n_branches), -np.inf)
    batches = batches_of(lengths)
    steps = StepSize(max(map(len, batches)), 'examples', '', 'the results are the same')

    def scores_of(places, step_size):
        scores = []
        for start in range(0, len(places), step_size):
            trees = [items.trees[i] for i in places[start : start + step_size]]
            scores += branch_scores(model, trees, precision)
        return scores

    for places in batches:
        scores = steps.fit(functools.partial(scores_of, places), model)
        for i, of_tree in zip(places, scores):
            for k, tokens in enumerate(of_tree):
                counted = tokens[len(tokens) - items.n_scored[i] :] if items.n_scored[i] else tokens
                result[i, k] = counted.sum() if total else counted.mean()
    return result


def batches_of(lengths: Sequence[int]) -> list[list[int]]:
    """Split items into batches of about `TOKENS` tokens, in order of their lengths."""
    batches = [[]]
    size = 0
    for i in np.argsort(lengths, kind='stable').tolist():
        if size and size + lengths[i] > TOKENS:
            batches.append([])
            size = 0
        batches[-1].append(i)
        size += lengths[i]
    return batches


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the threshold above which to call a score acceptable: the best Matthews correlation.

    scores  [sentences]
    labels  [sentences] 1: acceptable

    It lies in the middle between two scores, or below or above all. Of equally good ones, the
    lowest is taken.
    """
    order = np.argsort(scores, kind='stable')
    scores, labels = scores[order], labels[order]
    n, n_right = len(labels), labels.sum()
    # With a threshold after the first k scores: how many above it are acceptable
    accepted = n_right - np.concatenate([[0], np.cumsum(labels)])
    below = np.arange(n + 1)
    right = accepted + below - (n_right - accepted)
    found = matthews(right, [n - n_right, n_right], np.stack([below, n - below], axis=1))
    apart = np.concatenate([[True], scores[1:] > scores[:-1], [True]])
    best = int(np.argmax(np.where(apart, found, -np.inf)))
    edges = np.concatenate([[scores[0] - 1], scores, [scores[-1] + 1]])
    return float((edges[best] + edges[best + 1]) / 2)


def score_of(
    model: torch.nn.Module, found: ZeroShotSet, precision: str = 'fp32'
) -> tuple[float, str]:
    """Return the score of a data set, and what was chosen to get it, if anything."""
    items = found.items
    labels = np.array(items.labels)
    scores = score_items(model, items, total=found.name == 'sst2', precision=precision)
    chosen = ''
    if found.name == 'cola':
        known = score_items(model, found.choose, precision=precision)[:, 0]
        threshold = best_threshold(known, np.array(found.choose.labels))
        predictions = (scores[:, 0] > threshold).astype(int)
        chosen = f'the threshold is {threshold:.3f}'
    else:
        predictions = scores.argmax(1)
    return METRICS[MEASURES[found.name]](labels, predictions), chosen


def normalize(name: str, score: float, is_sample: bool) -> float:
    """Return a score on figure 2's scale: 0 is a random guess, 1 the best of the time."""
    best = 100.0 if is_sample else BEST[name]
    return (score - CHANCE[name]) / (best - CHANCE[name])


def all_scores(
    model: torch.nn.Module, sets: Sequence[ZeroShotSet], precision: str = 'fp32'
) -> dict[str, float]:
    """Return the scores of some data sets, {'zs_cola': ...}, as `pretrain.py` logs them."""
    was_training = model.training
    model.eval()
    result = {f'zs_{found.name}': score_of(model, found, precision)[0] for found in sets}
    model.train(was_training)
    return result


def describe_sets(sets: Sequence[ZeroShotSet]) -> dict[str, dict]:
    """Return what a log should say about data sets, as JSON values."""
    return {
        found.name: {
            'examples': len(found.items.trees),
            'source': found.source,
            'sample': found.sample,
            'notes': found.notes,
        }
        for found in sets
    }


def due_updates(updates_per_epoch: int, n_epochs: int) -> list[int]:
    """Return the updates after which pre-training logs the scores.

    They are 1,000, 2,000, 4,000 and 8,000 within the first epoch, and the ends of epochs 1, 2, 4, 8
    and so on, and of the last one (figure 2). An epoch of fewer than 8,000 updates has a
    sixteenth, an eighth, a quarter and half of it instead of the first four.
    """
    first = [1000, 2000, 4000, 8000]
    if updates_per_epoch <= first[-1]:
        first = [max(1, updates_per_epoch // part) for part in (16, 8, 4, 2)]
    epochs = [1]
    while 2 * epochs[-1] <= n_epochs:
        epochs.append(2 * epochs[-1])
    return sorted({*first, *(updates_per_epoch * n for n in [*epochs, n_epochs])})


# -------------------------------------------------------------------------------------------- run


def run(args: Namespace) -> None:
    """Print the scores of a model. Raises InputError."""
    [device] = find_devices(args.device, 1)
    opened = open_model(args.model_dir, None, args.n_head, args.afn)
    if is_sample_model(opened.path):
        print("our sample model, not OpenAI's: python download.py downloads that", file=sys.stderr)
    model = opened.model.to(device)
    n_ctx = model.config.n_ctx
    make_samples(TITLES, args.data_dir)
    about = record.of_zero_shot(args, opened.path) if args.out else {}  # before they are read
    result = {'model': opened.path}
    sets = load_sets(opened.encoder, n_ctx, args.data_dir, args.words, args.n_examples)
    for found in sets:
        name, measure = found.name, MEASURES[found.name]
        score, chosen = score_of(model, found, args.precision)
        scaled = normalize(name, score, found.sample)
        print(
            f'{TITLES[name]:6} {score:6.2f}  {measure}; chance {CHANCE[name]:.0f}, on the scale of '
            f'figure 2 {scaled:.3f}'
        )
        made_up = ' (made up)' if found.sample else ''
        found.notes += [chosen] if chosen else []
        for note in (
            f'{len(found.items.trees):,} examples of {found.source}{made_up}',
            *found.notes,
        ):
            print(f'       {note}')
        about_set = describe_sets([found])[name]
        result[name] = {'figure': score, 'metric': measure, 'normalized': scaled, **about_set}
    if args.out:
        result['run'] = record.finished(about)
        with whole_file(args.out) as f:
            json.dump(result, f, indent=1)


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    args = parse_args(argv) if ARGS is None else ARGS
    return exit_status('zero_shot.py', run, args, is_result=True)


if __name__ == '__main__':
    sys.exit(main())
