"""Pre-train GPT-1 on plain text: the first half of the paper (sections 3.1 and 4.1).

    python pretrain.py --text books/ --out model/mine
    torchrun --nproc_per_node 8 pretrain.py --text books/ --out model/mine --precision bf16
    python train.py --dataset rocstories --model_dir model/mine ...

Reads top to bottom: options, then the run: learn byte pairs and encode the text (`corpus.py`) -> train the language model -> write what train.py
reads. What a run needs to go on after a stop lies in the folder `work` of --out; it can be deleted after the end.
"""

import contextlib
import json
import math
import os
import shlex
import signal
import sys
import time
from itertools import islice

import numpy as np
import torch
from tqdm import tqdm

from checkpoint import Saver, StopSignals, load_checkpoint, only_run, same_form
from corpus import ENCODER, MERGES, open_tokens, prepare, vocabulary_files
from model_pytorch import ACT_FNS, Config, LMModel, check_settings, init_weights, save_openai_shards
from opt import OpenAIAdam
from parallel import LossMeter, Ranks, StepSize, parallel_model
from text_utils import read_vocabulary
from utils import (
    BAR,
    InputError,
    Parser,
    ResultLogger,
    Stopped,
    check_writable,
    collate_windows,
    exit_status,
    find_devices,
    iter_data,
    keep_freed_memory,
    number,
    table,
    whole_file,
)

HELDOUT_WINDOWS = 1024  # at most: enough for a perplexity good to a percent, and quick to evaluate
# Options that a resumed run may give otherwise
FREE_ON_RESUME = {
    'text',
    'out',
    'vocabulary',
    'settings',
    'resume',
    'device',
    'n_micro',
    'eval_every',
    'save_every',
}


# -------------------------------------------------------------------------------------------------------------- options


