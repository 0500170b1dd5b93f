"""How the program handles the largest data sets of the paper, and how fast it trains on them.

    python benchmarks/tasks.py --vocab FOLDER
    python benchmarks/tasks.py --vocab FOLDER --parts start

FOLDER holds OpenAI's vocabulary (`python download.py` fetches it). Everything else is made up. The
parts:

start    Makes a file set of the size and the format of SNLI: sentences of SNLI's lengths, words as
         frequent as words are in English (Zipf's law), one in a hundred of them new. Encodes some
         of the sentences as pretrain.py does, to compare the rates. Runs train.py: once, which
         reads, encodes and keeps the result; then again. It prints the time of reading and
         encoding, the peak memory of the processes, the time to the first update of the second
         run, the time of an evaluation, and the time of the first and of the last updates. The
         model is small: 1 layer of width 64, without LM loss.
large    The second run again, with a model of full size, from random weights. Needs what `start`
         makes.
pairs    A training step of 32 pairs of SNLI's lengths at full size, compared with
         OpenAIGPTForSequenceClassification. This has no LM loss, so it is compared with a step
         without it, too.
race     A training step of 8 questions of RACE with four choices, 512 tokens each, compared with
         OpenAIGPTDoubleHeadsModel.

A step is forward, backward and Adam, with dropout. Each implementation runs in a process of its
own, one after another in turn. All see the same texts. `transformers` gets the sequences padded to
the longest of the step. `products alone` are the matrix products of separate rows with the LM
loss, without those of attention: no program that computes them with the same library takes less
time. In `race`, all do one question at a time and add up the gradients: the others would need more
than 23 GB of memory.
"""

import argparse
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import gpt1.startup  # noqa: F401 (before the import of any library)

import numpy as np
import torch
import torch.nn.functional as F
from encode_corpus import draw_words
from finetune import (
    LM_COEF,
    LR,
    HuggingFace,
    Worker,
    cpu_name,
    peak_bytes,
    spread,
    training_shapes,
)

from datasets import TASKS
from gpt1.ops.batches import build_tree, collate
from gpt1.ops.functional import product
from gpt1.ops.masks import DropoutMasks
from gpt1.run.corpus import prepare, vocabulary_files
from gpt1.run.parallel import keep_freed_memory
from loss import JointLoss
from model_pytorch import Config, DoubleHeadModel, init_weights
from opt import OpenAIAdam
from text_utils import read_vocabulary

PARTS = ('start', 'large', 'pairs', 'race')
# Lines of SNLI's files, and how many of them have no majority label
SNLI_LINES = {'train': (550_152, 785), 'dev': (10_000, 158), 'test': (10_000, 176)}
LABELS = TASKS['snli'].labels
SMALL = dict(n_layer=1, n_embd=64, n_head=2, lm_coef=0)
FULL = dict(n_layer=12, n_embd=768, n_head=12)
COMPARED = 100_000  # pairs whose encoding is compared with that of pretrain.py
EVALUATED = 9_842 + 374  # examples: the validation set, and as many of the training set as usual


# ----------------------------------------------------------------------------------- a made-up SNLI


