"""Continue a text with GPT-1, pre-trained or fine-tuned.

    python generate.py "Rick grew up in a troubled household."
    echo "It was a dark night." | python generate.py --n_samples 3

The model knows lower-case text only. One that was fine-tuned (--params) reads the text as the beginning of a story, writes an ending to it,
and stops.
"""

import itertools
import sys

import torch
import torch.nn.functional as F

from predict import add_model_options, open_model, text_only
from utils import InputError, Parser, exit_status, find_devices, number


class CachedModel:
    """A model that reads tokens on from where it is: each layer's keys and values are kept, so that a token costs one pass over itself.

    Holds `n_rows` texts of one length, of at most n_ctx tokens.
    """

    def __init__(self, model, n_rows):
        embed, config = model.transformer.embed.weight, model.config
        self.model, self.length = model, 0
        # [layers, keys and values, rows, heads, positions, n_embd / heads]
        self.cache = embed.new_empty(
            config.n_layer, 2, n_rows, config.n_head, config.n_ctx, config.n_embd // config.n_head
        )

    @torch.inference_mode()
    def __call__(self, ids):
        """Read ids [rows, new tokens]. Returns the logits of the token after each row, over the vocabulary and the special tokens: [rows, n_vocab + 3]."""
        config, (rows, new) = self.model.config, ids.shape
        start, end = self.length, self.length + new
        if end > config.n_ctx:
            raise ValueError(f'{end} tokens, but the model has {config.n_ctx} positions')
        embed = self.model.transformer.embed.weight
        h = (embed[ids] + embed[config.first_position + start : config.first_position + end]).view(
            rows * new, -1
        )
        # A new token sees all that came before, and the new ones up to itself.
        mask = torch.ones(new, end, dtype=torch.bool, device=h.device).tril_(start)
        for block, cache in zip(self.model.transformer.h, self.cache):
            q, *kv = (
                block.attn.c_attn(h).view(rows, new, 3, config.n_head, -1).permute(2, 0, 3, 1, 4)
            )  # each [rows, heads, new, n_embd / heads]
            cache[:, :, :, start:end] = torch.stack(kv)
            k, v = cache[:, :, :, :end]
            a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            n = block.ln_1(h + block.attn.c_proj(a.transpose(1, 2).reshape(rows * new, -1)))
            h = block.ln_2(n + block.mlp(n))
        self.length = end
        return h.view(rows, new, -1)[:, -1] @ embed[: config.first_position].t()


def choose(logits, temperature, top_k, top_p, generator):
    """Draw a token for each row of logits [rows, n_vocab]. Returns [rows, 1].

    temperature  divides the logits; 0: always the likeliest token
    top_k        draw from this many of the likeliest only; 0: from all
    top_p        draw from the likeliest only that together reach this probability
    """
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits, tokens = (logits.float() / temperature).sort(-1, descending=True)
    if top_k:
        logits[:, top_k:] = -torch.inf
    p = logits.softmax(-1)
    p[:, 1:][(p.cumsum(-1) - p)[:, 1:] >= top_p] = 0  # those before it reach top_p already
    return tokens.gather(-1, torch.multinomial(p, 1, generator=generator))