def parse_args(argv=None):
    parser = Parser(
        prog='pretrain.py',
        usage='python pretrain.py --text books/ --out model/mine [options]',
        description='Pre-train GPT-1 on plain text, for train.py --model_dir to fine-tune.',
        epilog='Defaults are those of the paper (Radford et al. 2018, section 4.1), unless a line says otherwise.',
    )
    rate = number(float, 0, 1, but=[1])

    group = parser.add_argument_group('what to do')
    group.add_argument(
        '--text',
        nargs='+',
        required=True,
        help='UTF-8 text files, or folders, whose .txt files are read',
    )
    group.add_argument(
        '--out', required=True, help='folder for the vocabulary, the weights, the log and the curve'
    )
    group.add_argument('--resume', action='store_true', help='go on with what is in --out')
    group.add_argument(
        '--seed',
        type=number(int, 0, 2**32 - 1),
        default=42,
        help='for the weights, the order of the windows and dropout (ours)',
    )
    group.add_argument(
        '--settings',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help='what settings.json shall tell train.py, besides the sizes, the dropout and a quarter of --lr: n_iter=5, say (ours)',
    )

    group = parser.add_argument_group('vocabulary')
    group.add_argument(
        '--n_merges', type=number(int, 0), default=40000, help='byte pairs to learn from the text'
    )
    group.add_argument(
        '--vocabulary',
        metavar='DIR',
        help=f'take {ENCODER} and {MERGES} from this folder instead of learning them',
    )

    group = parser.add_argument_group('model')
    group.add_argument(
        '--n_ctx', type=number(int, 2), default=512, help='tokens in a window, and positions'
    )
    group.add_argument('--n_embd', type=number(int, 1), default=768, help='width')
    group.add_argument('--n_head', type=number(int, 1), default=12, help='attention heads')
    group.add_argument('--n_layer', type=number(int, 1), default=12, help='layers')
    group.add_argument(
        '--afn', choices=list(ACT_FNS), default='gelu', help='activation of the feed-forward layers'
    )
    group.add_argument(
        '--embd_pdrop', type=rate, default=0.1, help='dropout rate of the embedding matrix'
    )
    group.add_argument(
        '--attn_pdrop', type=rate, default=0.1, help='dropout rate of the attention probabilities'
    )
    group.add_argument(
        '--resid_pdrop', type=rate, default=0.1, help='dropout rate before each residual sum'
    )

    group = parser.add_argument_group('training')
    group.add_argument('--n_iter', type=number(int, 1), default=100, help='epochs')
    group.add_argument(
        '--n_batch', type=number(int, 1), default=64, help='windows in an update, over all devices'
    )
    group.add_argument(
        '--n_micro',
        type=number(int, 1),
        default=8,
        help='windows a device takes at a time; fewer where its memory is too small (ours)',
    )
    group.add_argument(
        '--heldout',
        type=number(float, 0, 0.5, but=[0]),
        default=0.01,
        help=f'share of the text, at its end, to measure perplexity on; at most {HELDOUT_WINDOWS} windows (ours)',
    )
    group.add_argument(
        '--eval_every',
        type=number(int, 1),
        default=1000,
        help='updates from one evaluation to the next (ours)',
    )
    group.add_argument(
        '--save_every',
        type=number(int, 1),
        default=1000,
        help='updates from one checkpoint to the next (ours)',
    )

    group = parser.add_argument_group('optimizer')
    group.add_argument('--lr', type=number(float, 0), default=2.5e-4, help='peak learning rate')
    group.add_argument(
        '--lr_warmup',
        type=number(int, 0),
        default=2000,
        help='updates in which the learning rate rises; then a cosine takes it to 0',
    )
    group.add_argument(
        '--max_grad_norm',
        type=number(float, -1),
        default=1,
        help="clip the gradients' global norm to this; 0 or -1: do not clip",
    )
    group.add_argument(
        '--l2',
        type=number(float, 0),
        default=0.01,
        help='weight decay, of parameters of more than one dimension',
    )
    group.add_argument(
        '--b1', type=rate, default=0.9, help="decay rate of the gradients' running mean"
    )
    group.add_argument(
        '--b2', type=rate, default=0.999, help="decay rate of the squared gradients' running mean"
    )
    group.add_argument(
        '--e',
        type=number(float, 0, but=[0]),
        default=1e-8,
        help="epsilon: added to the root of the squared gradients' running mean",
    )

    group = parser.add_argument_group('hardware')
    group.add_argument(
        '--device',
        default='auto',
        help='auto, cpu, cuda, or one device such as cuda:1; torchrun gives each process its own (ours)',
    )
    group.add_argument(
        '--precision',
        choices=['fp32', 'bf16'],
        default='fp32',
        help='precision of the matrix products (ours)',
    )

    args = parser.parse_args(argv)
    args.resume = (
        args.resume or int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0
    )  # torchrun has started the processes again
    try:
        args.settings = {
            name: json.loads(value)
            for name, _, value in (setting.partition('=') for setting in args.settings)
        }
        check_settings(args.settings, '--settings')
    except (ValueError, InputError) as error:
        parser.error(f'--settings: expected NAME=VALUE, such as n_iter=5 ({error})')
    if args.n_embd % args.n_head:
        parser.error(f'--n_embd {args.n_embd} is not divisible by --n_head {args.n_head}')
    return args


# ------------------------------------------------------------------------------------------------------------- training