def make_snli(folder: str, vocab: str) -> int:
    """Write files like those of SNLI. Returns the bytes of all sentences."""
    ids = read_vocabulary(vocabulary_files(vocab)[0])
    symbols = [symbol for symbol in sorted(ids, key=ids.get) if symbol.endswith('</w>')]
    words = [symbol.removesuffix('</w>') for symbol in symbols]
    # SNLI is in plain English, with no letters but those of ASCII.
    words = [word for word in words if word.isalpha() and word.isascii()]
    random = np.random.default_rng(0)
    n_bytes = 0
    os.makedirs(folder)
    for split, (n, n_without) in SNLI_LINES.items():
        labels = np.resize(LABELS, n).astype(object)
        labels[random.choice(n, n_without, replace=False)] = '-'
        with open(os.path.join(folder, f'snli_1.0_{split}.jsonl'), 'w', encoding='utf-8') as f:
            # Each picture has a caption, of which three hypotheses are made.
            premises = sentences((n + 2) // 3, 14.1, 6.0, words, random)
            hypotheses = sentences(n, 8.3, 3.2, words, random)
            for i, hypothesis in enumerate(hypotheses):
                if i % 3 == 0:
                    premise = next(premises)
                n_bytes += len(premise.encode()) + len(hypothesis.encode())
                f.write(json.dumps(row_of(i, premise, hypothesis, labels[i])) + '\n')
    return n_bytes


def sentences(n, mean, deviation, words, random):
    """Yield n sentences. Their numbers of words have about this mean and standard deviation."""
    frequencies = 1 / (np.arange(len(words)) + 2.7)
    frequencies /= frequencies.sum()
    lengths = np.maximum(2, random.gamma((mean / deviation) ** 2, deviation**2 / mean, n)).astype(
        int
    )
    drawn = []
    for length in lengths.tolist():
        while len(drawn) < length:
            drawn += draw_words(random, words, frequencies)
        sentence = ' '.join(drawn[-length:])
        del drawn[-length:]
        yield f'{sentence.capitalize()}.'


def row_of(i, premise, hypothesis, label):
    """A line of SNLI, with its parse trees, which nobody reads but which take time to read."""
    row = {
        'annotator_labels': [label],
        'captionID': f'{i // 3}.jpg#0',
        'gold_label': label,
        'pairID': f'{i // 3}.jpg#0r{i}',
    }
    for name, text in (('sentence1', premise), ('sentence2', hypothesis)):
        words = text.split()
        row[name] = text
        row[f'{name}_binary_parse'] = '( ' + ' ( '.join(words) + ' )' * len(words)
        row[f'{name}_parse'] = '(ROOT (S (NP (NN ' + ')) (VP (VBZ '.join(words) + ')' * 8
    return row


# --------------------------------------------------------------------------------- runs of train.py


def run_train(folder, vocab, desc, stop_after, sizes):
    """Run train.py on the files in `folder`, up to an update. Returns the figures of run.py."""
    figures = os.path.join(folder, f'{desc}.json')
    encoder_path, merges_path = vocabulary_files(vocab)
    command = [sys.executable, os.path.join(HERE, 'run.py'), '--json', figures]
    command += ['--stop_after', str(stop_after), '--dataset', 'snli', '--desc', desc]
    command += ['--data_dir', folder, '--n_transfer', '-1', '--device', 'cpu']
    command += ['--encoder_path', encoder_path, '--bpe_path', merges_path]
    command += [f'--{name}={value}' for name, value in sizes.items()]
    for name in ('log', 'save', 'submission', 'analysis', 'cache'):
        command += [f'--{name}_dir', os.path.join(folder, name)]
    result = subprocess.run(command, capture_output=True, text=True)
    if not os.path.exists(figures):
        sys.exit(f'tasks.py: train.py failed:\n{result.stdout}{result.stderr}')
    for line in result.stdout.splitlines():
        if line.startswith(('data', 'encoded', 'note')):
            print('  ' + line.replace(folder, 'FOLDER'))
    with open(figures, encoding='utf-8') as f:
        return json.load(f)


def measure_prepare(folder, vocab):
    """Encode sentences of the same files as pre-training does, to compare the rates."""
    path = os.path.join(folder, 'sentences.txt')
    with (
        open(os.path.join(folder, 'snli_1.0', 'snli_1.0_train.jsonl'), encoding='utf-8') as f,
        open(path, 'w', encoding='utf-8') as text,
    ):
        for line in itertools.islice(f, COMPARED):
            row = json.loads(line)
            text.write(f'{row["sentence1"]}\n{row["sentence2"]}\n')
    print(f'the sentences of {COMPARED:,} pairs, as pretrain.py encodes them:', flush=True)
    work = os.path.join(folder, 'work')
    prepare([path], work, work, 0, vocab)


def measure_start(folder, vocab, n_updates):
    """The part `start`."""
    started = time.perf_counter()
    n_bytes = make_snli(os.path.join(folder, 'snli_1.0'), vocab)
    n_pairs = sum(n for n, _ in SNLI_LINES.values())
    print(
        f'made {n_pairs:,} pairs, {n_bytes / 1e6:.1f} MB of sentences, '
        f'in {time.perf_counter() - started:.0f} s'
    )
    process = multiprocessing.get_context('spawn').Process(
        target=measure_prepare, args=(folder, vocab)
    )
    process.start()
    process.join()

    print('first start', flush=True)
    first = run_train(folder, vocab, 'first', 1, SMALL)
    reading, encoding = (first['seconds'][name] for name in ('reading', 'encoding'))
    print(
        f'  reading {reading:.1f} s ({n_pairs / reading:,.0f} pairs/s); encoding {encoding:.1f} s '
        f'({n_bytes / 1e6 / encoding:.1f} MB/s)'
    )
    print_start(first)

    print('second start', flush=True)
    second = run_train(folder, vocab, 'second', n_updates, SMALL)
    print_start(second)
    updates = second['updates']
    if len(updates) >= 400:
        early, late = statistics.median(updates[:200]), statistics.median(updates[-200:])
        print(
            f'  an update of 32 pairs: {1000 * early:.1f} ms (median of the first 200), '
            f'{1000 * late:.1f} ms (of the last 200 of {len(updates):,})'
        )
    n_evaluations = sum(n_updates >= n for n in (1000, 2000, 4000, 8000, 16000))
    if n_evaluations:
        seconds = second['seconds']['evaluation'] / n_evaluations
        print(
            f'  an evaluation of {EVALUATED:,} pairs: {seconds:.1f} s '
            f'({EVALUATED / seconds:,.0f} pairs/s)'
        )


def print_start(figures):
    wall, cpu = figures['first_update']
    peak, worker = figures['peak_bytes'], figures['worker_peak_bytes']
    print(
        f'  the first update began after {wall:.2f} s, {cpu:.2f} s of the processor; peak memory '
        f'{peak / 1e6:,.0f} MB' + (f', of a worker {worker / 1e6:,.0f} MB' if worker else '')
    )


def measure_large(folder, vocab):
    """The part `large`."""
    print('second start with a model of full size', flush=True)
    print_start(run_train(folder, vocab, 'large', 1, FULL))


# ----------------------------------------------------------------------------------- training steps


def make_pairs(n, random, n_vocab):
    """Trees of pairs with SNLI's lengths, and their labels."""
    lengths = np.maximum(2, random.gamma((5.5, 6.7), (2.9, 1.4), (n, 2))).astype(int)
    trees = [
        build_tree([random.integers(1, n_vocab, k) for k in row], 'pair', 1, n_vocab)
        for row in lengths
    ]
    return trees, random.integers(0, 3, n)


def make_questions(n, random, n_vocab):
    """Trees of RACE's questions: each longest sequence has 512 tokens."""
    trees = []
    for _ in range(n):
        question, *options = random.integers((8, 3, 3, 3, 3), (16, 10, 10, 10, 10))
        article = 512 - 3 - question - max(options)
        texts = [random.integers(1, n_vocab, k) for k in (article, question, *options)]
        trees.append(build_tree(texts, 'choices', 2, n_vocab))
    return trees, random.integers(0, 4, n)


def micro_batches(trees, labels, size):
    for start in range(0, len(trees), size):
        yield trees[start : start + size], labels[start : start + size]


def padded(trees):
    """ids [examples, branches, length], their labels for the LM loss, places of `_classify_`."""
    sequences = [[[*tree.trunk, *branch] for branch in tree.branches] for tree in trees]
    ends = np.array([[len(sequence) - 1 for sequence in row] for row in sequences])
    ids = np.zeros((*ends.shape, ends.max() + 1), dtype=np.int64)
    lm_labels = np.full_like(ids, -100)
    for i, row in enumerate(sequences):
        for j, sequence in enumerate(row):
            ids[i, j, : len(sequence)] = lm_labels[i, j, : len(sequence)] = sequence
    return tuple(map(torch.from_numpy, (ids, lm_labels, ends)))


class Ours:
    """This project."""

    def __init__(self, config, layout, n_out, weights, share_context=False, lm_coef=LM_COEF):
        keep_freed_memory()
        self.config, self.share_context = config, share_context
        self.model = DoubleHeadModel(config, layout, n_out)
        self.model.load_state_dict(weights)
        self.loss = JointLoss(self.model, lm_coef)
        self.opt = OpenAIAdam(
            self.model.parameters(), lr=LR, schedule='warmup_constant', warmup=0.1, t_total=1000
        )

    def batch(self, trees, labels):
        return collate(trees, self.config.first_position, self.share_context, labels)

    def losses(self, trees, labels):
        batch = self.batch(trees, labels)
        return F.cross_entropy(self.model(batch, lm=False)[0], batch.target, reduction='none')

    def train(self, trees, labels, size):
        self.model.train()
        for part, part_labels in micro_batches(trees, labels, size):
            batch = self.batch(part, part_labels)
            batch.masks = DropoutMasks(int(torch.randint(2**63 - 1, ())))
            (self.loss(batch).sum() / len(trees)).backward()
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)


