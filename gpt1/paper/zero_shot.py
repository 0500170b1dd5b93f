"""What a pre-trained model knows without fine-tuning (paper, section 5; figure 2, right).

    python -m gpt1.paper.zero_shot --model_dir model/mine --data_dir data/ --out zero-shot.json
    python -m gpt1.paper.zero_shot films.csv --template "The film was {}." --answers great terrible

The first command prints four scores of a language model, on the data sets that are in --data_dir;
where one is not there, on made-up data. `pretrain.py --zero_shot` writes them to its log.

    CoLA   a sentence is acceptable if the mean log-probability of its tokens is above a threshold
    SST-2  after the text and `very`: is `positive` or `negative` the likelier next word?
    RACE   after the document and the question: which answer has the highest mean log-probability?
    DPRD   with which candidate in the pronoun's place has the rest of the sentence the higher mean
           log-probability? (definite pronouns: Rahman & Ng 2012; "Winograd schemas" in the paper)

What is decided where the paper is silent stands in gpt1/paper/published.toml.

The second command asks about each row of a .csv, .tsv or .jsonl file of your own, and prints the
accuracy, or the predictions if the file has no labels. Its columns are `text`, or `text1` and
`text2`, with the same --answers for all rows; or `context`, `choice1`, `choice2`, ... The template
has {} in the place of the answer, and may have {text}, {text1}, {text2} or {context}; if it has
none of these, the text comes before it. `label` is an answer, or the number of the right choice.
"""

import gpt1.startup  # noqa: F401 (before the import of any library)

import functools
import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpt1.model_options import add_model_options, check_file
from gpt1.options import Number
from gpt1.paper.prompts import SETS, WORDS, Prompt, own_prompts, own_task, read_dprd
from gpt1.paper.published import ZERO_SHOT, normalize, standard_error
from gpt1.paper.published import ZERO_SHOT_TITLES as TITLES
from gpt1.parsing import Parser, check_paths
from gpt1.settings import is_sample_model
from gpt1.tasks.data_files import quoted
from utils import InputError, exit_status, whole_file


def parse_args(argv=None):
    """Parse the command line. Ends the process if something is wrong."""
    usage = 'python -m gpt1.paper.zero_shot [FILE] [--model_dir DIR] [options]'
    parser = Parser(prog='zero_shot.py', usage=usage, description=__doc__)
    add = parser.add_argument
    add('file', nargs='?', metavar='FILE', help='your own data (default: the four data sets)')
    add('--template', default='{}', help='what is asked about each row of FILE')
    answers = 'the answers for all rows of FILE; with CLASS=ANSWER, the file has CLASS as a label'
    add('--answers', nargs='+', default=[], metavar='ANSWER', help=answers)
    score = (
        'compare the probabilities of whole answers, or of their tokens on average, which is fair '
        'to longer ones (default: sum with --answers, else mean)'
    )
    add('--compare', choices=('sum', 'mean'), help=score)
    add('--data_dir', help='folder of the data (default: data/, or made-up data where one is not)')
    words = (
        'what stands after a text of SST-2, and the two words that are compared (default: '
        f'{" ".join(WORDS)})'
    )
    names = 'VERY', 'POSITIVE', 'NEGATIVE'
    add('--words', nargs=3, metavar=names, default=WORDS, help=words)
    n_examples = 'use so many examples of each set, the first ones (default: all)'
    add('--n_examples', type=Number(int, 2, 10**9), help=n_examples)
    add('--precision', choices=('fp32', 'bf16'), default='fp32', help='of the matrix products')
    out = 'write the scores to this JSON file too; with FILE, the predictions to this CSV file'
    add('--out', metavar='FILE', help=out)
    add_model_options(parser)
    args = parser.parse_args(argv)
    check_paths(parser, model_dir=args.model_dir, data_dir=args.data_dir)
    if args.file:
        check_file(parser, args.file)
        if args.template.count('{}') != 1:
            parser.error(f'--template {args.template}: expected {{}} once, for the answer')
        if len(args.answers) == 1 or len(set(args.answers)) < len(args.answers):
            parser.error('--answers: expected two or more that differ')
    elif args.answers or args.template != '{}':
        parser.error('--template and --answers need the FILE that they are about')
    return args


ARGS = parse_args() if __name__ == '__main__' else None  # before PyTorch, which is slow to import

import numpy as np
import torch

from datasets import find_data, find_dprd, make_samples, read_data, read_examples
from gpt1.ops.batches import Tree, collate
from gpt1.ops.tied import plain_cross_entropy
from gpt1.report.predictions import write_predictions
from gpt1.run import record
from gpt1.run.depends import of_zero_shot
from gpt1.run.parallel import StepSize, find_devices, to_device
from gpt1.run.precision import autocast
from gpt1.tasks.metrics import METRICS, matthews
from gpt1.weights.open import open_model
from text_utils import TextEncoder