class PreTraining:
    """A run: the model, the windows of the text, and where it stands. Under torchrun, one of several that do the same updates together."""

    def __init__(self, args, model, tokens, tokens_hash, device, ranks):
        self.args, self.model, self.tokens, self.device, self.ranks = (
            args,
            model,
            tokens,
            device,
            ranks,
        )
        n_heldout = min(max(round(len(tokens) * args.heldout / args.n_ctx), 1), HELDOUT_WINDOWS)
        self.n_windows = (len(tokens) - n_heldout * args.n_ctx) // args.n_ctx
        self.heldout = range(self.n_windows, self.n_windows + n_heldout)
        self.updates_per_epoch = self.n_windows // args.n_batch
        self.n_updates_total = self.updates_per_epoch * args.n_iter
        if self.n_windows < 1:
            raise InputError(
                f'the text has {len(tokens):,} tokens, too few for a window of --n_ctx {args.n_ctx} to train on and another held out'
            )
        if not self.n_updates_total:
            raise InputError(
                f'the text has {self.n_windows:,} windows of {args.n_ctx} tokens to train on, too few for one batch; '
                f'lower --n_batch {args.n_batch} or --n_ctx'
            )
        if args.lr_warmup > self.n_updates_total:
            raise InputError(
                f'--lr_warmup {args.lr_warmup}: there are {self.n_updates_total:,} updates in all; a tenth of them is a good start'
            )
        self.opt = OpenAIAdam(
            model.parameters(),
            lr=args.lr,
            schedule='warmup_cosine_to_zero',
            warmup=args.lr_warmup / self.n_updates_total,
            t_total=self.n_updates_total,
            b1=args.b1,
            b2=args.b2,
            e=args.e,
            l2=args.l2,
            max_grad_norm=args.max_grad_norm,
        )
        self.parallel = parallel_model(model, [device], ranks)
        dropout = max(args.embd_pdrop, args.attn_pdrop, args.resid_pdrop) > 0
        self.steps = StepSize(
            args.n_micro,
            'windows',
            'a smaller --n_micro',
            'the update stays the same' + ', but for the masks of dropout' * dropout,
        )
        self.saver = Saver(background=device.type == 'cuda')
        self.n_updates = 0
        self.loss_sum = torch.zeros(
            (), dtype=torch.float64, device=device
        )  # of the updates since the last evaluation, and their number
        self.n_losses = 0
        self.settings = {
            name: value for name, value in vars(args).items() if name not in FREE_ON_RESUME
        }
        self.settings['the text or its encoding'] = tokens_hash

    @property
    def checkpoint_path(self):
        return os.path.join(self.args.out, 'work', 'checkpoint')

    def forward(self, model, windows):
        """Mean loss of each of some windows, [windows]: the negative log-likelihood of a token after the first."""
        ids = np.stack(
            [self.tokens[i * self.args.n_ctx : (i + 1) * self.args.n_ctx] for i in windows]
        ).astype(np.int64)
        batch = collate_windows(ids, self.model.config.first_position)
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.args.precision == 'bf16'
        ):
            return model(
                (batch.pin_memory() if self.device.type == 'cuda' else batch).to(self.device)
            )

    def update(self, windows):
        """One update from a global batch of windows, n_micro at a time, or fewer where a device runs out of memory.

        Returns its figures for `LossMeter`: the loss of each window and the norm of the gradients, [windows + 1].
        """
        losses = self.steps.fit(lambda n_micro: self.accumulate(windows, n_micro), self.parallel)
        norm = self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        self.n_updates += 1
        return torch.cat([losses, norm.float().view(1)])

    def accumulate(self, windows, n_micro):
        """Gradients of a global batch: this rank's share of it, n_micro windows at a time, summed over the ranks. Returns its losses [windows].

        Dropout's random numbers follow from the seed, the update and the place in the batch: no state of theirs need be saved, and the number of
        ranks changes no mask as long as n_micro divides their shares.
        """
        self.model.train()
        losses = torch.zeros(len(windows), device=self.device)
        share = self.ranks.share(range(len(windows)))
        for cut in (share[i : i + n_micro] for i in range(0, len(share), n_micro)):
            torch.manual_seed(
                int(
                    np.random.SeedSequence(
                        (self.args.seed, self.n_updates, cut.start)
                    ).generate_state(1, np.uint64)[0]
                )
            )
            with (
                contextlib.nullcontext()
                if self.ranks.size == 1 or cut.stop == share.stop
                else self.parallel.no_sync()
            ):
                part = self.forward(self.parallel, windows[cut.start : cut.stop])
                (
                    part.sum() * self.ranks.size / len(windows)
                ).backward()  # DistributedDataParallel takes the mean over the ranks
            losses[cut.start : cut.stop] = part.detach()
        return self.ranks.sum_(losses)

    @torch.inference_mode()
    def heldout_loss(self):
        """Mean loss on the held-out windows, shared by the ranks."""
        self.model.eval()
        share = self.ranks.share(self.heldout)

        def add_up(n_micro):
            total = torch.zeros((), dtype=torch.float64, device=self.device)
            for i in range(0, len(share), n_micro):
                total += self.forward(self.model, share[i : i + n_micro]).sum()
            return total

        return self.ranks.sum_(self.steps.fit(add_up, self.model)).item() / len(self.heldout)

    def evaluate(self, logger, seconds_per_update):
        """Log the losses, print them, and draw the curve."""
        va_loss = self.heldout_loss()
        line = dict(
            n_epochs=self.n_updates / self.updates_per_epoch,
            n_updates=self.n_updates,
            tr_loss=self.loss_sum.item() / self.n_losses,
            va_loss=va_loss,
            va_perplexity=math.exp(va_loss),
            lr=self.opt.param_groups[0]['lr'],
            tokens_per_second=self.args.n_batch * self.args.n_ctx / seconds_per_update,
        )
        self.loss_sum.zero_()
        self.n_losses = 0
        if self.ranks.first:
            logger.log(**line)
            plot(logger.lines[1:], os.path.join(self.args.out, 'perplexity.png'))
            tqdm.write(
                'update {n_updates:,}, epoch {n_epochs:.2f}: loss {tr_loss:.3f}, held-out {va_loss:.3f}, perplexity {va_perplexity:.2f}, '
                '{tokens_per_second:,.0f} tokens/s'.format(**line),
                file=sys.stdout,
            )
            sys.stdout.flush()

    def save(self, logger):
        if self.ranks.first:
            self.saver.save(
                self.checkpoint_path,
                {
                    'model': self.model.state_dict(),
                    'opt': self.opt.state_dict(),
                    'n_updates': self.n_updates,
                    'loss_sum': self.loss_sum,
                    'n_losses': self.n_losses,
                    'log': logger.lines,
                    'settings': self.settings,
                },
            )

    def resume(self, checkpoint):
        """Go on from a checkpoint. Returns the lines of its log. Raises InputError if it is another run's, or damaged."""
        path = self.checkpoint_path
        try:
            for name, value in self.settings.items():
                if checkpoint['settings'][name] != value:
                    raise InputError(
                        f'{path} cannot be resumed: {name} was {str(checkpoint["settings"][name])[:100]}, now it is {value}'
                    )
            if not same_form(
                checkpoint,
                {
                    'model': self.model.state_dict(),
                    'opt': self.opt.form(),
                    'n_updates': 0,
                    'loss_sum': self.loss_sum,
                    'n_losses': 0,
                    'log': [],
                    'settings': self.settings,
                },
            ):
                raise ValueError('its parts are not those of this run')
            n_updates, n_losses, log = (
                checkpoint['n_updates'],
                checkpoint['n_losses'],
                checkpoint['log'],
            )
            if not (
                0 < n_updates == checkpoint['opt']['t'] <= self.n_updates_total
                and 0 <= n_losses <= n_updates
            ):
                raise ValueError('its counters do not agree')
            if not (
                all(isinstance(line, dict) for line in log)
                and json.dumps(log)
                and all(
                    math.isfinite(
                        line['n_updates'] + math.exp(line['tr_loss']) + line['va_perplexity']
                    )
                    for line in log[1:]
                )
            ):
                raise ValueError('its log is none')
            self.model.load_state_dict(checkpoint['model'])
            self.opt.load_state_dict(checkpoint['opt'])
            self.loss_sum.copy_(checkpoint['loss_sum'])
            self.n_updates, self.n_losses = n_updates, n_losses
            return log
        except InputError:
            raise
        except Exception as error:  # whatever a damaged one holds in their place
            raise InputError(
                f'{path} is damaged, or no checkpoint of this program ({str(error)[:100]})'
            ) from error

    def run(self, logger):
        """All updates that are left. Raises InputError if a loss is not finite, and Stopped after a signal, with a checkpoint written."""
        args, tokens_per_update = self.args, self.args.n_batch * self.args.n_ctx
        meter = LossMeter(lag=2 if self.device.type == 'cuda' else 0, unit='windows')
        since = self.n_updates, time.monotonic()  # of the stretch whose speed is measured
        with (
            StopSignals() as signals,
            tqdm(
                total=self.n_updates_total * tokens_per_update,
                initial=self.n_updates * tokens_per_update,
                unit=' tokens',
                unit_scale=True,
                desc='pre-training',
                bar_format=BAR,
                leave=False,
                dynamic_ncols=True,
                disable=None if self.ranks.first else True,
            ) as bar,
        ):
            while self.n_updates < self.n_updates_total:
                epoch, done = divmod(self.n_updates, self.updates_per_epoch)
                for windows in islice(
                    iter_data(
                        self.n_windows, args.n_batch, np.random.RandomState([args.seed, epoch])
                    ),
                    done,
                    None,
                ):
                    figures = self.update(windows)
                    self.loss_sum += figures[:-1].double().mean()
                    self.n_losses += 1
                    stop = self.ranks.total(signals.received)
                    meter.add(self.n_updates, windows.tolist(), torch.cat([figures, stop]))
                    bar.set_postfix(
                        loss=f'{meter.loss:.3f}',
                        lr=f'{self.opt.param_groups[0]["lr"]:.1e}',
                        refresh=False,
                    )
                    bar.update(tokens_per_update)
                    last = self.n_updates == self.n_updates_total
                    evaluate, save = (
                        last or self.n_updates % every == 0
                        for every in (args.eval_every, args.save_every)
                    )
                    if evaluate or save or meter.stop:
                        meter.drain()
                    if evaluate:
                        self.evaluate(
                            logger, (time.monotonic() - since[1]) / (self.n_updates - since[0])
                        )
                        since = self.n_updates, time.monotonic()
                    if save or meter.stop:
                        self.save(logger)
                    if meter.stop:
                        self.saver.wait()
                        raise Stopped(signals.received or signal.SIGTERM)
            self.saver.wait()
            if self.ranks.total(signals.received) > 0:  # since the last update
                raise Stopped(signals.received or signal.SIGTERM)


