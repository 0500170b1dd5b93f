"""Exchange weights with Hugging Face's `openai-gpt` format.

    python convert.py openai-gpt/ model/
    python convert.py model/ openai-gpt/
    python convert.py save/rocstories/best_params finetuned/

turn Hugging Face's folder into OpenAI's files; these into Hugging Face's; and fine-tuned parameters into Hugging Face's. The last loads with
OpenAIGPTDoubleHeadsModel.from_pretrained, its vocabulary with OpenAIGPTTokenizer.from_pretrained.
That tokenizer cuts some words otherwise than OpenAI's program ("can't"): for the same scores, give the model the ids of text_utils.TextEncoder.
"""

import json
import os
import sys

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from checkpoint import load_checkpoint
from model_pytorch import ACT_FNS, Config, DoubleHeadModel, save_openai_shards
from predict import add_model_options, open_model
from text_utils import read_merges, read_vocabulary
from utils import SPECIAL_TOKENS, InputError, Parser, check_writable, exit_status, whole_file

SIZES = {
    'vocab_size': 'n_vocab',
    'n_positions': 'n_ctx',
    'n_embd': 'n_embd',
    'n_head': 'n_head',
    'n_layer': 'n_layer',
}  # their name -> Config's
PARTS = {
    'attn.c_attn': 'w',
    'attn.c_proj': 'w',
    'ln_1': 'g',
    'mlp.c_fc': 'w',
    'mlp.c_proj': 'w',
    'ln_2': 'g',
}


def layer_names(n_layer):
    """Yield (our name, their name) of the layers' parameters, which have the same shapes in both."""
    for i in range(n_layer):
        for part, weight in PARTS.items():
            yield f'transformer.h.{i}.{part}.{weight}', f'transformer.h.{i}.{part}.weight'
            yield f'transformer.h.{i}.{part}.b', f'transformer.h.{i}.{part}.bias'


# ----------------------------------------------------------------------------------------------------- from Hugging Face


def read_huggingface(folder):
    """The model in a Hugging Face folder, as a `DoubleHeadModel` whose special tokens' rows and classifier are 0. Raises InputError.

    Reads config.json and model.safetensors or pytorch_model.bin.
    """
    values = read_json(path := os.path.join(folder, 'config.json'))
    sizes = {ours: values.get(theirs) for theirs, ours in SIZES.items()}
    afn = {'silu': 'swish', 'gelu_new': 'gelu'}.get(
        values.get('afn', 'gelu'), values.get('afn', 'gelu')
    )
    if (
        not all(type(n) is int and 0 < n < 1 << 24 for n in sizes.values())
        or sizes['n_layer'] > 1000
        or sizes['n_embd'] % sizes['n_head']
        or afn not in ACT_FNS
        or values.get('layer_norm_epsilon', 1e-5) != 1e-5
    ):
        raise InputError(
            f'{path} does not describe an openai-gpt model: expected {", ".join(SIZES)} (n_embd divisible by n_head), afn one of '
            f'{", ".join(ACT_FNS)}, layer_norm_epsilon 1e-5'
        )
    path = os.path.join(folder, 'model.safetensors')
    if os.path.exists(path):
        try:
            state = load_file(path)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise InputError(f'{path} is no safetensors file ({str(error)[:100]})') from error
    else:
        state = load_checkpoint(path := os.path.join(folder, 'pytorch_model.bin'))
    if not isinstance(state, dict):
        raise InputError(f'{path}: expected a dict from names to tensors')

    def take(name, *shape):
        p = state.get(name, state.get(name.removeprefix('transformer.')))
        if (
            not isinstance(p, torch.Tensor)
            or p.shape != shape
            or p.layout != torch.strided
            or p.is_meta
            or not p.is_floating_point()
            or not torch.isfinite(p).all()
        ):
            raise InputError(
                f'{path}: {name} is {"not there" if p is None else "something else"}, expected {list(shape)} finite numbers'
            )
        return p.detach().float()

    with torch.device('meta'):
        model = DoubleHeadModel(config := Config(**sizes, afn=afn))
    shapes = {name: p.shape for name, p in model.named_parameters()}
    ours = {
        name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith('task_head.')
    }
    ours['transformer.embed.weight'] = torch.cat(
        [
            take('transformer.tokens_embed.weight', config.n_vocab, config.n_embd),
            torch.zeros(len(SPECIAL_TOKENS), config.n_embd),
            take('transformer.positions_embed.weight', config.n_ctx, config.n_embd),
        ]
    )
    ours.update((name, take(theirs, *shapes[name])) for name, theirs in layer_names(config.n_layer))
    model.load_state_dict(ours, assign=True)
    return model.eval()


def read_tokenizer(folder):
    """The vocabulary {symbol: id} and the merges [(left, right)] of a Hugging Face folder: vocab.json and merges.txt, or tokenizer.json. Raises InputError."""
    path = os.path.join(folder, 'tokenizer.json')
    if os.path.exists(os.path.join(folder, 'vocab.json')) or not os.path.exists(path):
        return read_vocabulary(os.path.join(folder, 'vocab.json')), list(
            read_merges(os.path.join(folder, 'merges.txt'))
        )
    try:
        model = read_json(path)['model']
        vocabulary, merges = (
            model['vocab'],
            [tuple(pair.split(' ') if isinstance(pair, str) else pair) for pair in model['merges']],
        )
        whole = (
            sorted(vocabulary.values()) == list(range(len(vocabulary)))
            and all(type(i) is int for i in vocabulary.values())
            and all(
                len(pair) == 2
                and all(symbol.split() == [symbol] and symbol.encode() for symbol in pair)
                for pair in merges
            )
        )
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        whole = False
    if not whole:
        raise InputError(
            f'{path} holds no byte pairs: expected model.vocab, from symbols to the ids 0, 1, 2, ..., and model.merges, pairs of symbols'
        )
    return vocabulary, merges


