"""Pre-train GPT-1 on plain text: the first half of the paper (sections 3.1 and 4.1).

    python pretrain.py --text books/ --out model/mine
    torchrun --nproc_per_node 8 pretrain.py --text books/ --out model/mine --precision bf16
    python train.py --dataset rocstories --model_dir model/mine ...

Reads top to bottom: options, then the run: learn byte pairs -> encode the text -> train the language model -> write what train.py reads. What it
needs to go on after an interruption lies in the folder `work` of --out.
"""
import contextlib
import functools
import hashlib
import json
import math
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from itertools import islice

import numpy as np
import spacy
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from model_pytorch import ACT_FNS, Config, LMModel, init_weights, save_openai_shards
from opt import OpenAIAdam
from text_utils import TextEncoder, read_merges, read_vocabulary, split_words
from utils import InputError, Parser, check_writable, collate_windows, exit_status, find_devices, iter_data, number, whole_file

ENCODER, MERGES, SETTINGS = 'encoder_bpe_40000.json', 'vocab_40000.bpe', 'settings.json'
BLOCK = 1 << 20             # bytes of text a worker reads at a time
LONGEST_LINE = 1 << 16      # bytes; a longer line may be cut at a space
MAX_CHARACTERS = 1000       # in a learned vocabulary: the commonest; OpenAI's has 238
MAX_WORDS = 1 << 22         # counted at a time; beyond, the rarest are forgotten
HELDOUT_WINDOWS = 1024      # at most: enough for a perplexity good to a percent, and quick to evaluate
PATIENCE = timedelta(days=7)  # with which the other processes wait for the first to encode the text; torchrun ends them if it dies
# Options that a resumed run may change: they say where, not what, is computed.
CHANGEABLE = ('text', 'out', 'vocabulary', 'resume', 'device', 'n_micro', 'eval_every', 'save_every')


# -------------------------------------------------------------------------------------------------------------- options

def parse_args(argv=None):
    parser = Parser(usage='python pretrain.py --text books/ --out model/mine [options]',
                    description='Pre-train GPT-1 on plain text, for train.py --model_dir to fine-tune.',
                    epilog='Defaults are those of the paper (Radford et al. 2018, section 4.1), unless a line says otherwise.')
    rate = number(float, 0, 1, but=[1])

    group = parser.add_argument_group('what to do')
    group.add_argument('--text', nargs='+', required=True, help='UTF-8 text files, or folders, whose .txt files are read')
    group.add_argument('--out', required=True, help='folder for the vocabulary, the weights, the log and the curve')
    group.add_argument('--resume', action='store_true', help='go on with what is in --out')
    group.add_argument('--seed', type=number(int, 0, 2 ** 32 - 1), default=42, help='for the weights, the order of the windows and dropout (ours)')

    group = parser.add_argument_group('vocabulary')
    group.add_argument('--n_merges', type=number(int, 0), default=40000, help='byte pairs to learn from the text')
    group.add_argument('--vocabulary', metavar='DIR', help=f'take {ENCODER} and {MERGES} from this folder instead of learning them')

    group = parser.add_argument_group('model')
    group.add_argument('--n_ctx', type=number(int, 2), default=512, help='tokens in a window, and positions')
    group.add_argument('--n_embd', type=number(int, 1), default=768, help='width')
    group.add_argument('--n_head', type=number(int, 1), default=12, help='attention heads')
    group.add_argument('--n_layer', type=number(int, 1), default=12, help='layers')
    group.add_argument('--afn', choices=list(ACT_FNS), default='gelu', help='activation of the feed-forward layers')
    group.add_argument('--embd_pdrop', type=rate, default=0.1, help='dropout rate of the embedding matrix')
    group.add_argument('--attn_pdrop', type=rate, default=0.1, help='dropout rate of the attention probabilities')
    group.add_argument('--resid_pdrop', type=rate, default=0.1, help='dropout rate before each residual sum')

    group = parser.add_argument_group('training')
    group.add_argument('--n_iter', type=number(int, 1), default=100, help='epochs')
    group.add_argument('--n_batch', type=number(int, 1), default=64, help='windows in an update, over all devices')
    group.add_argument('--n_micro', type=number(int, 1), default=8, help='windows a device takes at a time; lower it to save memory (ours)')
    group.add_argument('--heldout', type=number(float, 0, 0.5, but=[0]), default=0.01,
                       help=f'share of the text, at its end, to measure perplexity on; at most {HELDOUT_WINDOWS} windows (ours)')
    group.add_argument('--eval_every', type=number(int, 1), default=1000, help='updates from one evaluation to the next (ours)')
    group.add_argument('--save_every', type=number(int, 1), default=1000, help='updates from one checkpoint to the next (ours)')

    group = parser.add_argument_group('optimizer')
    group.add_argument('--lr', type=number(float, 0), default=2.5e-4, help='peak learning rate')
    group.add_argument('--lr_warmup', type=number(int, 0), default=2000, help='updates in which the learning rate rises; then a cosine takes it to 0')
    group.add_argument('--max_grad_norm', type=number(float, -1), default=1, help='clip the gradients\' global norm to this; 0 or -1: do not clip')
    group.add_argument('--l2', type=number(float, 0), default=0.01, help='decay, of parameters of more than one dimension')
    group.add_argument('--b1', type=rate, default=0.9, help='decay rate of the gradients\' running mean')
    group.add_argument('--b2', type=rate, default=0.999, help='decay rate of the squared gradients\' running mean')
    group.add_argument('--e', type=number(float, 0, but=[0]), default=1e-8, help='added to the root of the latter')

    group = parser.add_argument_group('hardware')
    group.add_argument('--device', default='auto', help='auto, cpu, cuda, or one device such as cuda:1; torchrun gives each process its own (ours)')
    group.add_argument('--precision', choices=['fp32', 'bf16'], default='fp32', help='of the matrix products (ours)')

    args = parser.parse_args(argv)
    if args.n_embd % args.n_head:
        parser.error(f'--n_embd {args.n_embd} is not divisible by --n_head {args.n_head}')
    return args


