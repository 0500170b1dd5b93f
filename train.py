"""Fine-tune GPT-1 on the Story Cloze Test, exactly as OpenAI's program does.

    python train.py --dataset rocstories --desc rocstories --submit --analysis --data_dir data/ --n_gpu 8

Reads top to bottom: options, then the run: encode -> load -> fine-tune -> keep the best -> predict -> analyse.
"""

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import signal
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn import DataParallel
from tqdm import tqdm

import analysis
from checkpoint import (
    Saver,
    StopSignals,
    load_checkpoint,
    load_parameters,
    only_run,
    read_parameters,
    same_form,
)
from datasets import FILES, rocstories
from loss import MultipleChoiceLossCompute
from model_pytorch import (
    ACT_FNS,
    MODEL_FILES,
    SETTINGS,
    Config,
    DoubleHeadModel,
    OpenAIShards,
    init_weights,
    load_openai_pretrained_model,
    read_settings,
    special_rows,
)
from opt import SCHEDULES, OpenAIAdam
from parallel import LossMeter, Ranks, StepSize, parallel_model
from text_utils import TextEncoder
from utils import (
    BAR,
    InputError,
    Parser,
    ResultLogger,
    Stopped,
    TensorBoardLogger,
    check_writable,
    collate,
    default_folder,
    encode_dataset,
    exit_status,
    find_devices,
    is_sample,
    iter_data,
    keep_freed_memory,
    longest_sequence,
    number,
    table,
    transform_roc,
    whole_file,
)

EVALUATE_AFTER = (
    1000,
    2000,
    4000,
    8000,
    16000,
    32000,
)  # updates, in the first epoch, as in the original
EVALUATION_BATCH = 64  # stories; no result depends on it
FREE_ON_RESUME = {  # options that a resumed run may give otherwise; of n_batch and n_gpu, only the product must stay
    'desc',
    'analysis',
    'data_dir',
    'model_dir',
    'encoder_path',
    'bpe_path',
    'log_dir',
    'save_dir',
    'submission_dir',
    'analysis_dir',
    'n_batch',
    'n_gpu',
    'device',
    'deterministic',
    'save_every',
    'resume',
    'sample',
    'tensorboard',
}
SETTING_OPTIONS = [
    name for name in SETTINGS if not name.endswith('_path')
]  # those whose defaults a model's settings.json sets


# -------------------------------------------------------------------------------------------------------------- options