class DoubleHeads(HuggingFace):
    """OpenAIGPTDoubleHeadsModel, with the sum of both its losses."""

    def __init__(self, config, layout, n_out, weights):
        super().__init__(config, torch.device('cpu'), weights)

    def losses(self, trees, labels):
        ids, _, ends = padded(trees)
        logits = self.model(input_ids=ids, mc_token_ids=ends).mc_logits
        return F.cross_entropy(logits, torch.from_numpy(labels), reduction='none')

    def loss(self, trees, labels):
        ids, lm_labels, ends = padded(trees)
        labels = torch.from_numpy(labels)
        out = self.model(input_ids=ids, mc_token_ids=ends, labels=lm_labels, mc_labels=labels)
        return out.mc_loss + LM_COEF * out.loss

    def train(self, trees, labels, size):
        self.model.train()
        for part, part_labels in micro_batches(trees, labels, size):
            (self.loss(part, part_labels) * len(part) / len(trees)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1)
        self.opt.step()
        self.opt.zero_grad()


class Classification(DoubleHeads):
    """OpenAIGPTForSequenceClassification. It has no bias, no dropout before it, and no LM loss."""

    def __init__(self, config, layout, n_out, weights):
        from transformers import OpenAIGPTForSequenceClassification

        head = {name: p[:1] for name, p in weights.items() if name.startswith('task_head.')}
        super().__init__(config, layout, 1, {**weights, **head})
        model_config = self.model.config
        model_config.num_labels = n_out
        model_config.pad_token_id = 0  # it does not occur in the texts
        transformer = self.model.transformer
        self.model = OpenAIGPTForSequenceClassification(model_config)
        self.model.transformer = transformer
        with torch.no_grad():
            self.model.score.weight.copy_(weights['task_head.linear.weight'])
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.01)

    def losses(self, trees, labels):
        ids, _, _ = padded(trees)
        logits = self.model(input_ids=ids[:, 0]).logits
        return F.cross_entropy(logits, torch.from_numpy(labels), reduction='none')

    def loss(self, trees, labels):
        return self.losses(trees, labels).mean()