# ------------------------------------------------------------------------------------------------------------- training

def read_checkpoint(path, args, tokens_hash):
    """The checkpoint at `path`. Raises InputError if it is not one, or is of a run with other options or tokens."""
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
        if set(state) != {'args', 'tokens', 'n_updates', 'model', 'opt', 'losses', 'history'}:
            raise ValueError('its entries are others')
    except Exception as error:  # torch.load has no exception of its own
        raise InputError(f'{path} is not a checkpoint of pretrain.py, or is damaged ({str(error).splitlines()[0][:80]})') from error
    for name, value in vars(args).items():
        if name not in CHANGEABLE and state['args'].get(name) != value:
            raise InputError(f'{path} was made with --{name} {state["args"].get(name)}, not {value}: give the same, or choose another --out')
    if state['tokens'] != tokens_hash:
        raise InputError(f'{path} comes from another text or vocabulary: go on with those, or choose another --out')
    return state


class PreTraining:
    """A run: the model, the windows of the text, and where it stands. Under torchrun, one of several that do the same updates together."""

    def __init__(self, args, model, tokens, tokens_hash, device):
        self.args, self.model, self.tokens, self.tokens_hash, self.device = args, model, tokens, tokens_hash, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        n_heldout = min(max(round(len(tokens) * args.heldout / args.n_ctx), 1), HELDOUT_WINDOWS)
        self.n_windows = (len(tokens) - n_heldout * args.n_ctx) // args.n_ctx
        self.heldout = range(self.n_windows, self.n_windows + n_heldout)
        self.n_updates_epoch = self.n_windows // args.n_batch
        self.n_updates_total = self.n_updates_epoch * args.n_iter
        self.opt = OpenAIAdam(model.parameters(), lr=args.lr, schedule='warmup_cosine_to_zero', warmup=args.lr_warmup / max(self.n_updates_total, 1),
                              t_total=self.n_updates_total, b1=args.b1, b2=args.b2, e=args.e, l2=args.l2, max_grad_norm=args.max_grad_norm)
        self.parallel = model
        if self.world > 1:
            self.parallel = DistributedDataParallel(model, device_ids=[device] if device.type == 'cuda' else None, gradient_as_bucket_view=True)
        self.n_updates = 0
        self.losses = []    # of the updates since the last evaluation
        self.history = []   # the lines of the log
        self.signal = 0     # the signal that asks to stop
        self.checkpoint_path = os.path.join(args.out, 'work', 'checkpoint')

    def forward(self, model, windows):
        """Mean loss of each of some windows, [windows]: the negative log-likelihood of a token after the first."""
        ids = np.stack([self.tokens[i * self.args.n_ctx:(i + 1) * self.args.n_ctx] for i in windows]).astype(np.int64)
        batch = collate_windows(ids, self.model.config.first_position)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.precision == 'bf16'):
            return model((batch.pin_memory() if self.device.type == 'cuda' else batch).to(self.device))

    def total(self, *values):
        """Sums over all processes."""
        values = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(values)
        return values.tolist()

    def update(self, windows):
        """One update from a global batch of windows, of which each process takes its part, n_micro at a time.

        Returns this process's share of the batch's mean loss, and the global norm of the gradients, scalar tensors. Dropout's random numbers follow from the seed, the update and the place in the batch: nothing of them need be saved, and the number of
        processes changes no mask as long as n_micro divides their parts.
        """
        self.model.train()
        loss = torch.zeros((), device=self.device)
        part = np.array_split(np.arange(len(windows)), self.world)[self.rank]
        for first in range(part[0], part[-1] + 1, self.args.n_micro):
            last = min(first + self.args.n_micro, part[-1] + 1)
            torch.manual_seed(int(np.random.SeedSequence((self.args.seed, self.n_updates, first)).generate_state(1, np.uint64)[0]))
            with self.parallel.no_sync() if self.world > 1 and last <= part[-1] else contextlib.nullcontext():
                losses = self.forward(self.parallel, windows[first:last]).sum() / len(windows)
                (losses * self.world).backward()  # DistributedDataParallel takes the mean over the processes
            loss += losses.detach()
        norm = self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        self.n_updates += 1
        return loss, norm

    @torch.inference_mode()
    def heldout_loss(self):
        """Mean loss on the held-out windows."""
        self.model.eval()
        own = self.heldout[self.rank::self.world]
        loss = sum(self.forward(self.model, own[i:i + self.args.n_micro]).sum() for i in range(0, len(own), self.args.n_micro))
        return self.total(loss)[0] / len(self.heldout)

    def evaluate(self, started):
        """Add a line to the log, draw the curve, and print what they say. `started`: update and time at which the present stretch began."""
        va_loss = self.heldout_loss()
        rate = (self.n_updates - started[0]) * self.args.n_batch * self.args.n_ctx / (time.monotonic() - started[1])
        line = dict(n_epochs=self.n_updates / self.n_updates_epoch, n_updates=self.n_updates, tr_loss=sum(self.losses) / len(self.losses),
                    va_loss=va_loss, va_perplexity=math.exp(va_loss), lr=self.opt.param_groups[0]['lr'], tokens_per_second=rate, time=time.time())
        self.losses = []
        self.history.append(line)
        if self.rank == 0:
            with whole_file(os.path.join(self.args.out, 'log.jsonl')) as f:
                f.writelines(json.dumps(values) + '\n' for values in [vars(self.args), *self.history])
            plot(self.history, os.path.join(self.args.out, 'perplexity.png'))
            tqdm.write('update {n_updates}, epoch {n_epochs:.2f}: training loss {tr_loss:.3f}, held-out loss {va_loss:.3f}, '
                       'perplexity {va_perplexity:.2f}; {tokens_per_second:,.0f} tokens/s'.format(**line), file=sys.stdout)
            sys.stdout.flush()

    def save(self):
        if self.rank == 0:
            with whole_file(self.checkpoint_path, 'wb') as f:
                torch.save({'args': vars(self.args), 'tokens': self.tokens_hash, 'n_updates': self.n_updates, 'model': self.model.state_dict(),
                            'opt': self.opt.state_dict(), 'losses': self.losses, 'history': self.history}, f)

    def load(self):
        state = read_checkpoint(self.checkpoint_path, self.args, self.tokens_hash)
        self.model.load_state_dict(state['model'])
        self.opt.load_state_dict(state['opt'])
        self.n_updates, self.losses, self.history = state['n_updates'], state['losses'], state['history']

    def stop(self, signum, frame):
        """Asked to stop: finish the update. A second signal ends the program at once."""
        self.signal = signum
        signal.signal(signum, exit_at_once)

    def run(self):
        """All updates, or those until a signal asks to stop. Returns the signal's number, or 0. Raises InputError if a loss is not finite."""
        args, started, stop = self.args, (self.n_updates, time.monotonic()), 0
        with on_signals(self.stop), tqdm(total=self.n_updates_total * args.n_batch * args.n_ctx, initial=self.n_updates * args.n_batch * args.n_ctx,
                                         unit=' tokens', unit_scale=True, desc='pre-training', leave=False, dynamic_ncols=True,
                                         disable=True if self.rank else None) as bar:
            while self.n_updates < self.n_updates_total and not stop:
                epoch, done = divmod(self.n_updates, self.n_updates_epoch)
                order = iter_data(self.n_windows, args.n_batch, np.random.RandomState([args.seed, epoch]))
                for windows in islice(order, done, None):
                    part, norm = self.update(windows)
                    loss, stop = self.total(part, self.signal)
                    if not (math.isfinite(loss) and math.isfinite(norm)):
                        raise InputError(f'update {self.n_updates}: the loss is {loss}, the norm of its gradients {norm}; the last checkpoint is kept. '
                                         f'A lower --lr may help')
                    self.losses.append(loss)
                    bar.update(args.n_batch * args.n_ctx)
                    bar.set_postfix(epoch=epoch + 1, loss=f'{loss:.3f}', lr=f'{self.opt.param_groups[0]["lr"]:.2e}', refresh=False)
                    last = self.n_updates == self.n_updates_total
                    if last or self.n_updates % args.eval_every == 0:
                        self.evaluate(started)
                        started = self.n_updates, time.monotonic()
                    if last or stop or self.n_updates % args.save_every == 0:
                        self.save()
                    if stop:
                        break
        return int(stop) and (self.signal or signal.SIGTERM)


