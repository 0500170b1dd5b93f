"""Pre-train GPT-1 on plain text: the first half of the paper (sections 3.1 and 4.1).

    python pretrain.py --text books/ --out model/mine
    python pretrain.py --text books/ --init model/ --out model/mine
    torchrun --nproc_per_node 8 pretrain.py --text books/ --out model/mine --precision bf16
    python train.py --dataset rocstories --model_dir model/mine

The run learns byte pairs and encodes the text, trains the language model and writes what train.py
reads. The folder `work` in --out holds what it needs to resume; it can be deleted after the end.
"""

import os
import sys

# With PYTHONSAFEPATH, Python does not look for modules beside the script.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import gpt1.startup  # noqa: F401 (before the import of any library)

from gpt1.parsing import parse_pretrain_args
from gpt1.settings import check_no_weights, model_settings

# Before PyTorch is imported, which is slow: a wrong option is answered at once.
ARGS = parse_pretrain_args() if __name__ == '__main__' else None

import contextlib
import math
import shlex
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from gpt1.lstm import make_config
from gpt1.ops.batches import collate_windows, iter_data
from gpt1.report import pictures
from gpt1.report.log import Log, split_log
from gpt1.run import record
from gpt1.run.checkpoint import find_checkpoint, only_run
from gpt1.run.corpus import open_tokens, prepare, vocabulary_files
from gpt1.run.depends import of_pretraining
from gpt1.run.parallel import Ranks, StepSize, find_devices, keep_freed_memory, to_device
from gpt1.run.precision import autocast
from gpt1.run.training import Job, Trainer
from gpt1.weights.huggingface import open_weights
from gpt1.weights.openai import load_openai_pretrained_model
from gpt1.weights.parameters import save_settings
from gpt1.weights.shards import save_openai_shards
from gpt1.weights.vocabulary import open_encoder, save_vocabulary
from model_pytorch import LMModel, init_weights, special_rows
from opt import OpenAIAdam
from text_utils import TextEncoder
from utils import (
    InputError,
    ResultLogger,
    check_tensorboard,
    check_writable,
    exit_status,
    format_table,
    leave,
)

HELDOUT_WINDOWS = 1024  # at most: enough for a perplexity within a percent, quick to evaluate


# ----------------------------------------------------------------------------------- pre-training


def zero_shot():
    """The module `gpt1.paper.zero_shot`: nothing but --zero_shot needs the folder of the paper."""
    from gpt1.paper import zero_shot

    return zero_shot