PRODUCTS = 'products alone'


class Products:
    """No program: the matrix products of the linear layers and of the LM head."""

    def __init__(self, config, layout, n_out, weights):
        self.config = config
        self.operand = functools.cache(torch.randn)  # one for each size

    def train(self, trees, labels, size):
        for part, _ in micro_batches(trees, labels, size):
            lengths = [len(tree.trunk) + len(b) for tree in part for b in tree.branches]
            n_tokens = sum(lengths)
            n_predictions = n_tokens - len(lengths)
            for m, k, n, count in training_shapes(n_tokens, n_predictions, self.config, 'cpu'):
                for _ in range(count):
                    product(self.operand(m, k), self.operand(k, n))


STEPS = {
    'pairs': {
        'ours': (Ours, {}),
        'ours without LM loss': (Ours, {'lm_coef': 0}),
        'transformers': (Classification, {}),
        PRODUCTS: (Products, {}),
    },
    'race': {
        'ours, separate rows': (Ours, {}),
        'ours, shared rows': (Ours, {'share_context': True}),
        'transformers': (DoubleHeads, {}),
        PRODUCTS: (Products, {}),
    },
}


class StepWorker(Worker):
    """A process that does training steps of one implementation."""

    def __init__(self, *args):
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context('spawn').Process(
            target=do_steps, args=(theirs, *args), daemon=True
        )
        self.process.start()
        theirs.close()  # so that a process that dies is noticed