def plot(lines, path):
    """Draw the perplexity of the held-out text, and of the text trained on, by update, from the lines of the log."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(7, 4.2), layout='constrained')
    axes = figure.subplots()
    updates = [line['n_updates'] for line in lines]
    axes.plot(
        updates,
        [math.exp(line['tr_loss']) for line in lines],
        color='#9aa5b1',
        marker='.',
        label='text trained on',
    )
    axes.plot(
        updates,
        [line['va_perplexity'] for line in lines],
        color='#0b6bcb',
        marker='.',
        label=f'held-out text: {lines[-1]["va_perplexity"]:.2f} at last',
    )
    axes.set(xlabel='updates', ylabel='perplexity', yscale='log', title='Pre-training')
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FormatStrFormatter('%g'))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with whole_file(path, 'wb') as f:
        figure.savefig(f, format='png', dpi=120)


# ------------------------------------------------------------------------------------------------------------------ run


def check_out(args, work):
    """Raise InputError unless --out can be written to and nothing in it would be lost."""
    check_writable(args.out)
    if args.resume:
        return
    for path in (
        os.path.join(work, 'checkpoint'),
        *(os.path.join(args.out, name) for name in ('params_shapes.json', 'params_0.npy')),
    ):
        if os.path.exists(path):
            raise InputError(
                f"{args.out} holds an earlier run's work ({os.path.basename(path)}): give --resume to go on with it, "
                f'or choose another --out'
            )
    if not os.path.exists(os.path.join(work, 'vocabulary.json')) and any(
        map(os.path.exists, vocabulary_files(args.out))
    ):
        raise InputError(
            f'{args.out} holds a vocabulary from elsewhere ({ENCODER}, {MERGES}): choose another --out'
        )


def describe(training):
    """The table printed before training."""
    args, config, parameters = (
        training.args,
        training.model.config,
        sum(p.numel() for p in training.model.parameters()),
    )
    cuda, size = training.device.type == 'cuda', training.ranks.size
    on = (
        f'{size} x {torch.cuda.get_device_name(training.device)}'
        if cuda
        else f'CPU, {torch.get_num_threads()} threads'
    )
    lines = [
        (
            'text',
            f'{len(training.tokens):,} tokens: {training.n_windows:,} windows of {args.n_ctx} to train on, '
            f'{len(training.heldout):,} held out',
        ),
        (
            'model',
            f'{parameters:,} parameters: {args.n_layer} layers, {args.n_head} heads, width {args.n_embd}, '
            f'vocabulary of {config.n_vocab:,}',
        ),
        (
            'batch',
            f'{args.n_batch} windows an update; {training.updates_per_epoch:,} updates an epoch, {training.n_updates_total:,} in all',
        ),
        ('device', f'{on}{f", {size} processes" * (size > 1)}; {args.precision}'),
    ]
    if cuda and size < torch.cuda.device_count():
        n = torch.cuda.device_count()
        lines.append(
            (
                '',
                f'{n} CUDA devices are here: torchrun --nproc_per_node {n} pretrain.py ... uses all',
            )
        )
    return table(lines)


def run(args):
    """Learn byte pairs, encode, train, write. Raises InputError, before the costly work where the input is at fault, and Stopped."""
    devices = find_devices(args.device, n_gpu=max(torch.cuda.device_count(), 1))
    keep_freed_memory()
    work = os.path.join(args.out, 'work')
    n_ranks = int(os.environ.get('WORLD_SIZE', 1))
    if args.n_batch < n_ranks:
        raise InputError(f'--n_batch {args.n_batch}: fewer windows than processes ({n_ranks})')
    with contextlib.ExitStack() as stack:
        if (
            os.environ.get('RANK', '0') == '0'
        ):  # before the ranks join: they wait there, and this one may start workers
            check_out(args, work)
            stack.enter_context(only_run(work, args.out))
            prepare(args.text, args.out, work, args.n_merges, args.vocabulary)
        pre_train(args, work, stack.enter_context(Ranks(devices)))


def pre_train(args, work, ranks):
    """What each of the processes does."""
    device = ranks.devices[0]
    tokens, tokens_hash = open_tokens(work)
    config = Config(
        n_vocab=len(read_vocabulary(vocabulary_files(args.out)[0])),
        n_ctx=args.n_ctx,
        n_embd=args.n_embd,
        n_head=args.n_head,
        n_layer=args.n_layer,
        afn=args.afn,
        embd_pdrop=args.embd_pdrop,
        attn_pdrop=args.attn_pdrop,
        resid_pdrop=args.resid_pdrop,
    )
    torch.manual_seed(args.seed)
    model = LMModel(config)
    # The paper's 0.02 at its width. What passes a layer grows with std * sqrt(width): with 0.02, a narrow model stays at word frequencies.
    init_weights(model, std=0.02 * math.sqrt(768 / args.n_embd))
    training = PreTraining(args, model.to(device), tokens, tokens_hash, device, ranks)
    lines = []
    if args.resume and os.path.exists(training.checkpoint_path):
        lines = training.resume(load_checkpoint(training.checkpoint_path))
    logger = ranks.from_first(
        lambda: ResultLogger(os.path.join(args.out, 'log.jsonl'), lines, **vars(args))
    )
    if ranks.first:
        print(describe(training), flush=True)
        if args.resume:
            print(
                f'resumed   after update {training.n_updates:,} of {training.n_updates_total:,}',
                flush=True,
            )
    training.run(logger)
    if ranks.first:
        with whole_file(os.path.join(args.out, 'settings.json')) as f:  # for train.py
            settings = {
                name: getattr(args, name)
                for name in (
                    'n_ctx',
                    'n_embd',
                    'n_head',
                    'n_layer',
                    'afn',
                    'embd_pdrop',
                    'attn_pdrop',
                    'resid_pdrop',
                )
            }
            json.dump(
                {**settings, 'lr': args.lr / 4, **args.settings}, f, indent=1
            )  # the paper's ratio of the two peaks, 6.25e-5 to 2.5e-4
        save_openai_shards(model, args.out)
        print(
            f'written   {args.out}; to fine-tune it: '
            f'python train.py --dataset rocstories --submit --analysis --model_dir {shlex.quote(args.out)}'
        )


def main(argv=None):
    return exit_status('pretrain.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
