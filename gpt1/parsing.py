"""The command lines of the scripts, parsed as the table of options says, without PyTorch."""

import argparse
import json
import os
import re
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NoReturn

from gpt1.options import OPTIONS, PRETRAIN, SETTINGS, TRAIN, Number, options_of
from gpt1.settings import check_settings, find_model_dir, read_settings
from utils import InputError

NEW = "[new]: not in OpenAI's program"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows default values, and short names for values."""

    def _get_default_metavar_for_optional(self, action):
        """Return N for a whole number, X for a number, DIR for a folder, FILE for a file."""
        if isinstance(action.type, Number):
            return 'N' if action.type.kind is int else 'X'
        names = {'dir': 'DIR', 'path': 'FILE'}
        return names.get(action.dest.rpartition('_')[2], action.dest.upper())

    def _get_help_string(self, action):
        has_default = action.default not in (None, False) and action.default != []
        return super()._get_help_string(action) if has_default else action.help


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage before it."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=HelpFormatter, **kwargs)

    def error(self, message):
        self.refuse(f'{message}; see --help')

    def refuse(self, message: str | InputError) -> NoReturn:
        """End the process with status 2 and one line on stderr."""
        self.exit(2, f'{self.prog}: error: {" ".join(str(message).split())}\n')

    def parse_known_args(self, args=None, namespace=None):
        """Refuse what is not text in this locale, and could not be written to a log."""
        args = sys.argv[1:] if args is None else list(args)
        for argument in args:
            if re.search('[\ud800-\udfff]', argument):
                encoding = sys.getfilesystemencoding()
                hint = '' if encoding == 'utf-8' else ': set PYTHONUTF8=1 if it is UTF-8'
                self.error(f'the argument {ascii(argument)} is not {encoding.upper()} text{hint}')
        return super().parse_known_args(args, namespace)


def check_paths(parser: Parser, **paths: str | Sequence[str] | None) -> None:
    """End the process with status 2 and one line if a path of an option does not exist."""
    for option, value in paths.items():
        for path in [value] if isinstance(value, str) else value or ():
            if not os.path.exists(path):
                parser.refuse(f'--{option} {path}: no such file or folder')


def _make_parser(script: str, datasets: Iterable[str] | None = None, **texts) -> Parser:
    """Declare the options for argparse. Their defaults are left out: `_parse` fills them in."""
    parser = Parser(prog=script, **texts)
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)  # not shown where it stays empty
        for option in options:
            if script not in option.defaults:
                continue
            default, help = option.defaults[script], option.help
            if default not in (None, False):
                help += f' (default: {default})'
            how = {'metavar': option.metavar, 'required': option.required}
            if option.kind is bool:
                how = {'action': 'store_true'}
            elif option.kind is list:
                how['nargs'] = '+'
            elif isinstance(option.kind, tuple):
                how['choices'] = option.kind
            else:
                how['type'] = option.kind
            if option.name == 'dataset':
                how['choices'] = datasets
            group.add_argument(f'--{option.name}', default=argparse.SUPPRESS, help=help, **how)
    return parser


def _parse(parser: Parser, argv, model_option: str, finish: Callable) -> Namespace:
    """Parse `argv`, and fill in what was not typed.

    model_option  the option that names a model, whose settings take precedence over the table's
                  default values
    finish        is called with the values and the names of those that were typed; where it raises
                  InputError, the process ends as after any other wrong option
    """
    script = parser.prog
    typed = vars(parser.parse_args(argv))
    options = options_of(script)
    check_paths(parser, **{o.name: typed[o.name] for o in options if o.exists and o.name in typed})
    values = {option.name: option.defaults[script] for option in options} | typed
    try:
        if script == TRAIN and values['model_dir'] is None:
            values['model_dir'] = find_model_dir()
        if values[model_option] is not None:
            kinds = ('model', 'advice') if script == TRAIN else ('model',)
            for name, value in read_settings(values[model_option]).items():
                if name in SETTINGS and SETTINGS[name].setting in kinds and name not in typed:
                    values[name] = value
        args = Namespace(**values)
        finish(args, typed)
    except InputError as error:
        parser.refuse(error)
    return args


def parse_train_args(argv=None, datasets: Iterable[str] | None = None) -> Namespace:
    """Parse the options of `train.py`, or end the process with one line if one is wrong.

    datasets  the names that `--dataset` accepts; None: any
    """
    parser = _make_parser(
        TRAIN,
        datasets,
        usage='python train.py --dataset NAME [options]',
        description='Fine-tune GPT-1 on one of the tasks of its paper, or on your own data.\n\n'
        + textwrap.fill(f'NAME is one of {", ".join(datasets or ())}.', 80),
        epilog=f"Default values are those of OpenAI's program.\n{NEW}",
    )
    return _parse(parser, argv, 'model_dir', _finish_train)


def _finish_train(args: Namespace, typed: Collection[str]) -> None:
    if args.dataset is None:
        example = 'python train.py --dataset rocstories --submit --analysis'
        raise InputError(f'which data set? For example: {example}')
    args.desc = args.dataset if args.desc is None else args.desc
    args.n_transfer = args.n_layer if args.n_transfer is None else args.n_transfer
    if args.dataset != 'rocstories' and 'n_valid' not in typed:
        args.n_valid = None  # the default of the task
    _check_model(args, args.model_dir if args.n_transfer >= 0 else None)
    names = ('regression', 'symmetric', 'positive', 'metric')
    own = [name for name in names if getattr(args, name)]
    if args.share_context and args.model == 'lstm':
        raise InputError('--share_context: the LSTM reads separate rows only')
    if args.n_transfer > args.n_layer:
        raise InputError(f'--n_transfer {args.n_transfer} is more than --n_layer {args.n_layer}')
    if args.analysis and not args.submit:
        raise InputError('--analysis reports on the predictions of --submit: give both')
    if own and args.dataset != 'custom':
        raise InputError(f'--{own[0]} is an option for --dataset custom')
    if os.path.basename(args.desc) != args.desc or args.desc in ('', '.', '..'):
        raise InputError(f'--desc {args.desc}: expected a name without folders')
    if len(args.desc.encode()) > 200:
        raise InputError('--desc: the name is too long for a file; expected at most 200 bytes')


def _check_model(args: Namespace, folder: str | None) -> None:
    """Raise InputError if the sizes do not fit, or the weights in `folder` are of another kind."""
    if args.model == 'transformer' and args.n_embd % args.n_head:
        raise InputError(f'--n_embd {args.n_embd} is not divisible by --n_head {args.n_head}')
    there = read_settings(folder).get('model', 'transformer') if folder else args.model
    if args.model != there:
        raise InputError(
            f'--model {args.model}: the weights in {folder} are those of a model of the kind '
            f'{there}; python pretrain.py --model {args.model} makes others'
        )


def parse_pretrain_args(argv=None) -> Namespace:
    """Parse the options of `pretrain.py`. `settings` becomes a dict. See `parse_train_args`."""
    parser = _make_parser(
        PRETRAIN,
        usage='python pretrain.py --text books/ --out model/mine [options]',
        description='Pre-train GPT-1 on plain text, from random weights or from those of a model.',
        epilog='Default values are those of the paper (Radford et al. 2018, section 4.1).\n' + NEW,
    )
    return _parse(parser, argv, 'init', _finish_pretrain)


def _finish_pretrain(args: Namespace, typed: Collection[str]) -> None:
    words, args.settings = args.settings or (), {}
    for word in words:
        name, equals, text = word.partition('=')
        if not equals:
            raise InputError(f'--settings {word[:40]}: expected NAME=VALUE, for example n_iter=5')
        try:
            args.settings[name] = json.loads(text)
        except (ValueError, RecursionError):
            args.settings[name] = text  # a word, such as the name of an activation
    check_settings(args.settings, '--settings')
    _check_model(args, args.init)
    if args.init is not None and args.vocabulary is not None:
        raise InputError('--init brings its own vocabulary: leave --vocabulary out')