def parse_args(argv=None):
    parser = Parser(
        prog='train.py',
        usage='python train.py --dataset rocstories [options]',
        description="Fine-tune GPT-1 on the Story Cloze Test (ROCStories), as OpenAI's program does.",
        epilog='Defaults are those of openai/finetune-transformer-lm, unless a line says otherwise.',
    )

    rate = number(float, 0, 1, but=[1])

    group = parser.add_argument_group('what to do')
    group.add_argument('--dataset', choices=['rocstories'], help='the data set')
    group.add_argument(
        '--desc',
        help="name of the run, for its log and its saved parameters (default: the data set's name)",
    )
    group.add_argument(
        '--submit',
        action='store_true',
        help='keep the best parameters by validation accuracy, and predict the test set with them',
    )
    group.add_argument(
        '--analysis',
        action='store_true',
        help='at the end, print validation and test accuracy, and write <desc>/report.md to --analysis_dir (needs --submit)',
    )
    group.add_argument(
        '--tensorboard',
        action='store_true',
        help="write the log's figures for TensorBoard too, to <desc>/ in --log_dir, if it is installed (ours)",
    )
    group.add_argument(
        '--seed',
        type=number(int, 0, 2**32 - 1),
        default=42,
        help="the same seed gives the original's batches in its order",
    )

    group = parser.add_argument_group('folders and files')
    group.add_argument(
        '--data_dir',
        help='the two Story Cloze CSV files (default: data/, or while they are not there, our sample, data/sample/)',
    )
    group.add_argument(
        '--model_dir',
        help="OpenAI's weights and vocabulary, or those of pretrain.py, whose settings.json sets defaults for other options "
        '(default: model/, or while they are not there, our sample, model/sample/)',
    )
    group.add_argument(
        '--encoder_path', help='the vocabulary (default: encoder_bpe_40000.json in --model_dir)'
    )
    group.add_argument('--bpe_path', help='the merges (default: vocab_40000.bpe in --model_dir)')
    group.add_argument('--log_dir', default='log/', help='for <desc>.jsonl')
    group.add_argument(
        '--save_dir', default='save/', help='for <desc>/best_params, settings.json and checkpoint'
    )
    group.add_argument('--submission_dir', default='submission/', help='for ROCStories.tsv')
    group.add_argument(
        '--analysis_dir',
        default='analysis/',
        help='for <desc>/predictions.csv, and the report and its pictures',
    )

    group = parser.add_argument_group('data')
    group.add_argument(
        '--n_valid', type=number(int, 1), default=374, help='stories set aside for validation'
    )
    group.add_argument(
        '--n_ctx',
        type=number(int, 6),
        default=512,
        help='longest sequence in tokens; a story and an ending are cut to n_ctx / 2 - 2 tokens each',
    )

    group = parser.add_argument_group('model')
    group.add_argument('--n_embd', type=number(int, 1), default=768, help='width')
    group.add_argument('--n_head', type=number(int, 1), default=12, help='attention heads')
    group.add_argument('--n_layer', type=number(int, 1), default=12, help='layers')
    group.add_argument(
        '--n_transfer',
        type=number(int, -1),
        help='load the embedding and this many layers; -1 loads nothing (default: all)',
    )
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
    group.add_argument(
        '--clf_pdrop', type=rate, default=0.1, help='dropout rate before the classifier'
    )

    group = parser.add_argument_group('training')
    group.add_argument('--n_iter', type=number(int, 1), default=3, help='epochs')
    group.add_argument(
        '--n_batch',
        type=number(int, 1),
        default=8,
        help='stories a device and step; n_batch * n_gpu stories make an update',
    )
    group.add_argument(
        '--lm_coef',
        type=number(float, 0),
        default=0.5,
        help="weight of the language-model loss beside the classifier's",
    )
    group.add_argument(
        '--share_context',
        action='store_true',
        help="lay a story's two sequences out with one common beginning: faster, the same loss; with dropout, both then share its masks (ours)",
    )

    group = parser.add_argument_group('optimizer')
    group.add_argument(
        '--opt', choices=['adam'], default='adam', help="OpenAI's Adam with decoupled decay"
    )
    group.add_argument('--lr', type=number(float, 0), default=6.25e-5, help='peak learning rate')
    group.add_argument(
        '--lr_schedule',
        choices=list(SCHEDULES),
        metavar='NAME',
        default='warmup_linear',
        help=f'course of the learning rate: {", ".join(SCHEDULES)}',
    )
    group.add_argument(
        '--lr_warmup',
        type=number(float, 0, 1),
        default=0.002,
        help='share of all updates in which the learning rate rises',
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
        '--vector_l2', action='store_true', help='let the weight decay act on all parameters'
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
        '--n_gpu',
        type=number(int, 1),
        default=4,
        help='devices the batch is meant for; with fewer, the same update is done in steps',
    )
    group.add_argument(
        '--device',
        default='auto',
        help='auto, cpu, cuda, or one device such as cuda:1; auto is cuda where there is one (ours)',
    )
    group.add_argument(
        '--precision',
        choices=['fp32', 'bf16'],
        default='fp32',
        help='precision of the matrix products (ours)',
    )
    group.add_argument(
        '--deterministic',
        action='store_true',
        help='the same seed gives the same bytes on a GPU too, more slowly; on a CPU it always does (ours)',
    )

    group = parser.add_argument_group('going on after a stop (ours)')
    group.add_argument(
        '--resume',
        action='store_true',
        help='continue the run of this --desc from its last checkpoint, if there is one',
    )
    group.add_argument(
        '--save_every',
        type=number(int, 0),
        default=100,
        help="write a checkpoint after this many updates, besides each epoch's end; 0: only then",
    )

    args = parser.parse_args(argv)
    data_dir = args.data_dir or default_folder('data/', itertools.chain(*FILES.values()))
    model_dir = args.model_dir or default_folder('model/', MODEL_FILES)
    try:
        settings = {
            name: value
            for name, value in read_settings(model_dir).items()
            if name in SETTING_OPTIONS
        }
        parser.set_defaults(
            data_dir=data_dir, model_dir=model_dir, **settings
        )  # what was typed still wins
    except InputError as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    args = parser.parse_args(argv)
    if not args.dataset:
        parser.error(
            'which data set? Type: python train.py --dataset rocstories --submit --analysis'
        )
    args.resume = (
        args.resume or int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0
    )  # torchrun has started the processes again
    args.desc = args.desc or args.dataset
    args.encoder_path = args.encoder_path or os.path.join(args.model_dir, 'encoder_bpe_40000.json')
    args.bpe_path = args.bpe_path or os.path.join(args.model_dir, 'vocab_40000.bpe')
    args.n_transfer = args.n_layer if args.n_transfer is None else args.n_transfer
    if args.n_embd % args.n_head:
        parser.error(f'--n_embd {args.n_embd} is not divisible by --n_head {args.n_head}')
    if args.n_transfer > args.n_layer:
        parser.error(f'--n_transfer {args.n_transfer} is more than --n_layer {args.n_layer}')
    if args.analysis and not args.submit:
        parser.error('--analysis reads the predictions of --submit: give both')
    if os.path.basename(args.desc) != args.desc or args.desc in ('.', '..'):
        parser.error(f'--desc {args.desc}: expected a name without folders')
    args.sample = []
    if is_sample(args.data_dir, 'data'):
        args.sample.append('sample stories, not ROCStories: do not compare with the paper')
    if is_sample(args.model_dir, 'model'):
        args.sample.append("sample model, not OpenAI's weights: do not compare with the paper")
    return args


