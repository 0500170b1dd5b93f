"""The options of `train.py` and `pretrain.py`, each declared once, in `OPTIONS`.

Parsing, `--help`, the check of `settings.json` and what `--resume` may change follow from this
table. Nothing here imports PyTorch, so that `--help` and wrong options are answered at once.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpt1.files import ENCODER_FILE, MERGES_FILE

# These repeat the keys of `model_pytorch.ACT_FNS`, `opt.SCHEDULES` and `metrics.METRICS`, whose
# modules are slow to import. A test checks that they are the same.
ACTIVATIONS = ('relu', 'swish', 'gelu')
SCHEDULES = ('warmup_linear', 'warmup_cosine', 'warmup_constant', 'warmup_cosine_to_zero')
MODELS = ('transformer', 'lstm')
METRICS = ('accuracy', 'f1', 'matthews', 'pearson', 'spearman')
NOT_OF_MODEL = {  # options that do not describe the other model
    'transformer': ('model', 'lstm_units'),
    'lstm': ('n_head', 'n_layer', 'afn', 'attn_pdrop'),
}

TRAIN = 'train.py'
PRETRAIN = 'pretrain.py'
ABSENT = object()  # the default value of an option that a script does not have


# --------------------------------------------------------------------------- what an option accepts


@dataclass(frozen=True, eq=False)
class Number:
    """The numbers from `low` to `high`, except those in `but`; `kind` is int or float.

    An instance is also the converter that argparse expects as the `type` of an option.
    """

    kind: type
    low: float
    high: float = math.inf
    but: Sequence[float] = ()

    def __call__(self, text: str) -> int | float:
        """Convert what was typed. Raises argparse.ArgumentTypeError."""
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if not accepts(self, value):
            raise argparse.ArgumentTypeError(f'{text[:40]!r} given, expected {self}')
        return value

    def __str__(self):
        name = 'a whole number' if self.kind is int else 'a number'
        limit = f' to {self.high}' if self.high < math.inf else ''
        exceptions = ''.join(f', but not {n}' for n in self.but)
        return f'{name} from {self.low}{limit}{exceptions}'


number = Number  # reads better where it is the `type` of an option


def accepts(kind: object, value: object) -> bool:
    """Return whether an option of a kind (see `Option`) may have a value that was not typed."""
    if isinstance(kind, Number):
        types = (int,) if kind.kind is int else (int, float)  # a bool is neither
        if type(value) not in types or value in kind.but or value == math.inf:
            return False
        return kind.low <= value <= kind.high
    if isinstance(kind, tuple):
        return isinstance(value, str) and value in kind
    return isinstance(value, kind)


def expected(kind: object) -> str:
    """Return what an option of a kind accepts, in words."""
    if isinstance(kind, tuple):
        return 'one of ' + ', '.join(kind)
    return str(kind) if isinstance(kind, Number) else f'a {kind.__name__}'


# ----------------------------------------------------------------------------- the table of options


@dataclass(frozen=True)
class Option:
    """An option of `train.py`, of `pretrain.py`, or of both.

    name      without the leading dashes
    kind      a `Number`, a tuple of choices, `str`, `bool` (a flag) or `list` (several words)
    help      one sentence
    train     its default value in `train.py`; ABSENT: not an option of it; None: it decides
    pretrain  the same for `pretrain.py`
    free      whether a resumed run may give another value
    setting   whether the `settings.json` of a model may set the default value: 'model', which
              `pretrain.py --init` takes over too, or 'advice' for fine-tuning
    required  whether it must be given
    exists    whether it names a file or a folder that must exist
    metavar   what `--help` shows for its value
    """

    name: str
    kind: object
    help: str
    train: object = ABSENT
    pretrain: object = ABSENT
    free: bool = False
    setting: str = ''
    required: bool = False
    exists: bool = False
    metavar: str | None = None

    def default(self, script: str) -> object:
        return self.train if script == TRAIN else self.pretrain


def both(name: str, kind: object, default: object, help: str, **more) -> Option:
    """Return an option of `train.py` and `pretrain.py` with the same default value."""
    return Option(name, kind, help, train=default, pretrain=default, **more)


def train_only(name: str, kind: object, default: object, help: str, **more) -> Option:
    return Option(name, kind, help, train=default, **more)


def pretrain_only(name: str, kind: object, default: object, help: str, **more) -> Option:
    return Option(name, kind, help, pretrain=default, **more)


COUNT = number(int, 1, 10**9)
SIZE = number(int, 1, 10**6)
# Rates of 1, or so little below it that float32 rounds to 1, would divide by zero.
DROPOUT = number(float, 0, 0.99)
DECAY = number(float, 0, 0.999999)
WEIGHT = number(float, 0, 1000)

# fmt: off
OPTIONS = {
    'what to do': [
        train_only('dataset', str, None, metavar='NAME', help='the data set'),
        train_only('desc', str, None, free=True,
            help='name of the run, of its log and its parameters (default: that of the data set)'),
        train_only('submit', bool, False,
            help='keep the parameters with the best validation score; predict the test set with '
                 'them'),
        train_only('analysis', bool, False, free=True,
            help='at the end, print the scores and write a report to <desc>/ in --analysis_dir; '
                 'needs --submit'),
        both('tensorboard', bool, False, free=True,
            help="[new] also write TensorBoard events, to <desc>/ in --log_dir (pretrain.py: to "
                 'log/ in --out)'),
        both('log_every', COUNT, None, free=True,
            help='[new] updates between two progress lines of the log: loss, learning rate, '
                 "gradients' norm (default: 100 to 200 lines a run)"),
        pretrain_only('text', list, None, free=True, required=True, exists=True,
            help='files of text or folders of them: .txt; .jsonl, .ndjson or .json lines; '
                 '.parquet; all but the last also with .gz, .xz or .zst'),
        pretrain_only('out', str, None, free=True, required=True, metavar='DIR',
            help='folder for the vocabulary, the weights, the log and the learning curve'),
        pretrain_only('init', str, None, free=True, exists=True, metavar='DIR',
            help='[new] start from the weights and the vocabulary in this folder'),
        both('seed', number(int, 0, 2**32 - 1), 42, help='seed of all random numbers'),
    ],
    'folders and files': [
        train_only('data_dir', str, None, free=True, exists=True,
            help='folder of the data (default: data/, or the bundled sample if it is empty)'),
        train_only('model_dir', str, None, free=True, exists=True,
            help='folder of the weights and the vocabulary: from OpenAI, pretrain.py or Hugging '
                 'Face (default: model/, or the bundled sample if it has no weights)'),
        train_only('encoder_path', str, None, free=True, exists=True,
            help=f'the vocabulary (default: {ENCODER_FILE} in --model_dir)'),
        train_only('bpe_path', str, None, free=True, exists=True,
            help=f'the merges (default: {MERGES_FILE} in --model_dir)'),
        train_only('log_dir', str, 'log/', free=True, help='for <desc>.jsonl'),
        train_only('save_dir', str, 'save/', free=True,
            help='for <desc>/best_params and <desc>/checkpoint'),
        train_only('submission_dir', str, 'submission/', free=True, help='for the predictions'),
        train_only('analysis_dir', str, 'analysis/', free=True,
            help='for <desc>/report.md and its pictures'),
        train_only('cache_dir', str, 'cache/', free=True,
            help='[new] cache of encoded data sets; safe to delete'),
    ],
    'vocabulary': [
        pretrain_only('n_merges', number(int, 0, 10**6), 40000,
            help='byte pairs to learn from the text'),
        pretrain_only('coverage', number(float, 0.5, 1), 0.9995,
            help="[new] share of the text's characters that a learned vocabulary keeps; the rarest "
                 'are <unk>'),
        pretrain_only('vocabulary', str, None, free=True, exists=True, metavar='DIR',
            help=f'use {ENCODER_FILE} and {MERGES_FILE} of this folder; do not learn them'),
    ],
    'data': [
        train_only('n_valid', COUNT, 374,
            help='size of the validation split if the data set has none (custom: a tenth)'),
        train_only('n_train', COUNT, None,
            help='[new] use so many of the training examples, each class in proportion; the same '
                 'ones for the same --seed'),
        train_only('regression', bool, False,
            help='[new] custom data: the labels are real numbers, not classes'),
        train_only('symmetric', bool, False,
            help='[new] custom data: the order of the two texts does not matter'),
        train_only('positive', str, None, metavar='CLASS',
            help='[new] custom data: the class that F1 is computed for (default: the rarer of two; '
                 'of more, the mean over all)'),
        train_only('metric', METRICS, None, metavar='NAME',
            help='[new] custom data: the metric that selects the best parameters, of '
                 + ', '.join(METRICS) + ' (default: accuracy; regression: pearson)'),
    ],
    'model': [
        both('model', MODELS, 'transformer', setting='model',
            help="the paper's transformer, or the single-layer LSTM that it is compared with "
                 '(paper, section 5)'),
        both('n_ctx', number(int, 6, 10**6), 512, setting='model',
            help='length of the longest sequence in tokens; longer texts are cut'),
        both('n_embd', SIZE, 768, setting='model', help='width'),
        both('n_head', SIZE, 12, setting='model', help='attention heads'),
        both('n_layer', number(int, 1, 1000), 12, setting='model', help='layers'),
        both('lstm_units', SIZE, 2048, setting='model', help='units of the LSTM'),
        train_only('n_transfer', number(int, -1, 1000), None,
            help='load the embedding and this many layers; -1: load nothing (default: all)'),
        both('afn', ACTIVATIONS, 'gelu', setting='model',
            help='activation of the feed-forward layers'),
        both('embd_pdrop', DROPOUT, 0.1, setting='model', help='dropout rate of the embedding'),
        both('attn_pdrop', DROPOUT, 0.1, setting='model', help='dropout rate of the attention'),
        both('resid_pdrop', DROPOUT, 0.1, setting='model',
            help='dropout rate before each residual sum'),
        train_only('clf_pdrop', DROPOUT, 0.1, setting='advice',
            help='dropout rate before the classifier'),
    ],
    'training': [
        Option('n_iter', SIZE, train=3, pretrain=100, setting='advice', help='epochs'),
        both('n_batch', SIZE, 8, free=True, setting='advice',
            help='examples (pretrain.py: windows) that a device processes in a step; without '
            'dropout, train.py joins small steps on a CPU'),
        pretrain_only('n_windows', SIZE, 64,
            help='windows of --n_ctx tokens in an update, over all devices'),
        train_only('lm_coef', WEIGHT, 0.5,
            help="weight of the language-model loss beside the classifier's"),
        train_only('share_context', bool, False,
            help="[new] encode the shared prefix of an example's sequences once: faster, the same "
                 'loss; with dropout, its masks are shared too. The default where dropout is off'),
        pretrain_only('heldout', number(float, 0, 0.5, but=[0]), 0.01,
            help='[new] fraction of the text (its end) held out for perplexity; at most 1,024 '
                 'windows'),
        pretrain_only('eval_every', COUNT, 1000, free=True,
            help='[new] evaluate after this many updates'),
        pretrain_only('zero_shot', bool, False, free=True,
            help='[new] log zero-shot scores after 1,000, 2,000, 4,000, 8,000 updates (earlier for '
                 'small texts) and 1, 2, 4, ... epochs'),
        pretrain_only('zero_shot_data', str, None, free=True, exists=True, metavar='DIR',
            help="[new] folder of the data for --zero_shot (default: data/; made-up data replace "
                 'what is missing)'),
    ],
    'optimizer': [
        train_only('opt', ('adam',), 'adam', help="OpenAI's Adam with decoupled weight decay"),
        Option('lr', WEIGHT, train=6.25e-5, pretrain=2.5e-4, setting='advice',
            help='peak learning rate'),
        train_only('lr_schedule', SCHEDULES, 'warmup_linear', metavar='NAME',
            help='learning-rate schedule: ' + ', '.join(SCHEDULES)),
        train_only('lr_warmup', number(float, 0, 1), 0.002,
            help='fraction of updates used for warm-up; 0: none'),
        pretrain_only('warmup_updates', number(int, 0, 10**9), 2000,
            help='warm-up updates, followed by cosine decay to 0'),
        train_only('schedule_t', ('before', 'after'), 'before',
            help="[new] take the learning rate from the counter of updates before it is increased "
                 '(as in 2018), or after'),
        both('max_grad_norm', number(float, -1, 10**6), 1,
            help="clip the gradients' global norm to this; 0 or less: do not clip"),
        both('l2', WEIGHT, 0.01, help='weight decay, of parameters of more than one dimension'),
        train_only('vector_l2', bool, False, help='apply the weight decay to all parameters'),
        both('b1', DECAY, 0.9, help="decay rate of the gradients' running mean"),
        both('b2', DECAY, 0.999, help="decay rate of the squared gradients' running mean"),
        both('e', number(float, 1e-30, 1000), 1e-8,
            help="added to the root of the squared gradients' running mean"),
    ],
    'hardware': [
        train_only('n_gpu', SIZE, 4, free=True,
            help='multiplies the batch: an update has n_batch * n_gpu examples, whatever the '
                 'hardware'),
        both('device', str, 'auto', free=True,
            help='[new] auto, cpu, cuda, or one device such as cuda:1'),
        both('precision', ('fp32', 'tf32', 'bf16', 'fp16'), 'fp32',
            help='[new] precision of the matrix products; tf32 and fp16 need a GPU'),
        train_only('deterministic', bool, False, free=True,
            help='[new] the same seed gives the same bytes on the same GPU too, more slowly; on a '
                 'CPU, with the same number of threads, it always does'),
    ],
    'resuming': [
        both('resume', bool, False, free=True,
            help='[new] continue from the last checkpoint of this run, if there is one'),
        Option('save_every', number(int, 0, 10**9), train=100, pretrain=1000, free=True,
            help='[new] updates between two checkpoints; 0: only at the end of each epoch'),
        both('keep_checkpoint', bool, False, free=True,
            help='[new] keep the checkpoint of a run that has come to its end'),
    ],
    'for fine-tuning': [
        pretrain_only('settings', list, (), free=True, metavar='NAME=VALUE',
            help='[new] default values for train.py, for example n_iter=5; settings.json keeps '
                 'them with the sizes, the dropout rates and a quarter of --lr'),
    ],
}
# fmt: on

ALL = list(itertools.chain.from_iterable(OPTIONS.values()))
SETTINGS = {option.name: option for option in ALL if option.setting}


def options_of(script: str) -> list[Option]:
    """Return the options of `script`, 'train.py' or 'pretrain.py', in the order of the table."""
    return [option for option in ALL if option.default(script) is not ABSENT]


def free_on_resume(script: str) -> set[str]:
    """Return the names of the options that a resumed run of `script` may change."""
    return {option.name for option in options_of(script) if option.free}
