"""The command-line options of the scripts, and the settings that a model brings along.

Every option of `train.py` and `pretrain.py` is declared once, in `OPTIONS`. Parsing, `--help`, the
check of `settings.json` and what `--resume` may change all follow from this table.

This module does not import PyTorch, so that `--help` and wrong options are answered at once.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass

from utils import InputError

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLE_MODEL = os.path.join(HERE, 'model', 'sample')
SAMPLE_LSTM = os.path.join(HERE, 'model', 'sample_lstm')  # pre-trained on the same text
ENCODER_FILE = 'encoder_bpe_40000.json'
MERGES_FILE = 'vocab_40000.bpe'
SHAPES_FILE = 'params_shapes.json'
N_SHARDS = 10
MODEL_FILES = (  # as OpenAI published them
    ENCODER_FILE,
    MERGES_FILE,
    SHAPES_FILE,
    *(f'params_{i}.npy' for i in range(N_SHARDS)),
)

# These repeat the keys of `datasets.TASKS`, `model_pytorch.ACT_FNS` and `opt.SCHEDULES`, whose
# modules are slow to import. A test checks that they are the same.
DATASETS = (
    'rocstories',
    'snli',
    'mnli',
    'qnli',
    'scitail',
    'rte',
    'race',
    'qqp',
    'mrpc',
    'stsb',
    'cola',
    'sst2',
    'wnli',
    'custom',
)
ACTIVATIONS = ('relu', 'swish', 'gelu')
SCHEDULES = ('warmup_linear', 'warmup_cosine', 'warmup_constant', 'warmup_cosine_to_zero')
MODELS = ('transformer', 'lstm')
NOT_OF_MODEL = {  # options that do not describe the other model
    'transformer': ('model', 'lstm_units'),
    'lstm': ('n_head', 'n_layer', 'afn', 'attn_pdrop'),
}

TRAIN = 'train.py'
PRETRAIN = 'pretrain.py'
ABSENT = object()  # the default value of an option that a script does not have


# --------------------------------------------------------------------------- what an option accepts


@dataclass(frozen=True)
class Number:
    """The numbers that an option accepts: from `low` to `high`, except those in `but`.

    kind  int or float

    An instance is also the converter that argparse expects as the `type` of an option.
    """

    kind: type
    low: float
    high: float
    but: tuple[float, ...] = ()

    def accepts(self, value: object) -> bool:
        types = (int,) if self.kind is int else (int, float)  # a bool is neither
        if type(value) not in types or value in self.but or value == math.inf:
            return False
        return self.low <= value <= self.high

    def __call__(self, text: str) -> int | float:
        """Convert what was typed. Raises argparse.ArgumentTypeError."""
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if not self.accepts(value):
            raise argparse.ArgumentTypeError(f'{text[:40]!r} given, expected {self}')
        return value

    def __str__(self):
        name = 'a whole number' if self.kind is int else 'a number'
        limits = f'from {self.low}'
        if self.high < math.inf:
            limits += f' to {self.high}'
        exceptions = ''.join(f', but not {n}' for n in self.but)
        return f'{name} {limits}{exceptions}'


def number(kind: type, low: float, high: float = math.inf, but: Iterable[float] = ()) -> Number:
    """Return the `type` of an option for numbers from `low` to `high`, but none of `but`."""
    return Number(kind, low, high, tuple(but))


# ----------------------------------------------------------------------------- the table of options


@dataclass(frozen=True)
class Option:
    """An option of `train.py`, of `pretrain.py`, or of both.

    name      without the leading dashes
    kind      what it accepts: a `Number`, a tuple of choices, `str`, `bool` (a flag) or `list`
              (several words)
    help      one sentence
    train     its default value in `train.py`; `ABSENT` where that script does not have it; None
              where the script decides
    pretrain  the same for `pretrain.py`
    free      whether a resumed run may give another value
    setting   whether the `settings.json` of a model may set the default value. 'model': it
              describes the model, so `pretrain.py --init` takes it over too; 'advice': it is
              advice for fine-tuning
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

    def accepts(self, value: object) -> bool:
        """Return whether `value`, read from a JSON file, is a value of this option."""
        if isinstance(self.kind, Number):
            return self.kind.accepts(value)
        if isinstance(self.kind, tuple):
            return isinstance(value, str) and value in self.kind
        return isinstance(value, self.kind)

    @property
    def expected(self) -> str:
        """What the option accepts, in words."""
        if isinstance(self.kind, tuple):
            return 'one of ' + ', '.join(self.kind)
        names = {str: 'a text', bool: 'true or false', list: 'a list'}
        return names.get(self.kind) or str(self.kind)


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
        train_only('dataset', DATASETS, None, metavar='NAME', help='the data set'),
        train_only('desc', str, None, free=True,
            help='name of the run, of its log and its parameters (default: that of the data set)'),
        train_only('submit', bool, False,
            help='keep the parameters with the best validation score, and predict the test set '
                 'with them'),
        train_only('analysis', bool, False, free=True,
            help='at the end, print the scores and write a report to <desc>/ in --analysis_dir; '
                 'needs --submit'),
        train_only('tensorboard', bool, False, free=True,
            help="write the log's figures for TensorBoard too, to <desc>/ in --log_dir (ours)"),
        pretrain_only('text', list, None, free=True, required=True, exists=True,
            help='text files, or folders of text files (.txt, .jsonl, .parquet; also compressed)'),
        pretrain_only('out', str, None, free=True, required=True, metavar='DIR',
            help='folder for the vocabulary, the weights, the log and the learning curve'),
        pretrain_only('init', str, None, free=True, exists=True, metavar='DIR',
            help='start from the weights and the vocabulary in this folder (ours)'),
        both('seed', number(int, 0, 2**32 - 1), 42, help='seed of all random numbers'),
    ],
    'folders and files': [
        train_only('data_dir', str, None, free=True, exists=True,
            help='folder of the data (default: data/, or our sample while the data are not there)'),
        train_only('model_dir', str, None, free=True, exists=True,
            help='folder of the weights and the vocabulary: of OpenAI, pretrain.py or Hugging Face '
                 '(default: model/, or our sample while there are none)'),
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
            help='for large data sets, encoded, which the next run need not read again; it can be '
                 'deleted at any time (ours)'),
    ],
    'vocabulary': [
        pretrain_only('n_merges', number(int, 0, 10**6), 40000,
            help='byte pairs to learn from the text'),
        pretrain_only('coverage', number(float, 0.5, 1), 0.9995,
            help="share of the text's characters that a learned vocabulary keeps; the rarest are "
                 '<unk> (ours)'),
        pretrain_only('vocabulary', str, None, free=True, exists=True, metavar='DIR',
            help=f'use {ENCODER_FILE} and {MERGES_FILE} of this folder; do not learn them'),
    ],
    'data': [
        train_only('n_valid', COUNT, 374,
            help='examples set aside for validation where the data have no validation set (custom: '
                 'a tenth)'),
        train_only('regression', bool, False,
            help='custom data: the labels are real numbers, not classes (ours)'),
        train_only('symmetric', bool, False,
            help='custom data: the order of the two texts means nothing (ours)'),
    ],
    'model': [
        both('model', MODELS, 'transformer', setting='model',
            help="the paper's transformer, or the LSTM that it is compared with: a single layer "
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
            help='compute the tokens that the sequences of an example have in common once: faster, '
                 'the same loss; with dropout they then share its masks too. The default where '
                 'dropout is off (ours)'),
        pretrain_only('heldout', number(float, 0, 0.5, but=[0]), 0.01,
            help='share of the text, at its end, to measure the perplexity on; at most 1,024 '
                 'windows (ours)'),
        pretrain_only('eval_every', COUNT, 1000, free=True,
            help='evaluate after this many updates (ours)'),
        pretrain_only('zero_shot', bool, False, free=True,
            help='log what the model knows without fine-tuning (zero_shot.py) after 1,000, 2,000, '
                 '4,000, 8,000 updates and 1, 2, 4, ... epochs; of a small text earlier (ours)'),
        pretrain_only('zero_shot_data', str, None, free=True, exists=True, metavar='DIR',
            help="folder of the data for --zero_shot (default: data/, or made-up data where one "
                 'is not there)'),
    ],
    'optimizer': [
        train_only('opt', ('adam',), 'adam', help="OpenAI's Adam with decoupled weight decay"),
        Option('lr', WEIGHT, train=6.25e-5, pretrain=2.5e-4, setting='advice',
            help='peak learning rate'),
        train_only('lr_schedule', SCHEDULES, 'warmup_linear', metavar='NAME',
            help='course of the learning rate: ' + ', '.join(SCHEDULES)),
        train_only('lr_warmup', number(float, 0, 1), 0.002,
            help='share of all updates in which the learning rate rises; 0: none'),
        pretrain_only('warmup_updates', number(int, 0, 10**9), 2000,
            help='updates in which the learning rate rises; then a cosine takes it to 0'),
        train_only('schedule_t', ('before', 'after'), 'before',
            help="the schedule counts the updates before the present one, as OpenAI's program did "
                 'in 2018, or after it (ours)'),
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
            help='n_batch * n_gpu examples make an update, on however many devices'),
        both('device', str, 'auto', free=True,
            help='auto, cpu, cuda, or one device such as cuda:1 (ours)'),
        both('precision', ('fp32', 'tf32', 'bf16', 'fp16'), 'fp32',
            help='precision of the matrix products; tf32 and fp16 need a GPU (ours)'),
        train_only('deterministic', bool, False, free=True,
            help='the same seed gives the same bytes on a GPU too, more slowly; on a CPU it always '
                 'does (ours)'),
    ],
    'resuming (ours)': [
        both('resume', bool, False, free=True,
            help='continue from the last checkpoint of this run, if there is one'),
        Option('save_every', number(int, 0, 10**9), train=100, pretrain=1000, free=True,
            help='updates between two checkpoints; 0: write one at the end of each epoch only'),
    ],
    'for fine-tuning (ours)': [
        pretrain_only('settings', list, (), free=True, metavar='NAME=VALUE',
            help='default values for train.py, kept in settings.json beside the sizes, the dropout '
                 'rates and a quarter of --lr; for example n_iter=5'),
    ],
}
# fmt: on