def exit_at_once(signum, frame):
    sys.exit(128 + signum)


@contextlib.contextmanager
def on_signals(handler):
    """Have SIGINT and SIGTERM handled by `handler` for a while."""
    before = {signum: signal.signal(signum, handler) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)


def plot(history, path):
    """Draw the perplexity on held-out text, and that of training, by update."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4.2), layout='constrained')
    axes = figure.add_subplot()
    updates = [line['n_updates'] for line in history]
    axes.plot(updates, [math.exp(line['tr_loss']) for line in history], color='#9aa5b1', label='training text, with dropout', marker='.')
    axes.plot(updates, [line['va_perplexity'] for line in history], color='#0b6bcb', label='held-out text', marker='.')
    axes.annotate(f'{history[-1]["va_perplexity"]:.2f}', (updates[-1], history[-1]['va_perplexity']), xytext=(0, -14), textcoords='offset points', ha='right')
    axes.set(xlabel='update', ylabel='perplexity (a token)', yscale='log', title='Pre-training')
    axes.grid(alpha=0.3, which='both')
    axes.legend(frameon=False)
    with whole_file(path, 'wb') as f:
        figure.savefig(f, format='png', dpi=120)


# ------------------------------------------------------------------------------------------------------------------ run

def check_out(args, work):
    """Raise InputError unless --out can be written to and holds nothing that would be lost."""
    check_writable(args.out)
    if args.resume:
        return
    for path in (os.path.join(work, 'checkpoint'), *(os.path.join(args.out, name) for name in ('params_shapes.json', 'params_0.npy'))):
        if os.path.exists(path):
            raise InputError(f'{args.out} holds the work of an earlier run ({path}): give --resume to go on with it, or choose another --out')
    if not os.path.exists(os.path.join(work, 'vocabulary.json')) and any(map(os.path.exists, vocabulary_files(args.out))):
        raise InputError(f'{args.out} holds a vocabulary from elsewhere ({ENCODER}, {MERGES}): choose another --out')


def settings(args):
    """What train.py needs to know of the model, and a start for fine-tuning it: the paper's learning rate there is a quarter of that here."""
    return {**{name: getattr(args, name) for name in ('n_ctx', 'n_embd', 'n_head', 'n_layer', 'afn')}, 'lr': args.lr / 4}