def read_json(path):
    """The JSON object in a file. Raises InputError."""
    try:
        with open(path, encoding='utf-8') as f:
            values = json.load(f)
        if isinstance(values, dict):
            return values
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError):
        pass
    raise InputError(f'{path} is no JSON object')


def to_openai(source, target):
    """A Hugging Face folder to OpenAI's files. Raises InputError."""
    model = read_huggingface(source)
    vocabulary, merges = read_tokenizer(source)
    if len(vocabulary) != model.config.n_vocab:
        raise InputError(
            f'{source}: the embedding has {model.config.n_vocab:,} rows, but the vocabulary {len(vocabulary):,} symbols; tokens that were added '
            "in fine-tuning have no place in OpenAI's files"
        )
    with whole_file(os.path.join(target, 'encoder_bpe_40000.json')) as f:
        json.dump(vocabulary, f)
    with whole_file(os.path.join(target, 'vocab_40000.bpe')) as f:
        f.writelines(['#version: 0.2\n', *(f'{left} {right}\n' for left, right in merges)])
    config = model.config
    with whole_file(os.path.join(target, 'settings.json')) as f:
        json.dump(
            {
                name: getattr(config, name)
                for name in ('n_ctx', 'n_embd', 'n_head', 'n_layer', 'afn')
            },
            f,
            indent=1,
        )
    save_openai_shards(model, target)


# ------------------------------------------------------------------------------------------------------- to Hugging Face


def to_huggingface(model, encoder, target, finetuned):
    """Write a model as a Hugging Face folder; `finetuned`: with the special tokens and the classifier."""
    config, embed, special = (
        model.config,
        model.transformer.embed.weight.detach(),
        SPECIAL_TOKENS if finetuned else (),
    )
    n_tokens = config.n_vocab + len(special)
    ours = model.state_dict()
    theirs = {
        'transformer.tokens_embed.weight': embed[:n_tokens].clone(),
        'transformer.positions_embed.weight': embed[config.first_position :].clone(),
        **{name: ours[mine].contiguous() for mine, name in layer_names(config.n_layer)},
    }
    if finetuned:
        theirs.update(
            {
                f'multiple_choice_head.summary.{name}': ours[
                    f'task_head.linear.{name}'
                ].contiguous()
                for name in ('weight', 'bias')
            }
        )
    with whole_file(os.path.join(target, 'model.safetensors'), 'wb') as f:
        f.write(save(theirs, {'format': 'pt'}))
    files = {
        'vocab.json': {
            **encoder.encoder,
            **{symbol: config.n_vocab + i for i, symbol in enumerate(special)},
        },
        'tokenizer_config.json': {
            'tokenizer_class': 'OpenAIGPTTokenizer',
            'unk_token': '<unk>',
            'additional_special_tokens': special,
            'model_max_length': config.n_ctx,
        },
        'config.json': {
            'architectures': ['OpenAIGPTDoubleHeadsModel' if finetuned else 'OpenAIGPTLMHeadModel'],
            'model_type': 'openai-gpt',
            **{name: getattr(config, mine) for name, mine in SIZES.items()},
            'vocab_size': n_tokens,
            'afn': config.afn,
            **{name: getattr(config, name) for name in ('embd_pdrop', 'attn_pdrop', 'resid_pdrop')},
            'layer_norm_epsilon': 1e-5,
            'summary_type': 'cls_index',
            'summary_use_proj': True,
            'summary_activation': None,
            'summary_proj_to_labels': True,
            'summary_first_dropout': config.clf_pdrop,
        },
    }
    with whole_file(os.path.join(target, 'merges.txt')) as f:
        merges = [
            pair for pair in encoder.bpe_ranks if ''.join(pair) in encoder.encoder
        ]  # transformers refuses others; OpenAI's files have none
        f.writelines(['#version: 0.2\n', *(f'{left} {right}\n' for left, right in merges)])
    for name, values in files.items():
        with whole_file(os.path.join(target, name)) as f:
            json.dump(values, f, indent=None if name == 'vocab.json' else 1)


# --------------------------------------------------------------------------------------------------------- command line


def parse_args(argv=None):
    parser = Parser(usage='python convert.py SOURCE TARGET [options]', description=__doc__)
    parser.add_argument(
        'source',
        help="a Hugging Face folder, a folder with OpenAI's files, or a file of parameters",
    )
    parser.add_argument('target', help='a folder for the result')
    add_model_options(parser)
    return parser.parse_args(argv)


def run(args):
    """Convert. Raises InputError."""
    check_writable(args.target)
    from_huggingface, finetuned = (
        os.path.exists(os.path.join(args.source, 'config.json')),
        os.path.isfile(args.source),
    )
    if os.path.exists(
        there := os.path.join(
            args.target, 'params_shapes.json' if from_huggingface else 'config.json'
        )
    ):
        raise InputError(f'{there} is there already; give another folder')
    if from_huggingface:
        to_openai(args.source, args.target)
    elif finetuned or os.path.exists(os.path.join(args.source, 'params_shapes.json')):
        args.model_dir = args.model_dir or (None if finetuned else args.source)
        model, encoder, _ = open_model(args, args.source if finetuned else None)
        to_huggingface(model, encoder, args.target, finetuned)
    else:
        raise InputError(
            f"{args.source} is neither a Hugging Face folder (with config.json), nor one with OpenAI's files (with params_shapes.json), "
            'nor a file of parameters'
        )
    print(f'{args.target}: {", ".join(sorted(os.listdir(args.target)))}')


def main(argv=None):
    return exit_status('convert.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