# ------------------------------------------------------------------------------------------------------------------ run


class FineTuning:
    """A run: the model, the encoded stories, and where it stands."""

    def __init__(self, args, model, train, valid, devices, ranks, random_state):
        self.args, self.model, self.train, self.valid, self.devices, self.ranks = (
            args,
            model,
            train,
            valid,
            devices,
            ranks,
        )
        self.random_state = random_state  # NumPy's, for the order of the stories
        self.batch_size = args.n_batch * args.n_gpu
        self.updates_per_epoch = len(train) // self.batch_size
        self.n_updates_total = self.updates_per_epoch * args.n_iter
        dropout = max(args.embd_pdrop, args.attn_pdrop, args.resid_pdrop, args.clf_pdrop) > 0
        self.steps = StepSize(
            args.n_batch,
            'stories',
            'a smaller --n_batch, --n_gpu larger for it',
            'the update stays the same' + ', but for the masks of dropout' * dropout,
        )
        self.evaluation_steps = StepSize(
            EVALUATION_BATCH, 'stories', '', 'the figures stay the same'
        )
        self.compute_loss = MultipleChoiceLossCompute(args.lm_coef)
        self.opt = OpenAIAdam(
            model.parameters(),
            lr=args.lr,
            schedule=args.lr_schedule,
            warmup=args.lr_warmup,
            t_total=self.n_updates_total,
            b1=args.b1,
            b2=args.b2,
            e=args.e,
            l2=args.l2,
            vector_l2=args.vector_l2,
            max_grad_norm=args.max_grad_norm,
        )
        self.parallel = parallel_model(model, devices, ranks)
        self.saver = Saver(background=devices[0].type == 'cuda')
        self.n_epochs = self.n_updates = 0
        self.best_score = 0
        if ranks.first:  # what a resumed run must have in common with this one
            self.settings = {
                name: value for name, value in vars(args).items() if name not in FREE_ON_RESUME
            }
            self.settings['n_batch * n_gpu'] = self.batch_size
            self.settings['the stories or their encoding'] = fingerprint(
                array
                for story in train + valid
                for array in (story.trunk, *story.branches, np.array(story.label))
            )
            self.settings['the weights at the start'] = fingerprint(
                p.detach().cpu().numpy() for p in model.parameters()
            )

    def path(self, name):
        return os.path.join(self.args.save_dir, self.args.desc, name)

    def forward(self, model, stories, step_size, share_context, lm):
        """A model on some stories, step_size on each device: logits [stories, 2], LM losses [rows] or None, labels [stories]."""
        batches = [
            collate(stories[i : i + step_size], self.model.config.first_position, share_context)
            for i in range(0, len(stories), step_size)
        ]
        if self.devices[0].type == 'cuda':
            batches = [batch.pin_memory() for batch in batches]
        label = torch.cat([batch.label for batch in batches]).to(self.devices[0], non_blocking=True)
        if not isinstance(model, DataParallel):
            batches = [batch.to(self.devices[0]) for batch in batches]
        with torch.autocast(
            self.devices[0].type, torch.bfloat16, enabled=self.args.precision == 'bf16'
        ):
            return *model(*batches, lm=lm), label

    def update(self, stories):
        """One update from a global batch of stories, which is cut into smaller steps where a device runs out of memory.

        Returns its figures for `LossMeter`: the loss of each story and the norm of the gradients, [stories + 1].
        """
        losses = self.steps.fit(lambda size: self.accumulate(stories, size), self.parallel)
        norm = self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        self.n_updates += 1
        return torch.cat([losses, norm.float().view(1)])

    def accumulate(self, stories, step_size):
        """Gradients of a global batch: this rank's share of it, a step after another, summed over the ranks. Returns its losses [stories]."""
        self.model.train()
        n, size = len(stories), self.ranks.size
        losses = torch.zeros(n, device=self.devices[0])
        share = self.ranks.share(range(n))
        step = step_size * (len(self.devices) if isinstance(self.parallel, DataParallel) else 1)
        cuts = [share[i : i + step] for i in range(0, len(share), step)] or [
            range(1)
        ]  # a rank without a share still takes part in the sum
        for cut in cuts:
            last = cut is cuts[-1]
            with contextlib.nullcontext() if size == 1 or last else self.parallel.no_sync():
                logits, lm_losses, label = self.forward(
                    self.parallel,
                    stories[cut.start : cut.stop],
                    step_size,
                    self.args.share_context,
                    lm=self.args.lm_coef > 0,
                )
                part = self.compute_loss(logits, label, lm_losses)  # [stories of this step]
                (
                    part.sum() * (size if share else 0) / n
                ).backward()  # DistributedDataParallel takes the mean over the ranks
            if share:
                losses[cut.start : cut.stop] = part.detach()
        return self.ranks.sum_(losses)

    @torch.inference_mode()
    def predict(self, stories):
        """The classifier's logits, [stories, 2] float32 on the CPU, the work cut over the ranks. Stories of like length go together."""
        self.model.eval()
        order = sorted(
            range(len(stories)),
            key=lambda i: len(stories[i].trunk) + sum(map(len, stories[i].branches)),
        )
        batches = [order[i : i + EVALUATION_BATCH] for i in range(0, len(order), EVALUATION_BATCH)]

        def score(batch, size):
            return torch.cat(
                [
                    self.forward(
                        self.model,
                        [stories[i] for i in batch[first : first + size]],
                        size,
                        True,
                        lm=False,
                    )[0]
                    for first in range(0, len(batch), size)
                ]
            )

        logits = [
            self.evaluation_steps.fit(functools.partial(score, batch), self.model)
            for batch in batches[self.ranks.rank :: self.ranks.size]
        ]
        parts = self.ranks.gather(torch.cat(logits).cpu() if logits else torch.empty(0, 2))
        done = [
            i
            for rank in range(self.ranks.size)
            for batch in batches[rank :: self.ranks.size]
            for i in batch
        ]
        return torch.cat(parts)[torch.argsort(torch.tensor(done))]

    def predict_best(self, stories):
        """`predict` with the parameters that were kept, which become the model's."""
        if self.best_score == 0:  # no evaluation was above 0 %
            self.save_best()
        self.saver.wait()
        self.ranks.from_first(lambda: load_parameters(self.model, self.path('best_params')))
        self.ranks.copy_from_first(self.model.parameters())
        return self.predict(stories)

    def score(self, stories):
        """Cost (mean classification cross-entropy) and accuracy in %."""
        logits, label = self.predict(stories), torch.tensor([story.label for story in stories])
        return F.cross_entropy(logits, label).item(), 100 * (
            logits.argmax(1) == label
        ).double().mean().item()

    def evaluate(self, logger):
        """Log cost and accuracy, print the original's line, and with --submit keep the parameters if they are the best yet."""
        (tr_cost, tr_acc), (va_cost, va_acc) = (
            self.score(self.train[: self.args.n_valid]),
            self.score(self.valid),
        )
        values = dict(
            n_epochs=self.n_epochs,
            n_updates=self.n_updates,
            tr_cost=tr_cost,
            va_cost=va_cost,
            tr_acc=tr_acc,
            va_acc=va_acc,
        )
        if self.ranks.first:
            logger.log(**values)
            tqdm.write(
                '{n_epochs} {n_updates} {tr_cost:.3f} {va_cost:.3f} {tr_acc:.2f} {va_acc:.2f}'.format(
                    **values
                ),
                file=sys.stdout,
            )
        if self.args.submit and va_acc > self.best_score:
            self.best_score = va_acc
            self.save_best()

    def check_best(self):
        """Raise InputError if the best parameters so far, which a resumed run may need at its end, are not whole."""
        try:
            if (
                self.args.submit
                and self.best_score
                and not same_form(
                    read_parameters(self.path('best_params')), self.model.state_dict()
                )
            ):
                raise InputError(
                    f'{self.path("best_params")} does not hold the parameters of this model'
                )
        except InputError as error:
            raise InputError(
                f'{error}; the best so far were in it: put it back, or begin again without --resume'
            ) from error

    def save_best(self):
        if self.ranks.first:
            with whole_file(
                self.path('settings.json')
            ) as f:  # what the parameters do not show: the vocabulary, n_head, afn
                json.dump({name: getattr(self.args, name) for name in SETTINGS}, f, indent=1)
            self.saver.save(self.path('best_params'), self.model.state_dict())

    def run(self, logger):
        """All updates that are left. Raises InputError if a loss is not finite, and Stopped after a signal, with a checkpoint written."""
        meter = LossMeter(lag=2 if self.devices[0].type == 'cuda' else 0)
        with StopSignals() as signals:
            while self.n_epochs < self.args.n_iter:
                epoch_state = self.random_state.get_state()
                done = self.n_updates - self.n_epochs * self.updates_per_epoch
                with tqdm(
                    total=self.updates_per_epoch * self.batch_size,
                    initial=done * self.batch_size,
                    unit=' stories',
                    leave=False,
                    bar_format=BAR,
                    desc=f'epoch {self.n_epochs + 1}/{self.args.n_iter}',
                    dynamic_ncols=True,
                    disable=None if self.ranks.first else True,
                ) as bar:
                    for indices in itertools.islice(
                        iter_data(len(self.train), self.batch_size, self.random_state), done, None
                    ):
                        stories = [self.train[i] for i in indices]
                        figures = self.update(stories)
                        stop = self.ranks.total(signals.received)
                        meter.add(
                            self.n_updates,
                            [story.id for story in stories],
                            torch.cat([figures, stop]),
                        )
                        bar.set_postfix(
                            loss=f'{meter.loss:.3f}',
                            lr=f'{self.opt.param_groups[0]["lr"]:.1e}',
                            refresh=False,
                        )
                        bar.update(len(indices))
                        if self.n_epochs == 0 and self.n_updates in EVALUATE_AFTER:
                            meter.drain()
                            self.evaluate(logger)
                        if (
                            meter.stop
                            or self.args.save_every
                            and self.n_updates % self.args.save_every == 0
                        ):
                            meter.drain()
                            self.save_checkpoint(epoch_state, logger)
                        if meter.stop:
                            self.saver.wait()
                            raise Stopped(signals.received or signal.SIGTERM)
                meter.drain()
                self.n_epochs += 1
                self.evaluate(logger)
                self.save_checkpoint(self.random_state.get_state(), logger)
            self.saver.wait()
            if self.ranks.total(signals.received) > 0:  # since the last update
                raise Stopped(signals.received or signal.SIGTERM)

    # Checkpoints

    def save_checkpoint(self, epoch_state, logger):
        """Write all that the run needs to go on. `epoch_state`: NumPy's random state when the epoch that is under way began."""
        random_states = self.ranks.gather(
            {
                'cpu': torch.get_rng_state(),
                'cuda': torch.cuda.get_rng_state_all() if self.devices[0].type == 'cuda' else [],
            }
        )
        if self.ranks.first:
            name, keys, *rest = epoch_state
            self.saver.save(
                self.path('checkpoint'),
                {
                    'model': self.model.state_dict(),
                    'opt': self.opt.state_dict(),
                    'torch_states': random_states,
                    'run': json.dumps(
                        {
                            'n_epochs': self.n_epochs,
                            'n_updates': self.n_updates,
                            'best_score': self.best_score,
                            'numpy_state': [name, keys.tolist(), *rest],
                            'log': logger.lines,
                            'settings': self.settings,
                        }
                    ),
                },
            )

    def resume(self, checkpoint, path):
        """Go on from a checkpoint. Returns the lines of its log. Raises InputError if it is another run's, or damaged."""
        try:
            run = json.loads(checkpoint['run'])
            for name, value in self.settings.items() if self.ranks.first else ():
                if run['settings'][name] != value:
                    raise InputError(
                        f'{path} cannot be resumed: {name} was {run["settings"][name]}, now it is {value}'
                    )
            if not same_form(
                checkpoint,
                {
                    'model': self.model.state_dict(),
                    'opt': self.opt.form(),
                    'torch_states': [],
                    'run': '',
                },
            ):
                raise ValueError('its tensors are not those of this model')
            self.model.load_state_dict(checkpoint['model'])
            self.opt.load_state_dict(checkpoint['opt'])
            self.n_epochs, self.n_updates, self.best_score = n_epochs, n_updates, best_score = (
                run['n_epochs'],
                run['n_updates'],
                run['best_score'],
            )
            if not (
                type(n_epochs) is type(n_updates) is int
                and 0 <= n_epochs <= self.args.n_iter
                and n_updates == self.opt.t
                and 0 <= n_updates - n_epochs * self.updates_per_epoch <= self.updates_per_epoch
                and 0 <= best_score <= 100
            ):
                raise ValueError('its counters do not agree')
            name, keys, position, *rest = run['numpy_state']
            if not 0 <= position <= len(keys):  # NumPy does not look
                raise ValueError('its random state is none')
            self.random_state.set_state((name, np.array(keys, dtype=np.uint32), position, *rest))
            if self.ranks.rank < len(checkpoint['torch_states']):
                state = checkpoint['torch_states'][self.ranks.rank]
                torch.set_rng_state(state['cpu'])
                torch.cuda.set_rng_state_all(state['cuda'])
            if not (
                isinstance(run['log'], list)
                and run['log']
                and all(isinstance(line, dict) for line in run['log'])
            ):
                raise ValueError('its log is none')
            return run['log']
        except InputError:
            raise
        except Exception as error:  # whatever a damaged one holds in their place
            raise InputError(
                f'{path} is damaged, or no checkpoint of this program ({str(error)[:100]})'
            ) from error