def describe(training):
    """The table printed before training."""
    args, n_tokens, config = training.args, len(training.tokens), training.model.config
    parameters = sum(p.numel() for p in training.model.parameters())
    on = torch.cuda.get_device_name(training.device) if training.device.type == 'cuda' else f'CPU, {torch.get_num_threads()} threads'
    lines = [('text', f'{n_tokens:,} tokens: {training.n_windows:,} windows of {args.n_ctx} to train on, {len(training.heldout):,} held out'),
             ('model', f'{parameters / 1e6:.1f} M parameters: {config.n_layer} layers, {config.n_head} heads, width {config.n_embd}; '
                       f'vocabulary of {config.n_vocab:,} symbols'),
             ('batch', f'{args.n_batch} windows an update, {args.n_micro} at a time; {training.n_updates_epoch:,} updates an epoch, '
                       f'{training.n_updates_total:,} in all'),
             ('device', f'{f"{training.world} x " * (training.world > 1)}{on}; {args.precision}')]
    if training.device.type == 'cuda' and training.world < torch.cuda.device_count():
        lines.append(('', f'{torch.cuda.device_count()} CUDA devices are here: torchrun --nproc_per_node {torch.cuda.device_count()} pretrain.py ... uses all'))
    if training.n_updates:
        lines.append(('resumed', f'after update {training.n_updates:,}'))
    return '\n'.join(f'{name:10}{text}' for name, text in lines)