TOKENS = 4096  # in a batch, about; no result depends on it
PREDICTIONS = 1024  # whose probabilities are in memory at a time


# ------------------------------------------------------------------------------------- the items


class Item(NamedTuple):
    """A text with one or more ways to go on, as token ids."""

    tree: Tree  # the beginning of the text, and its branches: the ways to go on
    label: int | None  # the right branch, or the class of a single branch; None: not known
    n_scored: int = 0  # so many tokens at the end of each branch count; 0: all of them


def encode_prompts(
    prompts: Sequence[Prompt], encoder: TextEncoder, n_ctx: int, notes: list[str]
) -> list[Item]:
    """Return prompts as token ids. Those that begin with what is asked may be left out.

    notes  a list for remarks

    Raises InputError.
    """
    start = [encoder.encoder[word] for word in ('\n</w>',) if word in encoder.encoder]
    texts = [text for p in prompts for text in (*p.before, *p.endings, p.after)]
    ids = iter(encoder.encode_all(texts))
    items, n_cut = [], 0
    for p in prompts:
        trunk = [*start, *itertools.chain.from_iterable(next(ids) for _ in p.before)]
        endings = [next(ids) for _ in p.endings]
        after = next(ids)
        if not trunk and len(endings) == 1:  # the first token has no probability
            trunk, endings = endings[0][:1], [endings[0][1:]]
        if not all(endings):
            raise InputError(
                f'{p.where}: a text to compare has no tokens: {quoted(p.endings)[:200]}'
            )
        if trunk:
            branches = [[*ending, *after] for ending in endings]
            items.append(cut(trunk, branches, p.label, n_ctx, len(after) if p.rest else 0))
            n_cut += max(map(len, branches)) + len(trunk) > n_ctx
    if len(items) < len(prompts):
        notes.append(f'{len(prompts) - len(items):,} begin with the pronoun and are left out')
    if n_cut:
        notes.append(f'{n_cut:,} are cut to {n_ctx} tokens')
    return items


def check_apart(items: Sequence[Item], answers: Sequence[str]) -> None:
    """Raise InputError if answers that are the same for all items have the same tokens."""
    if len({tuple(branch) for branch in items[0].tree.branches}) < len(answers):
        raise InputError(
            f'the vocabulary does not tell {quoted(answers)} apart: choose other words'
        )


def cut(trunk, branches, label: int | None, n_ctx: int, n_scored: int = 0) -> Item:
    """Return an item without what a model of `n_ctx` positions cannot read: the beginning."""
    trunk = np.array(trunk[-max(n_ctx - max(map(len, branches)), 1) :], np.int64)
    branches = tuple(np.array(branch[: n_ctx - len(trunk)], np.int64) for branch in branches)
    return Item(Tree(trunk, branches), label, min([n_scored, *map(len, branches)]))