def fingerprint(arrays):
    """A short text that differs where the arrays' numbers differ."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def encode_stories(splits, encoder, n_ctx):
    """`datasets.Stories` of each split to lists of `utils.Story`, with texts cut to n_ctx // 2 - 2 tokens."""
    with tqdm(
        total=3 * sum(len(split.id) for split in splits),
        unit=' texts',
        desc='encoding',
        leave=False,
        dynamic_ncols=True,
        disable=None,
    ) as bar:
        encoded = encode_dataset(splits, encoder.encode_all, bar)
    return [
        transform_roc(*ids, split.label, split.id, encoder.n_vocab, max_len=n_ctx // 2 - 2)
        for split, ids in zip(splits, encoded)
    ]


def read_stories(args):
    """Check the input, in order of cost, and encode it: (train, valid, test), lists of `Story`, and the model's `Config`. Raises InputError."""
    for folder in (
        args.log_dir,
        args.save_dir,
        *[args.submission_dir, args.analysis_dir] * args.submit,
    ):
        check_writable(folder)
    if args.tensorboard and not importlib.util.find_spec('tensorboard'):
        raise InputError('--tensorboard: it is not installed; type: pip install tensorboard')
    encoder = TextEncoder(args.encoder_path, args.bpe_path)
    if args.n_transfer >= 0:
        OpenAIShards(args.model_dir).check(encoder.n_vocab, args.n_embd, args.n_transfer)
    splits = rocstories(args.data_dir, args.n_valid)
    if len(splits[0].id) < args.n_batch * args.n_gpu:
        raise InputError(
            f'{len(splits[0].id)} training stories are left after {args.n_valid} for validation, too few for one batch of '
            f'n_batch * n_gpu = {args.n_batch * args.n_gpu}; lower --n_batch or --n_gpu'
        )
    train, valid, test = encode_stories(splits, encoder, args.n_ctx)
    config = Config(
        n_vocab=encoder.n_vocab,
        n_ctx=longest_sequence(train + valid + test),
        n_embd=args.n_embd,
        n_head=args.n_head,
        n_layer=args.n_layer,
        afn=args.afn,
        embd_pdrop=args.embd_pdrop,
        attn_pdrop=args.attn_pdrop,
        resid_pdrop=args.resid_pdrop,
        clf_pdrop=args.clf_pdrop,
    )
    return (train, valid, test), config


def fill_model(model, args, special):
    """Load what --n_transfer names, and draw the rest. Raises InputError."""
    loaded = (
        load_openai_pretrained_model(model, OpenAIShards(args.model_dir), special, args.n_transfer)
        if args.n_transfer >= 0
        else []
    )
    init_weights(model, loaded)


def describe(args, splits, model, tuning):
    """The table printed before training."""
    n_train, n_valid, n_test = map(len, splits)
    parameters = sum(p.numel() for p in model.parameters())
    source = (
        'drawn at random'
        if args.n_transfer < 0
        else f'embedding and {args.n_transfer} of {args.n_layer} layers from {args.model_dir}'
    )
    cuda, n_devices = tuning.devices[0].type == 'cuda', len(tuning.devices) * tuning.ranks.size
    on = (
        f'{n_devices} x {torch.cuda.get_device_name(tuning.devices[0])}'
        if cuda
        else f'CPU, {torch.get_num_threads()} threads'
    )
    processes = f', {tuning.ranks.size} processes' if tuning.ranks.size > 1 else ''
    settings = os.path.join(args.model_dir, 'settings.json')
    lines = [
        *(('note', note) for note in args.sample),
        (
            'data',
            f'{n_train:,} training, {n_valid:,} validation, {n_test:,} test stories; the longest sequence, n_ctx, is {model.config.n_ctx} tokens',
        ),
        ('model', f'{parameters:,} parameters: {source}'),
        ('options', ', '.join(f'{name} {getattr(args, name)}' for name in SETTING_OPTIONS)),
        *[('', f'those not given: from {settings}')] * os.path.exists(settings),
        (
            'batch',
            f'{tuning.batch_size} stories an update; {tuning.updates_per_epoch} updates an epoch, {tuning.n_updates_total} in all',
        ),
        (
            'device',
            f'{on}{processes}; {args.precision}{", deterministic: some operations are slower" if args.deterministic and cuda else ""}',
        ),
    ]
    if args.n_gpu > n_devices or not cuda and args.n_gpu > 1:
        here = (
            f'{n_devices} CUDA device{"s" * (n_devices > 1)}' if cuda else 'no CUDA device in use'
        )
        lines.append(
            (
                '',
                f'{args.n_gpu} devices asked for, {here}: an update of {tuning.batch_size} stories is added up from steps of {args.n_batch}',
            )
        )
    return table(lines)


def run(args):
    """Encode, load, fine-tune, predict, analyse. Raises InputError, before the costly work where the input is at fault, and Stopped."""
    devices = find_devices(args.device, args.n_gpu)
    keep_freed_memory()
    if args.deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        torch.use_deterministic_algorithms(True)
    with Ranks(devices) as ranks:
        fine_tune(args, ranks)


def fine_tune(args, ranks):
    """What each of the processes does."""
    with contextlib.ExitStack() as stack:
        devices = ranks.devices
        stories, config = ranks.from_first(lambda: read_stories(args))

        # NumPy's random state is used as the original uses it: first for the special tokens' rows, then for the order of each epoch.
        random_state = np.random.RandomState(args.seed)
        special = special_rows(args.n_embd, random_state)
        torch.manual_seed(args.seed)
        model = DoubleHeadModel(config)
        ranks.from_first(lambda: fill_model(model, args, special))
        if ranks.rank:
            torch.manual_seed(args.seed + ranks.rank)  # other dropout masks on each rank

        tuning = FineTuning(args, model.to(devices[0]), *stories[:2], devices, ranks, random_state)
        ranks.from_first(lambda: stack.enter_context(only_run(tuning.path(''))))
        checkpoint = ranks.from_first(
            lambda: find_checkpoint(tuning.path('checkpoint'), args.resume)
        )
        lines = tuning.resume(checkpoint, tuning.path('checkpoint')) if checkpoint else []
        del checkpoint
        ranks.from_first(tuning.check_best)
        log_path = os.path.join(args.log_dir, f'{args.desc}.jsonl')
        logger = (
            (TensorBoardLogger if args.tensorboard else ResultLogger)(log_path, lines, **vars(args))
            if ranks.first
            else None
        )
        if ranks.first:
            print(describe(args, stories, model, tuning), flush=True)
            if lines:
                print(
                    f'resumed after update {tuning.n_updates} of {tuning.n_updates_total}',
                    flush=True,
                )
        tuning.run(logger)

        if args.submit:
            submission_path = os.path.join(args.submission_dir, 'ROCStories.tsv')
            logits = tuning.predict_best(stories[2])
            if ranks.first:
                with whole_file(submission_path) as f:
                    f.write('index\tprediction\n')
                    f.writelines(
                        f'{i}\t{prediction}\n'
                        for i, prediction in enumerate(logits.argmax(1).tolist())
                    )
                report_folder = os.path.join(args.analysis_dir, args.desc)
                with whole_file(os.path.join(report_folder, 'predictions.csv')) as f:
                    analysis.write_predictions(
                        f, *zip(*((story.id, story.label) for story in stories[2])), logits
                    )
            if ranks.first and args.analysis:
                analysis.rocstories(args.data_dir, submission_path, log_path)
                analysis.write_report(
                    report_folder, *analysis.read_run(report_folder, log_path, args.data_dir)
                )


def find_checkpoint(path, resume):
    """The checkpoint to go on from, or None. One that is not asked for is set aside: nothing that could be resumed is lost."""
    if not os.path.exists(path):
        if resume:
            print('no checkpoint to resume: starting at the beginning', flush=True)
        return None
    if resume:
        return load_checkpoint(path)
    os.replace(path, path + '.old')
    print(
        f'an earlier run of this name: its checkpoint is now {path}.old (--resume would have continued it)',
        flush=True,
    )


def main(argv=None):
    return exit_status('train.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