def run(args):
    """Learn byte pairs, encode, train, write. Raises InputError, before the costly work where the input is at fault."""
    rank, world, local_rank = (int(os.environ.get(name, default)) for name, default in (('RANK', 0), ('WORLD_SIZE', 1), ('LOCAL_RANK', 0)))
    device, = find_devices(args.device, 1)
    if world > 1 and device.type == 'cuda':
        device, = find_devices(f'cuda:{local_rank}', 1)
        torch.cuda.set_device(device)
    work = os.path.join(args.out, 'work')
    if args.n_batch < world:
        raise InputError(f'--n_batch {args.n_batch}: fewer windows than the {world} processes')
    if rank == 0:
        check_out(args, work)
        prepare(args, work)
    if world > 1:
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo', timeout=PATIENCE)
        dist.barrier()  # the text is encoded

    record = read_record(os.path.join(work, 'tokens.json'))
    n_tokens = record['n_tokens']
    if n_tokens < 2 * args.n_ctx:
        raise InputError(f'the text has {n_tokens:,} tokens, too few for one window of --n_ctx {args.n_ctx} to train on and one held out')
    tokens = np.memmap(os.path.join(work, 'tokens.bin'), record['dtype'], 'r', shape=(n_tokens,))
    config = Config(n_vocab=len(read_vocabulary(vocabulary_files(args.out)[0])), n_ctx=args.n_ctx, n_embd=args.n_embd, n_head=args.n_head,
                    n_layer=args.n_layer, afn=args.afn, embd_pdrop=args.embd_pdrop, attn_pdrop=args.attn_pdrop, resid_pdrop=args.resid_pdrop)
    torch.manual_seed(args.seed)
    model = LMModel(config)
    init_weights(model)
    training = PreTraining(args, model.to(device), tokens, record['hash'], device)
    if not training.n_updates_total:
        raise InputError(f'the text has {training.n_windows:,} windows of {args.n_ctx} tokens to train on, too few for one batch of --n_batch {args.n_batch}')
    if args.lr_warmup > training.n_updates_total:
        raise InputError(f'--lr_warmup {args.lr_warmup}: there are only {training.n_updates_total:,} updates in all; a tenth of them is usual')
    if args.resume and os.path.exists(training.checkpoint_path):
        training.load()
    if rank == 0:
        print(describe(training), flush=True)

    signum = training.run()
    if rank == 0 and not signum:
        save_openai_shards(model, args.out)
        with whole_file(os.path.join(args.out, SETTINGS)) as f:
            json.dump(settings(args), f, indent=1)
        print(f'written   {args.out}; to fine-tune it: python train.py --dataset rocstories --submit --analysis --model_dir {shlex.quote(args.out)}')
    elif rank == 0:
        print(f'stopped   after update {training.n_updates:,} of {training.n_updates_total:,}; the same command with --resume goes on', flush=True)
    if world > 1:
        dist.destroy_process_group()
    if signum:
        sys.exit(128 + signum)


def main(argv=None):
    args = parse_args(argv)
    with on_signals(exit_at_once):
        return exit_status('pretrain.py', run, args)


if __name__ == '__main__':
    sys.exit(main())
