"""Say which ending fits a story, with parameters that train.py has kept.

    python predict.py data/cloze_test_test__spring2016.csv > predictions.csv
    python predict.py "Rick grew up in ..." "He joined a gang." "He is happy."
    python predict.py

scores the stories of a CSV file in the Story Cloze format (with or without labels), one story, or those typed in. For a CSV file it
writes, as CSV: the scores, the probability of the predicted ending, that ending and the right one (0: the first, 1: the second).
"""

import contextlib
import glob
import os
import sys
import time

import torch

import analysis
from checkpoint import load_finetuned_model
from datasets import Stories, read_cloze_test
from model_pytorch import ACT_FNS, MODEL_FILES, load_pretrained_model, read_settings
from text_utils import TextEncoder
from utils import (
    InputError,
    Parser,
    collate,
    default_folder,
    encode_dataset,
    exit_status,
    find_devices,
    is_sample,
    number,
    transform_roc,
)

BATCH = 64  # stories; no result depends on it


def add_model_options(parser):
    """The options of every script that opens weights."""
    parser.add_argument(
        '--model_dir',
        help='the folder of the vocabulary and of pre-trained weights '
        "(default: that of the run, or model/; while OpenAI's are not there, our sample)",
    )
    parser.add_argument(
        '--n_head',
        type=number(int, 1),
        help='attention heads (default: as settings.json beside the weights says, or 12)',
    )
    parser.add_argument(
        '--afn',
        choices=list(ACT_FNS),
        help='activation (default: as settings.json beside the weights says, or gelu)',
    )


def open_model(args, params=None):
    """The model and the encoder that the options name, and the settings the model was made with: fine-tuned from the file `params`, or pre-trained.

    Raises InputError.
    """
    if params and not os.path.isfile(params):
        raise InputError(
            f'no such file: {params}; train.py --submit keeps the best parameters of a run in save/<desc>/best_params (--params names another)'
        )
    model_dir = args.model_dir or default_folder('model/', MODEL_FILES)
    if not params and is_sample(model_dir, 'model'):
        print("our sample model, not OpenAI's: python download.py fetches theirs", file=sys.stderr)
    settings = read_settings(os.path.dirname(params) if params else model_dir)
    paths = [
        os.path.join(model_dir, name) for name in ('encoder_bpe_40000.json', 'vocab_40000.bpe')
    ]
    if params and not args.model_dir:
        paths = [settings.get('encoder_path', paths[0]), settings.get('bpe_path', paths[1])]
    encoder = TextEncoder(*paths)
    model = (
        load_finetuned_model(params, encoder.n_vocab, args.n_head, args.afn)
        if params
        else load_pretrained_model(model_dir, args.n_head, args.afn)
    )
    return model, encoder, settings


@torch.inference_mode()
def score(model, encoder, stories, max_len=254):
    """The classifier's logits for `datasets.Stories`, [stories, 2] float32 on the CPU, and how many stories had to be cut.

    As in training, a story and its endings are cut to `max_len` tokens each; then also to the positions the model has.
    """
    n_ctx, device = model.config.n_ctx, model.transformer.embed.weight.device
    [encoded] = encode_dataset([stories], encoder.encode_all)
    room = n_ctx - 3  # for the special tokens
    endings = [[ids[: min(max_len, room)] for ids in encoded[i]] for i in (1, 2)]
    texts = [
        ids[: min(max_len, room - max(map(len, pair)))] for ids, *pair in zip(encoded[0], *endings)
    ]
    n_cut = sum(
        any(len(a) < len(b) for a, b in zip(after, before))
        for after, before in zip(zip(texts, *endings), zip(*encoded))
    )
    encoded = transform_roc(texts, *endings, stories.label, stories.id, encoder.n_vocab, max_len)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].trunk))
    logits = torch.empty(len(encoded), 2)
    for first in range(0, len(order), BATCH):
        indices = order[first : first + BATCH]
        batch = collate(
            [encoded[i] for i in indices], model.config.first_position, share_context=True
        )
        logits[indices] = model(batch.to(device), lm=False)[0].cpu()
    return logits, n_cut


@contextlib.contextmanager
def text_only():
    """Within it, standard input that is not UTF-8 raises InputError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError('standard input is not UTF-8 text') from error


def typed_stories(read=input):
    """Yield (story, ending 1, ending 2) as they are typed, or piped, a line each, until an empty line."""
    ask = ('story:    ', 'ending 1: ', 'ending 2: ') if sys.stdin.isatty() else ('', '', '')
    with contextlib.suppress(EOFError), text_only():
        while story := read(ask[0]):
            try:
                endings = [read(question) for question in ask[1:]]
            except EOFError as error:
                raise InputError(
                    'the last story has not two endings: expected it and each of them on a line of its own'
                ) from error
            yield story, *endings


def latest_params(save_dir='save'):
    """The best_params that a run of train.py wrote last. Raises InputError if there are none."""
    found = glob.glob(os.path.join(glob.escape(save_dir), '*', 'best_params'))
    if not found:
        raise InputError(
            f'no parameters in {save_dir}/: fine-tune first (python train.py --dataset rocstories --submit), or name a file with --params'
        )
    return max(found, key=os.path.getmtime)


def parse_args(argv=None):
    parser = Parser(
        usage='python predict.py [FILE.csv | STORY ENDING1 ENDING2] [options]', description=__doc__
    )
    parser.add_argument(
        'what', nargs='*', help='a CSV file, or a story and two endings; none: they are typed in'
    )
    parser.add_argument(
        '--params',
        help='the parameters (default: save/<desc>/best_params of the run that kept some last)',
    )
    add_model_options(parser)
    parser.add_argument(
        '--device', default='auto', help='auto, cpu, cuda, or one device such as cuda:1'
    )
    args = parser.parse_args(argv)
    if len(args.what) not in (0, 1, 3):
        parser.error('give a CSV file, or a story and two endings, or nothing')
    return args


def run(args):
    """Open the model, score. Raises InputError."""
    [device] = find_devices(args.device, 1)
    stories = read_cloze_test(args.what[0], need_labels=False) if len(args.what) == 1 else None
    params = args.params or latest_params()
    model, encoder, settings = open_model(args, params)
    if not args.params:
        print(f'parameters: {params}', file=sys.stderr)
    model.to(device)
    max_len = settings.get('n_ctx', 512) // 2 - 2

    def warn(n_cut):
        if n_cut:
            print(
                f"{n_cut:,} stor{'ies are' if n_cut > 1 else 'y is'} longer than the model's {model.config.n_ctx} positions: of those, the end is not seen",
                file=sys.stderr,
            )

    if stories:
        start = time.perf_counter()
        logits, n_cut = score(model, encoder, stories, max_len)
        warn(n_cut)
        analysis.write_predictions(sys.stdout, stories.id, stories.label, logits)
        right = (
            ''
            if -1 in stories.label
            else f', {100 * (logits.argmax(1) == torch.tensor(stories.label)).double().mean():.2f} % right'
        )
        print(
            f'{len(logits):,} stories in {time.perf_counter() - start:.1f} s{right}',
            file=sys.stderr,
        )
        return
    for texts in [args.what] if args.what else typed_stories():
        logits, n_cut = score(
            model, encoder, Stories(['1'], *([text] for text in texts), [-1]), max_len
        )
        warn(n_cut)
        for i, p in enumerate(logits[0].softmax(0).tolist()):
            print(f'{p:6.1%}  {texts[1 + i]}')


def main(argv=None):
    return exit_status('predict.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