class PreTraining(Job):
    """The job of pre-training: windows of n_ctx tokens are the items of `Trainer`."""

    unit, rows = 'windows', 'separate rows'
    columns = {
        'n_updates': 'd',
        'n_epochs': '.2f',
        'tr_loss': '.3f',
        'va_loss': '.3f',
        'va_perplexity': '.2f',
        'tokens_per_second': ',.0f',
    }

    def __init__(self, args, model: LMModel, tokens: np.ndarray, ranks: Ranks, sets: Sequence = ()):
        """`tokens` are the ids of the text; zero-shot scores are those of `sets`."""
        self.args, self.model, self.tokens, self.ranks = args, model, tokens, ranks
        self.n_train, n_heldout = count_windows(args, len(tokens))
        self.heldout = range(self.n_train, self.n_train + n_heldout)
        self.batch_size = args.n_windows
        self.speed = args.n_windows * args.n_ctx, 'tokens'
        self.updates_per_epoch = self.n_train // args.n_windows
        self.n_updates_total = self.updates_per_epoch * args.n_iter
        self.steps = StepSize(args.n_batch, self.unit, '', 'the results are the same')
        self.sets, self.zero_shot_at = sets, set()
        if args.zero_shot:
            self.zero_shot_at.update(zero_shot().due_updates(self.updates_per_epoch, args.n_iter))

    def batches(self, epoch):
        random_state = np.random.RandomState([self.args.seed, epoch])
        return iter_data(self.n_train, self.args.n_windows, random_state)

    def collate(self, items):
        n_ctx = self.args.n_ctx
        ids = np.stack([self.tokens[i * n_ctx : (i + 1) * n_ctx] for i in items])
        return collate_windows(ids.astype(np.int64), self.model.config.first_position)

    def due(self, n_updates):
        if n_updates == 0:  # how good the given weights are
            return self.args.init is not None
        regular = n_updates % self.args.eval_every == 0 or n_updates in self.zero_shot_at
        return regular or n_updates == self.n_updates_total

    def evaluate(self, trainer):
        va_loss = self.heldout_loss()
        line = {
            'n_epochs': trainer.n_updates / self.updates_per_epoch,
            'n_updates': trainer.n_updates,
            'va_loss': va_loss,
            'va_perplexity': math.exp(min(va_loss, 700)),
        }
        if trainer.n_updates:
            losses = trainer.meter.since_evaluation
            line['tr_loss'] = losses.value
            line['lr'] = trainer.opt.learning_rate()
            line['tokens_per_second'] = losses.n * self.speed[0] / max(trainer.seconds, 1e-9)
        if trainer.n_updates in self.zero_shot_at and self.ranks.first:
            line |= zero_shot().all_scores(self.model, self.sets, self.args.precision)
        return line

    @torch.inference_mode()
    def heldout_loss(self) -> float:
        """Return the mean loss of the held-out windows, which the ranks share."""
        self.model.eval()
        device = self.ranks.devices[0]
        mine = self.heldout[self.ranks.rank :: self.ranks.size]

        def add_up(step_size):
            total = torch.zeros((), dtype=torch.float64, device=device)
            for i in range(0, len(mine), step_size):
                batch = to_device(self.collate(mine[i : i + step_size]), device)
                with autocast(device, self.args.precision):
                    total += self.model(batch).sum()
            return total

        total = self.ranks.sum_(self.steps.fit(add_up, self.model))
        return total.item() / len(self.heldout)

    def report(self, line, log):
        """Print zero-shot scores and draw the learning curve."""
        plot(split_log(log), os.path.join(self.args.out, 'perplexity.png'))
        titles = zero_shot().TITLES if self.args.zero_shot else {}
        scores = {title: line.get(f'zs_{name}') for name, title in titles.items()}
        words = [f'{title} {score:.1f}' for title, score in scores.items() if score is not None]
        if words:
            tqdm.write(f'zero-shot {", ".join(words)}', file=sys.stdout)


def count_windows(args, n_tokens: int) -> tuple[int, int]:
    """Return how many windows to train on and to hold out. Raises InputError if too few."""
    n_heldout = min(max(round(n_tokens * args.heldout / args.n_ctx), 1), HELDOUT_WINDOWS)
    n_train = n_tokens // args.n_ctx - n_heldout
    if n_train < 1:
        raise InputError(
            f'the text has {n_tokens:,} tokens, too few: expected at least one window of --n_ctx '
            f'{args.n_ctx} tokens to train on and another one to hold out'
        )
    if n_train < args.n_windows:
        raise InputError(
            f'the text has {n_train:,} windows of {args.n_ctx} tokens to train on, too few for '
            f'one update; lower --n_windows {args.n_windows} or --n_ctx'
        )
    return n_train, n_heldout


def warm_up(args, n_updates: int) -> int:
    """Return the number of updates of the warm-up: a tenth of all where the option has no room."""
    return args.warmup_updates if args.warmup_updates <= n_updates else n_updates // 10


def plot(log: Log, path: str) -> None:
    """Draw the perplexity of the held-out text and of the training text, and the loss between."""
    updates = [line['n_updates'] for line in log.evaluations]
    train = [math.exp(min(line.get('tr_loss', math.nan), 700)) for line in log.evaluations]
    heldout = [line['va_perplexity'] for line in log.evaluations]
    curves = {'held-out text': heldout, 'training text': train}
    title = f'perplexity: {heldout[-1]:.2f} of held-out text at the end'

    def panel(axes):
        from matplotlib.ticker import LogLocator

        for name, values in curves.items():
            axes.plot(updates, values, 'o-', ms=4, label=name)
        pictures.finish(axes, title)
        axes.set_yscale('log')
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter('')

    loss = pictures.loss_panel(log.progress, 'loss of a token in training')
    panels = [panel, loss] if log.progress else [panel]
    pictures.draw(path, 7, 3.8 * len(panels), *panels)


# -------------------------------------------------------------------------------------------- run