@torch.inference_mode()
def generate(
    model, ids, length, n_samples=1, temperature=1.0, top_k=0, top_p=1.0, seed=42, special=False
):
    """Continue the token ids of a text. Yields the ids that follow, [n_samples] at a time, `length` times.

    special  also draw `_delimiter_`, which a fine-tuned model sets between story and ending, and `_classify_`, after which a sample is at its end:
             what is drawn for it then is to be ignored, and nothing more is drawn when all are
    `<unk>` (id 0) and `_start_` are never drawn. When the model's n_ctx positions are full, it goes on from the second half of them: the text before
    that is forgotten.
    """
    config, device = model.config, model.transformer.embed.weight.device
    n_ctx, classify = config.n_ctx, config.first_position - 1
    never = [0, *range(config.n_vocab, config.n_vocab + 1 if special else config.first_position)]
    ended = torch.zeros(n_samples, dtype=torch.bool, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    text = torch.tensor(ids, device=device)[-n_ctx:].expand(
        n_samples, -1
    )  # what the model has read, or is to read next
    new, cached = text, CachedModel(model, n_samples)
    for _ in range(length):
        if cached.length + new.shape[1] > n_ctx:
            new, cached.length = text[:, -(n_ctx // 2 + 1) :], 0
            text = new
        logits = cached(new)
        logits[:, never] = -torch.inf
        new = choose(logits, temperature, top_k, top_p, generator)
        text = torch.cat([text, new], 1)
        yield new[:, 0].tolist()
        ended |= new[:, 0] == classify
        if ended.all():
            return


def parse_args(argv=None):
    parser = Parser(usage='python generate.py [TEXT] [options]', description=__doc__)
    parser.add_argument('text', nargs='?', help='the text to continue (default: standard input)')
    group = parser.add_argument_group('what to draw')
    group.add_argument(
        '--length',
        type=number(int, 1),
        default=60,
        help='tokens to add; a fine-tuned model may stop earlier',
    )
    group.add_argument('--n_samples', type=number(int, 1, 1000), default=1, help='continuations')
    group.add_argument(
        '--temperature',
        type=number(float, 0),
        default=1.0,
        help='below 1: likelier and duller; 0: always the likeliest token',
    )
    group.add_argument(
        '--top_k',
        type=number(int, 0),
        default=40,
        help='draw from this many of the likeliest tokens only; 0: from all',
    )
    group.add_argument(
        '--top_p',
        type=number(float, 0, 1),
        default=1.0,
        help='draw from the likeliest tokens only that together have this probability',
    )
    group.add_argument(
        '--seed',
        type=number(int, 0, 2**63 - 1),
        default=42,
        help='the same seed draws the same texts',
    )
    group = parser.add_argument_group('the model')
    group.add_argument(
        '--params',
        help='parameters that train.py has kept, such as save/rocstories/best_params (default: the pre-trained model)',
    )
    add_model_options(group)
    group.add_argument(
        '--device', default='auto', help='auto, cpu, cuda, or one device such as cuda:1'
    )
    return parser.parse_args(argv)


def run(args):
    """Print the text with each of its continuations. Raises InputError."""
    text = args.text
    if text is None:
        if sys.stdin.isatty():
            print('type the text to continue, and end it with Ctrl-D', file=sys.stderr)
        with text_only():
            text = sys.stdin.read()
    [device] = find_devices(args.device, 1)
    model, encoder, _ = open_model(args, args.params)
    ids = encoder.encode(text)
    if not ids:
        raise InputError(
            'there is no text to continue: give some, as python generate.py "Rick grew up in a troubled household."'
        )
    n_ctx = model.config.n_ctx
    if len(ids) + args.length >= n_ctx:
        print(
            f'the model has {n_ctx} positions: of a longer text it sees the last {n_ctx // 2} to {n_ctx} tokens',
            file=sys.stderr,
        )
    finetuned = bool(args.params)
    start = [encoder.n_vocab] if finetuned else []
    samples = zip(
        *generate(
            model.to(device),
            start + ids,
            args.length,
            args.n_samples,
            args.temperature,
            args.top_k,
            args.top_p,
            args.seed,
            finetuned,
        )
    )
    known, classify = len(encoder.decode(ids)), model.config.first_position - 1
    for i, sample in enumerate(samples, 1):
        if args.n_samples > 1:
            print(f'--- {i} ---')
        words = [
            token
            for token in itertools.takewhile(lambda token: token != classify, sample)
            if token < encoder.n_vocab
        ]
        print(text.rstrip() + encoder.decode([*ids, *words])[known:])


def main(argv=None):
    return exit_status('generate.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