SETTINGS = {
    option.name: option
    for option in itertools.chain.from_iterable(OPTIONS.values())
    if option.setting
}


def options_of(script: str) -> list[Option]:
    """Return the options of `script`, 'train.py' or 'pretrain.py', in the order of the table."""
    options = itertools.chain.from_iterable(OPTIONS.values())
    return [option for option in options if option.default(script) is not ABSENT]


def free_on_resume(script: str) -> set[str]:
    """Return the names of the options that a resumed run of `script` may change."""
    return {option.name for option in options_of(script) if option.free}


# ------------------------------------------------------------------------------------------ parsing


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows default values, short names for values, and the line breaks of indented lines."""

    def _get_default_metavar_for_optional(self, action):
        """Return N for a whole number, X for a number, DIR for a folder, FILE for a file."""
        if isinstance(action.type, Number):
            return 'N' if action.type.kind is int else 'X'
        if action.dest.endswith('_dir'):
            return 'DIR'
        if action.dest.endswith('_path'):
            return 'FILE'
        return super()._get_default_metavar_for_optional(action)

    def _get_help_string(self, action):
        if action.default in (None, False) or action.default == []:
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text, width, indent):
        """Fill the paragraphs; keep empty lines and lines that begin with a space as they are."""
        blocks = []
        fill = super()._fill_text
        lines = text.strip().splitlines()
        for keep, block in itertools.groupby(lines, lambda line: line.startswith(' ') or not line):
            if keep:
                blocks.extend(block)
            else:
                blocks.append(fill(' '.join(block), width, indent))
        return '\n'.join(blocks)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage before it."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=HelpFormatter, **kwargs)

    def error(self, message):
        self.exit(2, f'{self.prog}: error: {" ".join(message.split())}; see --help\n')

    def parse_known_args(self, args=None, namespace=None):
        """Refuse text that is not UTF-8, which could not be written to a log."""
        args = sys.argv[1:] if args is None else list(args)
        for argument in args:
            try:
                argument.encode()
            except UnicodeEncodeError:
                self.error(f'the argument {ascii(argument)} is not UTF-8 text')
        return super().parse_known_args(args, namespace)


def _add_option(group, option: Option, script: str) -> None:
    """Declare an option for argparse. Its default is left out: `_parse` fills it in."""
    default = option.default(script)
    arguments = {
        'help': option.help.replace('%', '%%'),
        'default': argparse.SUPPRESS,
        'required': option.required,
        'metavar': option.metavar,
    }
    if default not in (None, False, ()):
        arguments['help'] += f' (default: {default})'
    if option.kind is bool:
        arguments['action'] = 'store_true'
        del arguments['metavar']
    elif option.kind is list:
        arguments['nargs'] = '+'
    elif isinstance(option.kind, tuple):
        arguments['choices'] = option.kind
    else:
        arguments['type'] = option.kind
    group.add_argument(f'--{option.name}', **arguments)


def _make_parser(script: str, **texts) -> Parser:
    parser = Parser(prog=script, **texts)
    for title, options in OPTIONS.items():
        present = [option for option in options if option.default(script) is not ABSENT]
        if present:
            group = parser.add_argument_group(title)
            for option in present:
                _add_option(group, option, script)
    return parser


def _parse(parser: Parser, script: str, argv, model_option: str) -> tuple[Namespace, set[str]]:
    """Parse `argv`, and fill in what was not typed.

    model_option  the option that names a model, whose settings take precedence over the table's
                  default values

    Returns the values, and the names of those that were typed. Raises InputError.
    """
    typed = vars(parser.parse_args(argv))
    values = {option.name: option.default(script) for option in options_of(script)}
    values.update(typed)
    _check_typed_paths(typed, script)
    if script == TRAIN and values['model_dir'] is None:
        values['model_dir'] = find_model_dir()
    folder = values[model_option]
    if folder is not None:
        usable = ('model', 'advice') if script == TRAIN else ('model',)
        for name, value in read_settings(folder).items():
            if name in SETTINGS and SETTINGS[name].setting in usable and name not in typed:
                values[name] = value
    return Namespace(**values), set(typed)


def _check_typed_paths(typed: dict, script: str) -> None:
    """Raise InputError if a file or folder that must exist does not."""
    for option in options_of(script):
        if option.exists and option.name in typed:
            paths = typed[option.name] if option.kind is list else [typed[option.name]]
            for path in paths:
                _check_exists(option.name, path)


def parse_train_args(argv=None) -> Namespace:
    """Parse the options of `train.py`. `data_dir` is None unless it was given.

    Ends the process with status 2 and one line on stderr where an option is wrong.
    """
    parser = _make_parser(
        TRAIN,
        usage='python train.py --dataset NAME [options]',
        description='Fine-tune GPT-1 on one of the tasks of its paper, or on your own data.\n\n'
        f'NAME is one of {", ".join(DATASETS)}.',
        epilog="Default values are those of OpenAI's program, except where a line ends in (ours).",
    )
    with _exit_on_input_error(parser):
        args, typed = _parse(parser, TRAIN, argv, 'model_dir')
        if args.dataset is None:
            raise InputError(
                'which data set? For example: python train.py --dataset rocstories --submit '
                '--analysis'
            )
        if args.desc is None:
            args.desc = args.dataset
        if args.n_transfer is None:
            args.n_transfer = args.n_layer
        if args.dataset != 'rocstories' and 'n_valid' not in typed:
            args.n_valid = None  # as many as usual for the data set
        _check_train_args(args)
    return args


def _check_train_args(args: Namespace) -> None:
    """Raise InputError where two options contradict each other."""
    _check_heads(args)
    if args.n_transfer >= 0:
        _check_model(args, args.model_dir)
    if args.share_context and args.model == 'lstm':
        raise InputError('--share_context: the LSTM reads separate rows only')
    if args.n_transfer > args.n_layer:
        raise InputError(f'--n_transfer {args.n_transfer} is more than --n_layer {args.n_layer}')
    if args.analysis and not args.submit:
        raise InputError('--analysis reports on the predictions of --submit: give both')
    for name in ('regression', 'symmetric'):
        if getattr(args, name) and args.dataset != 'custom':
            raise InputError(f'--{name} is an option for --dataset custom')
    if os.path.basename(args.desc) != args.desc or args.desc in ('', '.', '..'):
        raise InputError(f'--desc {args.desc}: expected a name without folders')
    if len(args.desc.encode()) > 200:
        raise InputError('--desc: the name is too long for a file; expected at most 200 bytes')


def _check_heads(args: Namespace) -> None:
    if args.model == 'transformer' and args.n_embd % args.n_head:
        raise InputError(f'--n_embd {args.n_embd} is not divisible by --n_head {args.n_head}')


def _check_model(args: Namespace, folder: str) -> None:
    """Raise InputError if the weights in `folder` are of another kind of model."""
    there = read_settings(folder).get('model', 'transformer')
    if args.model != there:
        raise InputError(
            f'--model {args.model}: the weights in {folder} are those of a model of the kind '
            f'{there}; python pretrain.py --model {args.model} makes others'
        )


def parse_pretrain_args(argv=None) -> Namespace:
    """Parse the options of `pretrain.py`. `settings` becomes a dict.

    Ends the process with status 2 and one line on stderr where an option is wrong.
    """
    parser = _make_parser(
        PRETRAIN,
        usage='python pretrain.py --text books/ --out model/mine [options]',
        description='Pre-train GPT-1 on plain text, from random weights or from those of a model.',
        epilog='Default values are those of the paper (Radford et al. 2018, section 4.1), except '
        'where a line ends in (ours).',
    )
    with _exit_on_input_error(parser):
        args, _ = _parse(parser, PRETRAIN, argv, 'init')
        args.settings = _parse_settings(args.settings)
        _check_heads(args)
        if args.init is not None:
            _check_model(args, args.init)
        if args.init is not None and args.vocabulary is not None:
            raise InputError('--init brings its own vocabulary: leave --vocabulary out')
    return args


def _parse_settings(words: Iterable[str]) -> dict:
    """Turn ['n_iter=5', 'afn=relu'] into {'n_iter': 5, 'afn': 'relu'}. Raises InputError."""
    settings = {}
    for word in words:
        name, equals, text = word.partition('=')
        if not equals:
            raise InputError(f'--settings {word[:40]}: expected NAME=VALUE, for example n_iter=5')
        try:
            settings[name] = json.loads(text)
        except (ValueError, RecursionError):
            settings[name] = text  # a word, such as the name of an activation
    check_settings(settings, '--settings')
    return settings


@contextlib.contextmanager
def _exit_on_input_error(parser: Parser):
    """Return a context in which an InputError ends the process: status 2, one line on stderr."""
    try:
        yield
    except InputError as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')


def _check_exists(option: str, path: str) -> None:
    if not os.path.exists(path):
        raise InputError(f'--{option} {path}: no such file or folder')


def check_paths(parser: Parser, **paths: str | None) -> None:
    """End the process with status 2 and one line if the path of an option does not exist.

    paths  {name of the option: path, or None where it was not given}
    """
    with _exit_on_input_error(parser):
        for option, path in paths.items():
            if path is not None:
                _check_exists(option, path)


def check_file(parser: Parser, path: str) -> None:
    """Do what `check_paths` does, for an argument without a name."""
    if not os.path.exists(path):
        parser.exit(2, f'{parser.prog}: error: no such file or folder: {path}\n')


@contextlib.contextmanager
def utf8_stdin():
    """Return a context in which standard input is UTF-8. Other text raises InputError."""
    with contextlib.suppress(AttributeError, ValueError):  # not a file, or already read
        sys.stdin.reconfigure(encoding='utf-8')
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError('standard input is not UTF-8 text') from error


def add_model_options(parser) -> None:
    """Add the options of every script that uses a model to an argparse parser or group."""
    parser.add_argument(
        '--model_dir',
        help='folder of the vocabulary, and of the weights where no other parameters are named '
        '(default: the folder of the parameters; or model/, or our sample while there are none)',
    )
    parser.add_argument(
        '--n_head',
        type=number(int, 1, 10**5),
        help='number of attention heads (default: as the settings beside the weights say, or 12)',
    )
    parser.add_argument(
        '--afn',
        choices=ACTIVATIONS,
        help='activation (default: as the settings beside the weights say, or gelu)',
    )
    parser.add_argument(
        '--device', default='auto', help='auto, cpu, cuda, or one device such as cuda:1'
    )


# -------------------------------------------------------------------------- the settings of a model


# Facts about the weights that are not options: the number of symbols of their vocabulary, a
# fingerprint of the vocabulary, and the task of a fine-tuned model (`datasets.Task.to_dict()`).
FACTS = {'n_vocab': COUNT, 'vocabulary': str, 'task': dict}

# Names in the config.json of a Hugging Face folder, and ours.
CONFIG_NAMES = {
    'n_positions': 'n_ctx',
    'n_embd': 'n_embd',
    'n_head': 'n_head',
    'n_layer': 'n_layer',
    'afn': 'afn',
    'embd_pdrop': 'embd_pdrop',
    'attn_pdrop': 'attn_pdrop',
    'resid_pdrop': 'resid_pdrop',
    'summary_first_dropout': 'clf_pdrop',
}
CONFIG_KEY = 'gpt1'  # our settings and facts in a config.json


def check_settings(values: dict, where: str, facts: bool = False) -> None:
    """Check default values for `train.py`, as a model's `settings.json` gives them.

    `facts` allows the `FACTS` too. Raises InputError, which names `where` and what was expected.
    """
    for name, value in values.items():
        if name in SETTINGS:
            accepted, expected = SETTINGS[name].accepts(value), SETTINGS[name].expected
        elif facts and name == 'n_vocab':
            accepted, expected = FACTS[name].accepts(value), str(FACTS[name])
        elif facts and name in FACTS:
            accepted, expected = isinstance(value, FACTS[name]), f'a {FACTS[name].__name__}'
        else:
            raise InputError(
                f'{where}: "{name[:40]}" is not a setting; expected {", ".join(SETTINGS)}'
            )
        if not accepted:
            raise InputError(f'{where}: "{name}" is {_shown(value)}, expected {expected}')


def _shown(value: object) -> str:
    """Return a JSON value for a message, cut to 40 characters."""
    return json.dumps(value)[:40]


def read_json(path: str) -> dict:
    """Return the JSON object in a file. Raises InputError."""
    try:
        with open(path, encoding='utf-8') as f:
            values = json.load(f)
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not a JSON file ({str(error)[:80]})') from error
    if not isinstance(values, dict):
        raise InputError(f'{path}: expected a JSON object')
    return values


def read_settings(folder: str) -> dict:
    """Return what the weights in `folder` bring along: default values for `train.py`, and `FACTS`.

    They come from `settings.json`, or from the `config.json` of a Hugging Face folder. The result
    is empty where there is neither, as with OpenAI's files. Raises InputError.
    """
    path = os.path.join(folder, 'settings.json')
    if os.path.lexists(path):
        settings = read_json(path)
    else:
        path = os.path.join(folder, 'config.json')
        if not os.path.lexists(path):
            return {}
        settings = settings_of_config(read_json(path), path)
    check_settings(settings, path, facts=True)
    return settings


def settings_of_config(config: dict, where: str) -> dict:
    """Return the settings in the `config.json` of a Hugging Face folder. Raises InputError."""
    if config.get('model_type', 'openai-gpt') != 'openai-gpt':
        raise InputError(
            f'{where}: the model type is {_shown(config["model_type"])}, expected "openai-gpt"'
        )
    if config.get('layer_norm_epsilon', 1e-5) != 1e-5:
        raise InputError(
            f'{where}: layer_norm_epsilon is {_shown(config["layer_norm_epsilon"])}, expected 1e-05'
        )
    ours = config.get(CONFIG_KEY, {})
    if not isinstance(ours, dict):
        raise InputError(f'{where}: "{CONFIG_KEY}" is {_shown(ours)}, expected an object')
    settings = {our: config[their] for their, our in CONFIG_NAMES.items() if their in config}
    # Two names of transformers for activations of ours; its "gelu" is the tanh form too.
    other_names = {'gelu_new': 'gelu', 'silu': 'swish'}
    if settings.get('afn') in list(other_names):
        settings['afn'] = other_names[settings['afn']]
    return {**settings, **ours}


def model_settings(values: Namespace | dict, kinds: Iterable[str] = ('model', 'advice')) -> dict:
    """Return those options of a run that the `settings.json` of a model may hold.

    `kinds` may leave out the advice for fine-tuning.
    """
    values = values if isinstance(values, dict) else vars(values)
    others = NOT_OF_MODEL[values.get('model', 'transformer')]
    return {
        name: values[name]
        for name, option in SETTINGS.items()
        if name in values and option.setting in kinds and name not in others
    }


def check_sizes(weights, n_vocab: int, n_embd: int, n_transfer: int) -> None:
    """Raise InputError unless pre-trained weights have the sizes asked for.

    weights  `weights.OpenAIShards` or `huggingface.HuggingFaceWeights`
    """
    if n_transfer > weights.n_layer:
        raise InputError(
            f'--n_transfer {n_transfer}: the weights in {weights.folder} have '
            f'{weights.n_layer} layers'
        )
    if n_embd != weights.n_embd:
        raise InputError(
            f'--n_embd {n_embd}: the weights in {weights.folder} have width {weights.n_embd}'
        )
    if n_vocab != weights.n_vocab:
        raise InputError(
            f'the weights in {weights.folder} are for a vocabulary of {weights.n_vocab:,} symbols, '
            f'but the vocabulary has {n_vocab:,}: it belongs to another model'
        )


# -------------------------------------------------------------------------------- the default model


def is_sample_model(folder: str) -> bool:
    """Return whether `folder` is one of the sample models that come with this program."""
    return os.path.realpath(folder) in map(os.path.realpath, (SAMPLE_MODEL, SAMPLE_LSTM))


def find_model_dir() -> str:
    """Return the folder of the model to use where none is named.

    That is `model/` in the working folder, or else `model/` beside the scripts, if there are
    weights in it; or else the sample model beside the scripts.
    Raises InputError if one of the two holds files that look like weights but are not recognized:
    whoever put them there does not expect the sample model.
    """
    for folder in ('model', os.path.join(HERE, 'model')):
        if not os.path.isdir(folder):
            continue
        try:
            names = [name for name in sorted(os.listdir(folder)) if not name.startswith('.')]
        except OSError as error:
            raise InputError(f'cannot read {folder}: {error.strerror}') from error
        if set(names) & {*MODEL_FILES, 'config.json'}:
            return shortest_path(folder)
        unknown = [name for name in names if _looks_like_weights(name)]
        if unknown:
            raise InputError(
                f'{shortest_path(folder)} holds {unknown[0]}, which is not recognized as part of a '
                f"model; expected OpenAI's files ({SHAPES_FILE}, params_0.npy ...) or a Hugging "
                'Face folder (config.json, model.safetensors); --model_dir names another folder'
            )
    return shortest_path(SAMPLE_MODEL)


def _looks_like_weights(name: str) -> bool:
    name = name.lower()
    endings = '.npy .npz .bin .safetensors .pt .pth .ckpt .h5 .bpe .zip .gz .tar .tgz'.split()
    beginnings = ('params', 'encoder', 'vocab', 'merges', 'best_params', 'checkpoint')
    return name.startswith(beginnings) or name.endswith(tuple(endings))


def shortest_path(path: str) -> str:
    """Return `path` relative to the working folder if it is below it, else absolute."""
    path = os.path.abspath(path)
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