def do_steps(connection, part, name, config, batches, size):
    """Answer requests: 'losses' of the first example without dropout; the number of a batch: its
    training step's wall and processor seconds, and the peak memory so far.
    """
    with contextlib.suppress(ImportError):
        import transformers

        transformers.logging.set_verbosity_error()
    layout, n_out = ('pair', 3) if part == 'pairs' else ('choices', 1)
    torch.manual_seed(0)
    model = DoubleHeadModel(config, layout, n_out)
    init_weights(model)  # the bias of the head is 0
    variant, options = STEPS[part][name]
    model = variant(config, layout, n_out, model.state_dict(), **options)
    while (request := connection.recv()) is not None:
        [request] = request
        if request == 'losses':
            model.model.eval()
            trees, labels = batches[0]
            with torch.no_grad():
                connection.send(model.losses(trees[:1], labels[:1]).tolist())
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        model.train(*batches[request], size)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        connection.send((*seconds, peak_bytes(torch.device('cpu'))))


def measure_steps(part, n_steps, n_questions, sizes, n_vocab):
    """The parts `pairs` and `race`."""
    random = np.random.default_rng(0)
    make, n, size = (make_pairs, 32, 32) if part == 'pairs' else (make_questions, n_questions, 1)
    batches = [make(n, random, n_vocab) for _ in range(n_steps)]
    config = Config(n_vocab=n_vocab, n_ctx=512, **sizes)
    n_tokens = statistics.mean(
        len(tree.trunk) + len(branch)
        for trees, _ in batches
        for tree in trees
        for branch in tree.branches
    )
    print(
        f'{part}: {n} examples a step, {size} at a time; {n_tokens:.0f} tokens a sequence; '
        f'{n_steps} steps after one that is not counted',
        flush=True,
    )
    workers = {name: StepWorker(part, name, config, batches, size) for name in STEPS[part]}
    losses = {name: w.ask('losses') for name, w in workers.items() if name != PRODUCTS}
    expected = next(iter(losses.values()))
    difference = max(abs(np.subtract(values, expected)).max() for values in losses.values())
    print(f'  losses of the classifier without dropout differ by at most {difference:.1e}')
    if difference > 1e-4:
        sys.exit('tasks.py: the implementations do not compute the same losses')

    results = {name: [] for name in workers}
    for number in (0, *range(n_steps)):
        for name, worker in workers.items():
            results[name].append(worker.ask(number))
    for worker in workers.values():
        worker.end()
    theirs = [wall for wall, _, _ in results['transformers'][1:]]
    for name, (_, *steps) in results.items():
        wall = [seconds for seconds, _, _ in steps]
        median, low, high = spread(wall)
        ratio = statistics.median(b / a for a, b in zip(wall, theirs))
        cpu = statistics.median(seconds for _, seconds, _ in steps)
        print(
            f'  {name:22} {median:7.2f} s ({low:.2f}-{high:.2f}), CPU {cpu:7.2f} s, '
            f'{ratio:5.2f} times transformers, peak memory {steps[-1][2] / 1e9:5.2f} GB',
            flush=True,
        )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--vocab', required=True, help="folder with OpenAI's two vocabulary files")
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS, help='what to measure')
    parser.add_argument('--folder', help='keep the files here, for another measurement')
    parser.add_argument('--updates', type=int, default=1200, help='of the second run')
    parser.add_argument('--steps', type=int, default=3, help='timed training steps')
    parser.add_argument('--questions', type=int, default=8, help='of RACE in a step')
    parser.add_argument('--n_layer', type=int, default=12, help='of the training steps')
    args = parser.parse_args(argv)
    load = ', '.join(f'{value:.1f}' for value in os.getloadavg())
    print(
        f'{cpu_name()}, {torch.get_num_threads()} threads, load {load}; torch {torch.__version__}',
        flush=True,
    )
    n_vocab = len(read_vocabulary(vocabulary_files(args.vocab)[0]))
    with contextlib.ExitStack() as stack:
        folder = args.folder or stack.enter_context(tempfile.TemporaryDirectory())
        if 'start' in args.parts:
            measure_start(folder, args.vocab, args.updates)
        if 'large' in args.parts:
            measure_large(folder, args.vocab)
    for part in ('pairs', 'race'):
        if part in args.parts:
            measure_steps(
                part, args.steps, args.questions, {**FULL, 'n_layer': args.n_layer}, n_vocab
            )


if __name__ == '__main__':
    main()