def run(args) -> None:
    """Learn byte pairs, encode, train, write. Raises InputError and Stopped."""
    devices = find_devices(args.device, max(torch.cuda.device_count(), 1), args.precision)
    keep_freed_memory()
    ranks = Ranks(devices)
    with contextlib.ExitStack() as stack:
        # Before the processes join: they wait there, and the first one may start workers.
        is_finished = ranks.first and prepare_run(args, ranks, stack)
        stack.enter_context(ranks)
        if not ranks.from_first(lambda: is_finished):
            pre_train(ranks.from_first(lambda: args), ranks)


def prepare_run(args, ranks: Ranks, stack: contextlib.ExitStack) -> bool:
    """Check the options, hold the folder and encode the text. Returns whether nothing is to do."""
    if args.n_windows < ranks.size:
        raise InputError(f'--n_windows {args.n_windows} is less than the {ranks.size} processes')
    args.resume = args.resume or ranks.restarted
    work = os.path.join(args.out, 'work')
    checkpoint = os.path.join(work, 'checkpoint')
    if args.resume and record.is_finished(args.out, checkpoint, lambda: of_pretraining(args)):
        return True
    check_out(args, work)
    stack.enter_context(only_run(work, args.out))
    ranks.begin()
    vocabulary = args.vocabulary
    if args.init is not None:
        vocabulary = os.path.join(work, 'vocabulary')
        save_vocabulary(open_encoder(args.init), vocabulary)
    prepare(args.text, args.out, work, args.n_merges, vocabulary, args.coverage)
    return False


def check_out(args, work: str) -> None:
    """Raise InputError unless --out can be written to and nothing in it would be lost."""
    check_writable(args.out)
    if args.tensorboard:
        check_tensorboard(os.path.join(args.out, 'log'))
    if os.path.exists(os.path.join(work, 'checkpoint')):
        if args.resume:
            return
        raise InputError(
            f'{args.out} holds the checkpoint of an earlier run: give --resume to continue it, or '
            'choose another --out'
        )
    check_no_weights(args.out, 'choose another --out (to train it further, give it as --init)')
    if os.path.lexists(os.path.join(args.out, 'best_params')):
        raise InputError(f'{args.out} holds a fine-tuned model: choose another --out')
    has_record = os.path.exists(os.path.join(work, 'vocabulary.json'))
    if not has_record and any(map(os.path.exists, vocabulary_files(args.out))):
        what = 'a vocabulary that pretrain.py did not write there'
        raise InputError(f'{args.out} holds {what}: choose another --out')


def open_same_tokens(work: str, ranks: Ranks) -> tuple[np.ndarray, str]:
    """Return the token ids and their hash, on every rank. Raises InputError if they differ."""
    found = None, None
    with contextlib.suppress(OSError, KeyError):
        found = open_tokens(work)
    hashes = ranks.gather(found[1])
    if None in hashes or len(set(hashes)) > 1:
        raise InputError(
            f'the processes do not find the same text in {work}: --out must be a folder that all '
            'machines share'
        )
    return found


def pre_train(args, ranks: Ranks) -> None:
    """Do the work of one of the processes."""
    work = os.path.join(args.out, 'work')
    ranks.use_threads(min(args.n_batch, args.n_windows) * args.n_ctx, args.n_embd)
    tokens, tokens_hash = open_same_tokens(work, ranks)
    count_windows(args, len(tokens))  # before the model, which may be large
    encoder = open_encoder(args.out)
    torch.manual_seed(args.seed)
    model = LMModel(make_config(vars(args), n_vocab=encoder.n_vocab))
    ranks.from_first(lambda: fill(args, model))
    model.to(ranks.devices[0])
    sets = []
    if args.zero_shot and ranks.first:
        sets = zero_shot().load_sets(encoder, args.n_ctx, args.zero_shot_data)
    job = PreTraining(args, model, tokens, ranks, sets)
    trainer = make_trainer(args, job, tokens_hash)
    path = os.path.join(work, 'checkpoint')
    checkpoint = ranks.from_first(lambda: find_checkpoint(path, args.resume))
    lines = trainer.resume(checkpoint, path) if checkpoint else []
    del checkpoint
    logger = begin(args, job, trainer, lines) if ranks.first else None
    trainer.run(logger, path)
    if logger:
        finish(args, encoder, job, logger)
        trainer.remove_checkpoint(path)