@dataclass
class ZeroShotSet:
    """A data set of figure 2, encoded."""

    name: str
    items: list[Item]
    sample: bool  # whether they are made up
    source: str  # the folder or file they are from
    notes: list[str]  # what was decided about single items
    choose: Sequence[Item] = ()  # CoLA: those that the threshold is chosen on


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
    sets = []
    for name in names:
        choose, notes = (), []
        if name == 'dprd':
            source, is_sample = find_dprd(data_dir)
            examples = read_dprd(source)
        else:
            source, is_sample = find_data(name, data_dir, or_sample=True)
            _, data = read_data(name, source)
            examples = [example for part in data.valid.values() for example in part]
        if name == 'cola':
            known = SETS[name].prompts(data.train[:n_examples], words, notes)
            choose = encode_prompts(known, encoder, n_ctx, [])
            notes.append(f'threshold chosen on {len(known):,} training sentences')
        prompts = SETS[name].prompts(examples[:n_examples], words, notes)
        items = encode_prompts(prompts, encoder, n_ctx, notes)
        if '\n</w>' not in encoder.encoder:
            notes.append('the vocabulary has no line break to precede a text')
        if name == 'sst2':
            check_apart(items, words[1:])
        sets.append(ZeroShotSet(name, items, is_sample, source, notes, choose))
    return sets


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
    model: torch.nn.Module, items: Sequence[Item], total: bool = False, precision: str = 'fp32'
) -> np.ndarray:
    """Return the score of each branch, [items, branches]; -inf where an item has fewer.

    That is the mean log-probability of the tokens that count, or with `total` their sum. Items of
    similar length form a batch.
    """
    lengths = np.array([len(tree.trunk) + sum(map(len, tree.branches)) for tree, *_ in items])
    order = np.argsort(lengths, kind='stable')
    ends = np.flatnonzero(np.diff(np.cumsum(lengths[order]) // TOKENS)) + 1
    batches = np.split(order, ends)
    steps = StepSize(max(map(len, batches)), 'examples', '', 'the results are the same')

    def scores_of(places, step_size):
        scores = []
        for start in range(0, len(places), step_size):
            trees = [items[i].tree for i in places[start : start + step_size]]
            scores += branch_scores(model, trees, precision)
        return scores

    result = np.full((len(items), max(len(item.tree.branches) for item in items)), -np.inf)
    for places in batches:
        scores = steps.fit(functools.partial(scores_of, places), model)
        for i, of_tree in zip(places, scores):
            for k, tokens in enumerate(of_tree):
                counted = tokens[-items[i].n_scored :]  # all of them for 0
                result[i, k] = counted.sum() if total else counted.mean()
    return result


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
) -> tuple[float, list[str]]:
    """Return the score of a data set, and what was chosen to get it, if anything."""
    scores = score_items(model, found.items, SETS[found.name].total, precision)
    chosen = []
    if found.choose:
        known = score_items(model, found.choose, precision=precision)[:, 0]
        threshold = best_threshold(known, np.array([item.label for item in found.choose]))
        predictions = (scores[:, 0] > threshold).astype(int)
        chosen = [f'the threshold is {threshold:.3f}']
    else:
        predictions = scores.argmax(1)
    metric = METRICS[ZERO_SHOT[found.name]['metric']]
    return metric(np.array([item.label for item in found.items]), predictions), chosen


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
            'examples': len(found.items),
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
    """Print the scores of a model, or the answers to the rows of a file. Raises InputError."""
    [device] = find_devices(args.device, 1)
    opened = open_model(args.model_dir, None, args.n_head, args.afn)
    if is_sample_model(opened.path):
        print("our sample model, not OpenAI's: python download.py downloads that", file=sys.stderr)
    opened.model.to(device)
    if args.file:
        ask_own(args, opened)
    else:
        ask_paper(args, opened)


def ask_paper(args: Namespace, opened) -> None:
    """Print the scores on the data sets of figure 2, and write them to --out."""
    n_ctx = opened.model.config.n_ctx
    make_samples(TITLES, args.data_dir)
    about = of_zero_shot(args, opened.path) if args.out else {}  # before they are read
    result = {'model': opened.path}
    for found in load_sets(opened.encoder, n_ctx, args.data_dir, args.words, args.n_examples):
        name, about_set = found.name, describe_sets([found])[found.name]
        score, chosen = score_of(opened.model, found, args.precision)
        found.notes += chosen
        error = standard_error(name, score, about_set['examples'])
        scaled = normalize(name, score, found.sample)
        metric, chance = ZERO_SHOT[name]['metric'], ZERO_SHOT[name]['chance']
        print(
            f'{TITLES[name]:6} {score:6.2f} ± {error:.2f}  {metric}, standard error; chance '
            f'{chance:.0f}, on the scale of figure 2 {scaled:.3f}'
        )
        made_up = ' (made up)' if found.sample else ''
        for note in (
            f'{about_set["examples"]:,} examples of {found.source}{made_up}',
            *found.notes,
        ):
            print(f'       {note}')
        values = {'figure': score, 'error': error, 'metric': metric, 'normalized': scaled}
        result[name] = {**values, **about_set}
    if args.out:
        result['run'] = record.finished(about)
        with whole_file(args.out) as f:
            json.dump(result, f, indent=1)


def ask_own(args: Namespace, opened) -> None:
    """Print how many rows of a file are answered rightly, or without labels the predictions."""
    task = own_task(args.template, args.answers)
    notes = []
    examples = read_examples(args.file, task, notes)[: args.n_examples]
    prompts = own_prompts(task, examples, args.template, args.answers)
    items = encode_prompts(prompts, opened.encoder, opened.model.config.n_ctx, notes)
    if len(items) < len(prompts):
        raise InputError(f'{args.file}: no text stands before the answer, so it has no probability')
    check_apart(items, args.answers)
    for note in notes:
        print(f'warning: {note}', file=sys.stderr)
    total = args.compare == 'sum' if args.compare else bool(args.answers)
    scores = score_items(opened.model, items, total, args.precision)
    labels = [item.label for item in items]
    known = [i for i, label in enumerate(labels) if label is not None]
    if args.out:
        with whole_file(args.out) as f:
            write_predictions(f, task, examples, scores)
    if not known:
        if not args.out:
            write_predictions(sys.stdout, task, examples, scores)
        return
    labels = np.array(labels)[known].astype(int)
    right = int((scores[known].argmax(1) == labels).sum())
    share, most = right / len(known), np.bincount(labels).max() / len(known)
    error = np.sqrt(share * (1 - share) / len(known))
    print(
        f'accuracy {share:.2%} ± {error:.2%} (standard error): {right:,} of {len(known):,} '
        f'examples; the most frequent answer alone would have {most:.2%}'
    )


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    args = parse_args(argv) if ARGS is None else ARGS
    return exit_status('zero_shot.py', run, args, is_result=True)


if __name__ == '__main__':
    sys.exit(main())
