"""Continue a text with GPT-1, pre-trained or fine-tuned.

    python generate.py "Rick grew up in a troubled household."
    echo "It was a dark night." | python generate.py --n_samples 3

The model knows lower-case text only. A fine-tuned model (--params) reads the text as the beginning
of an example of its task, and stops at the end of the example.
"""

import functools
import itertools
import os
import sys
from collections.abc import Iterable, Iterator

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

import gpt1.startup  # noqa: F401 (before the import of any library)

from gpt1.model_options import add_model_options, utf8_stdin
from gpt1.options import Number
from gpt1.parsing import Parser, check_paths
from gpt1.settings import is_sample_model
from utils import SPECIAL_TOKENS, InputError, exit_status

GROUP = 16  # samples drawn at a time; a full-size model needs 38 MB of memory for each


def parse_args(argv=None):
    """Parse the command line. Ends the process if something is wrong."""
    parser = Parser(
        prog='generate.py', usage='python generate.py [TEXT] [options]', description=__doc__
    )
    parser.add_argument('text', nargs='?', help='the text to continue (default: standard input)')
    group = parser.add_argument_group('what to draw')
    add = group.add_argument
    tokens, top, seeds = Number(int, 1, 10**6), Number(int, 0, 10**6), Number(int, 0, 2**63 - 1)
    heat, share, samples = Number(float, 0, 1000), Number(float, 0, 1), Number(int, 1, 1000)
    text = 'tokens to add; a fine-tuned model may stop earlier'
    add('--length', type=tokens, default=60, help=text)
    add('--n_samples', type=samples, default=1, help='number of continuations')
    text = 'below 1: likelier and less varied text; 0: always the likeliest token'
    add('--temperature', type=heat, default=1.0, help=text)
    text = 'draw from the likeliest tokens only; 0: from all'
    add('--top_k', type=top, default=40, help=text)
    text = 'draw from the likeliest tokens that together have this probability'
    add('--top_p', type=share, default=1.0, help=text)
    add('--seed', type=seeds, default=42, help='the same seed draws the same texts')
    group = parser.add_argument_group('the model')
    text = 'a best_params of train.py (default: the pre-trained model in --model_dir)'
    group.add_argument('--params', help=text)
    add_model_options(group)
    args = parser.parse_args(argv)
    check_paths(parser, params=args.params, model_dir=args.model_dir)
    return args


def read_text(args) -> str:
    """Return the text to continue. Raises InputError if standard input is not UTF-8."""
    if args.text is not None:
        return args.text
    if sys.stdin.isatty():
        print('type the text to continue, and end it with Ctrl-D', file=sys.stderr)
    with utf8_stdin():
        return sys.stdin.read()


def print_text(start: str, ids: list[int], sample: Iterable[int], encoder) -> None:
    """Print a text, whose tokens are `ids`, and its continuation, each word as it is drawn."""
    print(start, end='', flush=True)
    shown = list(ids)
    n_printed = len(encoder.decode(shown))
    classify = encoder.n_vocab + SPECIAL_TOKENS.index('_classify_')
    for token in itertools.takewhile(lambda token: token != classify, sample):
        if token >= encoder.n_vocab:  # the other special tokens
            continue
        shown.append(token)
        if encoder.decoder[token].endswith('</w>'):
            text = encoder.decode(shown)
            print(text[n_printed:], end='', flush=True)
            n_printed = len(text)
    print(encoder.decode(shown)[n_printed:])


def draw_samples(args, opened, ids: list[int]) -> Iterator[Iterator[int]]:
    """Yield the tokens of each sample; of a single one while they are drawn."""
    from gpt1.ops.sampling import generate

    start = [opened.encoder.n_vocab] if opened.finetuned else []
    what = {name: getattr(args, name) for name in ('length', 'temperature', 'top_k', 'top_p')}
    for first in range(0, args.n_samples, GROUP):
        what['n_samples'] = min(GROUP, args.n_samples - first)
        what['seed'] = (args.seed + first) % 2**63
        tokens = generate(opened.model, start + ids, special=opened.finetuned, **what)
        if args.n_samples == 1:
            yield (token for (token,) in tokens)
        else:
            yield from map(iter, zip(*tokens))


def run(args) -> None:
    """Print the text with each of its continuations. Raises InputError."""
    text = read_text(args)

    from gpt1.lstm import LSTMConfig
    from gpt1.run.parallel import find_devices
    from gpt1.weights.open import open_model

    [device] = find_devices(args.device, 1)
    source = (args.params, args.model_dir) if args.params else (args.model_dir, None)
    opened = open_model(*source, args.n_head, args.afn)
    warn = functools.partial(print, file=sys.stderr)
    if is_sample_model(opened.path):
        warn("sample model, not OpenAI's: python download.py downloads that")
    if isinstance(opened.model.config, LSTMConfig):
        hint = 'generate.py continues texts with a transformer'
        raise InputError(f'{opened.path} is an LSTM: {hint}')
    opened.model.to(device)
    encoder, n_ctx = opened.encoder, opened.model.config.n_ctx
    ids = encoder.encode(text)
    if not ids:
        raise InputError('there is no text to continue, as in: python generate.py "Rick grew up"')
    n_unknown = ids.count(0)
    if n_unknown:
        warn(
            f'{n_unknown} of {len(text)} characters are not in the vocabulary: the model reads '
            '<unk> in their place'
        )
    if len(ids) + args.length >= n_ctx:
        warn(
            f'the model has {n_ctx} positions: of a longer text it sees the last {n_ctx // 2} to '
            f'{n_ctx} tokens'
        )
    for n, sample in enumerate(draw_samples(args, opened, ids), 1):
        if args.n_samples > 1:
            print(f'--- {n} ---')
        print_text(text.rstrip(), ids, sample, encoder)


def main(argv=None) -> int:
    """Run the command. Returns the exit status."""
    return exit_status('generate.py', run, parse_args(argv), is_result=True)


if __name__ == '__main__':
    sys.exit(main())