def begin(args, job: PreTraining, trainer: Trainer, lines: list) -> ResultLogger:
    """Write the record and the log, print what the run is, and return the log."""
    about = of_pretraining(args)
    job.record = record.begin(args.out, about, lines)
    n_parameters = sum(p.numel() for p in job.model.parameters())
    source = f'from {args.init}' if args.init else 'drawn at random'
    sizes = f'{args.n_layer} layers, {args.n_head} heads'
    if args.model == 'lstm':
        sizes = f'an LSTM of {args.lstm_units:,} units'
    windows = f'{job.n_train:,} windows of {args.n_ctx} to train on, {len(job.heldout):,} held out'
    widths = f'width {args.n_embd}, vocabulary of {job.model.config.n_vocab:,}'
    table = [
        ('text', f'{len(job.tokens):,} tokens: {windows}'),
        ('model', f'{n_parameters:,} parameters {source}: {sizes}, {widths}'),
    ]
    n_warm_up = warm_up(args, job.n_updates_total)
    if n_warm_up != args.warmup_updates:
        table.append(('', f'the first {n_warm_up:,} updates are the warm-up: the text is small'))
    n_found = torch.cuda.device_count()
    if job.ranks.devices[0].type == 'cuda' and job.ranks.size < n_found:
        command = f'torchrun --nproc_per_node {n_found} pretrain.py ...'
        table.append(('', f'to use all {n_found} GPUs: {command}'))
    facts = {**vars(args), 'id': job.record['id']}
    if args.zero_shot:
        facts['zero_shot_sets'] = zero_shot().describe_sets(job.sets)
    return trainer.begin(os.path.join(args.out, 'log.jsonl'), lines, facts, table)


def finish(args, encoder: TextEncoder, job: PreTraining, logger: ResultLogger) -> None:
    """Write what train.py reads, and the record of the whole run."""
    settings = {**model_settings(args, ('model',)), 'lr': args.lr / 4, **args.settings}
    save_settings(args.out, settings, encoder)
    save_openai_shards(job.model, args.out)
    record.write(args.out, {**job.record, 'finished': True, 'scores': logger.lines[-1]})
    folder = shlex.quote(args.out)
    command = f'train.py --dataset rocstories --submit --analysis --model_dir {folder}'
    pairs = [
        ('written', args.out),
        ('to use it', f'python {command}'),
        ('', f'python generate.py --model_dir {folder}'),
    ]
    print(format_table(pairs))


def fill(args, model: LMModel) -> None:
    """Give the model its weights at the start: those of --init, or random ones.

    Raises InputError. The ranks copy those of the first one: see `ParallelModule`.
    """
    if args.init is None:
        # The paper's 0.02 at its width. The signal that passes a layer grows with
        # std * sqrt(width): with 0.02, a narrow model does not learn more than word frequencies.
        init_weights(model, std=0.02 * math.sqrt(768 / args.n_embd))
        return
    weights = open_weights(args.init)
    if args.model == 'transformer' and weights.n_layer != args.n_layer:
        raise InputError(
            f'--n_layer {args.n_layer}: the weights in {args.init} have {weights.n_layer} layers'
        )
    special = special_rows(args.n_embd, np.random.RandomState(args.seed))
    load_openai_pretrained_model(model, weights, special, args.n_layer)


def make_trainer(args, job: PreTraining, tokens_hash: str) -> Trainer:
    """Return the loop that does the job."""
    opt = OpenAIAdam(
        job.model.parameters(),
        schedule='warmup_cosine_to_zero',
        warmup=warm_up(args, job.n_updates_total) / job.n_updates_total,
        t_total=job.n_updates_total,
        **{name: getattr(args, name) for name in ('lr', 'b1', 'b2', 'e', 'l2', 'max_grad_norm')},
    )
    same = "the update stays the same, except for dropout's masks"
    steps = StepSize(args.n_batch, job.unit, 'a smaller --n_batch', same)
    identity = record.determining(args, 'pretrain.py')
    identity['the text or its encoding'] = tokens_hash
    return Trainer(job, job.model, opt, steps, identity)


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    return exit_status('pretrain.py', run, parse_pretrain_args(argv) if ARGS is None else ARGS)


if __name__ == '__main__':
    leave(main())
