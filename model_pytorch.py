"""GPT-1 in PyTorch: a 12-layer post-norm transformer decoder with a language-model head and a classifier, and OpenAI's weights for it.

Names are those of OpenAI's program and of its best-known PyTorch port. Everywhere but in attention, a batch is its real tokens one after another
(`utils.Batch`), so nothing is spent on padding.
"""

import json
import math
import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from functional import (
    activated_linear,
    dropout,
    dropped_attention,
    embed,
    full_precision,
    gelu,
    linear,
    padded,
)
from loss import language_model_losses
from utils import SPECIAL_TOKENS, InputError, whole_file

ACT_FNS = {'relu': F.relu, 'swish': F.silu, 'gelu': gelu}
N_SHARDS = 10
KINDS = {
    'a positive whole number': lambda value: type(value) is int and 0 < value < 1e6,
    'a positive number': lambda value: type(value) in (int, float) and 0 < value < 1e6,
    'a number from 0 to below 1': lambda value: type(value) in (int, float) and 0 <= value < 1,
    ' or '.join(ACT_FNS): lambda value: value in list(ACT_FNS),
    'a text': lambda value: isinstance(value, str),
}
WHOLE, POSITIVE, RATE, ACTIVATION, TEXT = KINDS
SETTINGS = {  # what settings.json, beside weights that are not OpenAI's, may say: options of train.py, and where the vocabulary is
    'n_ctx': WHOLE,
    'n_embd': WHOLE,
    'n_head': WHOLE,
    'n_layer': WHOLE,
    'afn': ACTIVATION,
    'embd_pdrop': RATE,
    'attn_pdrop': RATE,
    'resid_pdrop': RATE,
    'n_iter': WHOLE,
    'n_batch': WHOLE,
    'lr': POSITIVE,
    'encoder_path': TEXT,
    'bpe_path': TEXT,
}
MODEL_FILES = (
    'encoder_bpe_40000.json',
    'vocab_40000.bpe',
    'params_shapes.json',
    *(f'params_{i}.npy' for i in range(N_SHARDS)),
)  # OpenAI's


@dataclass(frozen=True)
class Config:
    """Sizes and dropout rates; the defaults are the paper's (section 4.1)."""

    n_vocab: int = 40478  # without the special tokens
    n_ctx: int = 512  # positions
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12
    afn: str = 'gelu'
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    clf_pdrop: float = 0.1

    @property
    def first_position(self):
        """The embedding's row of position 0: its rows are vocabulary, special tokens, positions."""
        return self.n_vocab + len(SPECIAL_TOKENS)


class LayerNorm(nn.Module):
    """Layer normalization: biased variance, epsilon 1e-5 inside the root, gain g and bias b."""

    def __init__(self, n_state):
        super().__init__()
        self.g = nn.Parameter(torch.ones(n_state))
        self.b = nn.Parameter(torch.zeros(n_state))

    def forward(self, x):
        return F.layer_norm(x, self.g.shape, self.g, self.b, eps=1e-5)


class Conv1D(nn.Module):
    """The original's convolution of width 1: x [tokens, nx] -> x w + b [tokens, nf], with w [nx, nf]."""

    def __init__(self, nf, nx):
        super().__init__()
        self.w = nn.Parameter(torch.empty(nx, nf))
        self.b = nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        return linear(x, self.w, self.b)


class Attention(nn.Module):
    """Masked multi-head self-attention (paper, section 3.1). x [tokens, n_embd] -> [tokens, n_embd]."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.attn_pdrop = config.attn_pdrop
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.resid_pdrop = config.resid_pdrop

    def forward(self, x, batch, mask, read=None):
        """`read` [rows * k], k tokens of each row in order: compute only theirs, [rows * k, n_embd]; `mask` is then [rows, 1, k, length]."""
        n, p = x.shape[-1], self.attn_pdrop if self.training else 0
        if read is not None:
            q = (
                linear(x[read], self.c_attn.w[:, :n], self.c_attn.b[:n])
                .view(batch.rows, -1, self.n_head, n // self.n_head)
                .transpose(1, 2)
            )
            k, v = padded(linear(x, self.c_attn.w[:, n:], self.c_attn.b[n:]), batch, self.n_head, 2)
            a = (
                F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
                .transpose(1, 2)
                .reshape(-1, n)
            )
        elif p and not x.is_cuda:
            a = dropped_attention(self.c_attn(x), batch, mask, self.n_head, p)
        else:  # padding stands at the end of a row, so no real token sees it
            q, k, v = padded(self.c_attn(x), batch, self.n_head, 3)
            a = (
                F.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=p
                )
                .transpose(1, 2)
                .reshape(-1, n)[batch.slots]
            )
        return dropout(self.c_proj(a), self.resid_pdrop, self.training)


class MLP(nn.Module):
    """x [tokens, n_embd] -> 4 * n_embd -> n_embd."""

    def __init__(self, config):
        super().__init__()
        self.c_fc = Conv1D(4 * config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, 4 * config.n_embd)
        self.act = ACT_FNS[config.afn]
        self.resid_pdrop = config.resid_pdrop

    def forward(self, x):
        return dropout(
            activated_linear(self.c_fc(x), self.c_proj.w, self.c_proj.b, self.act),
            self.resid_pdrop,
            self.training,
        )


class Block(nn.Module):
    """Post-norm: the norms follow the sums, unlike in GPT-2."""

    def __init__(self, config):
        super().__init__()
        self.attn = Attention(config)
        self.ln_1 = LayerNorm(config.n_embd)
        self.mlp = MLP(config)
        self.ln_2 = LayerNorm(config.n_embd)

    def forward(self, x, batch, mask, read=None):
        """[tokens, n_embd] -> [tokens, n_embd], or only the tokens of `read`: see `Attention`."""
        a = self.attn(x, batch, mask, read)
        n = self.ln_1((x if read is None else x[read]) + a)
        return self.ln_2(n + self.mlp(n))


class TransformerModel(nn.Module):
    """The embedding matrix and the blocks."""

    def __init__(self, config):
        super().__init__()
        rows = torch.empty(
            config.first_position + config.n_ctx, config.n_embd
        )  # drawing 31 million numbers to overwrite them takes a second
        self.embed = nn.Embedding.from_pretrained(rows, freeze=False)
        self.embd_pdrop = config.embd_pdrop
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))

    @property
    def drops_we(self):
        """Whether the matrix that `forward` returns is a copy, made for this batch."""
        return self.training and self.embd_pdrop > 0

    def forward(self, batch, read=None):
        """Returns the states h [tokens, n_embd] and the embedding matrix as it was used: in training with dropout, one mask for the whole batch.

        `read` [rows * k], k tokens of each row in order: the last layer computes the states of these alone, h [rows * k, n_embd].
        """
        h, we = embed(self.embed.weight, batch.ids, batch.positions, self.embd_pdrop, self.training)
        mask = None if batch.branch is None else attention_mask(batch.branch)
        for block in self.h[:-1]:
            h = block(h, batch, mask)
        if read is not None:
            mask = (
                attention_mask(batch.ids.new_zeros(batch.rows, batch.length))
                if mask is None
                else mask
            )
            row, place = (
                torch.arange(batch.rows, device=read.device)[:, None],
                (batch.slots[read] % batch.length).view(batch.rows, -1),
            )
            mask = mask[row, :, place].transpose(1, 2)  # [rows, 1, k, length]
        return self.h[-1](h, batch, mask, read), we


def attention_mask(branch):
    """branch [rows, length] -> [rows, 1, length, length]: token i sees token j <= i on the trunk (branch 0) or on its own branch."""
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    return seen.tril_()[:, None]


class LMHead(nn.Module):
    """The language-model head. Its weights are the embedding matrix, special and position rows included, as in the original."""

    def forward(self, h, we, batch, take_we):
        return language_model_losses(h, we, batch, take_we)


class LMModel(nn.Module):
    """Transformer and language-model head: what is pre-trained (paper, section 3.1). Its parameters have the names of `DoubleHeadModel`'s."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = TransformerModel(config)
        self.lm_head = LMHead()

    def forward(self, batch):
        """Returns the LM loss of each row, [rows]."""
        h, we = self.transformer(batch)
        return self.lm_head(h, we, batch, take_we=self.transformer.drops_we)


class MultipleChoiceHead(nn.Module):
    """A score for each ending, from the state of its `_classify_`: h [stories, 2, n_embd] -> [stories, 2]."""

    def __init__(self, config):
        super().__init__()
        self.clf_pdrop = config.clf_pdrop
        self.linear = nn.Linear(config.n_embd, 1)

    def forward(self, h):
        # One mask for both endings of a story.
        mask = F.dropout(h.new_ones(h.shape[0], 1, h.shape[2]), self.clf_pdrop, self.training)
        return full_precision(self.linear(h * mask).squeeze(-1))


class DoubleHeadModel(nn.Module):
    """Transformer, language-model head and classifier."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = TransformerModel(config)
        self.lm_head = LMHead()
        self.task_head = MultipleChoiceHead(config)

    def forward(self, batch, lm=True):
        """Returns the classifier's logits [stories, 2] and the LM loss of each row [rows], or None with `lm=False`."""
        if not lm:
            h, _ = self.transformer(batch, read=batch.clf.flatten())
            logits = self.task_head(h.view(*batch.clf.shape, -1))
            return torch.where(
                batch.clf == batch.clf[:, :1], logits[:, :1], logits
            ), None  # one ending twice: one score, to the last bit
        h, we = self.transformer(batch)
        return self.task_head(h[batch.clf]), self.lm_head(
            h, we, batch, take_we=self.transformer.drops_we
        )


@torch.no_grad()
def init_weights(model, loaded=(), std=0.02):
    """Draw the parameters that are not among `loaded`: weights N(0, std), biases 0, gains 1 (paper, section 4.1)."""
    loaded = set(map(id, loaded))
    for name, p in model.named_parameters():
        if id(p) not in loaded:
            p.normal_(0, std) if p.dim() > 1 else p.fill_(name.endswith('.g'))


def special_rows(n_embd, random_state):
    """The embedding rows of the special tokens, [3, n_embd] float32: the first use the original makes of NumPy's random state."""
    return (random_state.randn(len(SPECIAL_TOKENS), n_embd) * 0.02).astype(np.float32)


class OpenAIShards:
    """OpenAI's weights as published: `params_shapes.json` and ten flat float32 pieces, read a parameter at a time.

    Opening checks all that can be checked without reading the numbers. Raises InputError.
    """

    def __init__(self, folder):
        self.folder = folder
        shapes_path = os.path.join(folder, 'params_shapes.json')
        try:
            with open(shapes_path, encoding='utf-8') as f:
                self.shapes = json.load(f)
        except OSError as error:
            raise InputError(
                f"cannot read {shapes_path}: {error.strerror}; python download.py fetches OpenAI's weights and vocabulary"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f'{shapes_path} is not JSON: {str(error)[:80]}') from error
        if not isinstance(self.shapes, list) or not all(
            isinstance(shape, list)
            and 1 <= len(shape) <= 3
            and all(type(n) is int and 0 < n < 1 << 31 for n in shape)
            for shape in self.shapes
        ):
            raise InputError(
                f'{shapes_path}: expected a list of shapes, each a list of one to three positive integers'
            )
        if len(self.shapes) < 2 or len(self.shapes) % 12 != 2:
            raise InputError(
                f'{shapes_path}: {len(self.shapes)} shapes, expected 2 and 12 for each layer'
            )
        self.paths = [os.path.join(folder, f'params_{i}.npy') for i in range(N_SHARDS)]
        self.shards = [self._open(path) for path in self.paths]
        floats, expected = sum(map(len, self.shards)), sum(map(math.prod, self.shapes))
        if floats != expected:
            raise InputError(
                f'{folder}: the shards hold {floats:,} floats, but params_shapes.json lists {expected:,}; fetch them again'
            )

    @staticmethod
    def _open(path):
        try:
            with open(path, 'rb') as f:
                version = np.lib.format.read_magic(f)
                read_header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(f)
                offset, size = f.tell(), os.fstat(f.fileno()).st_size
            if (
                dtype == np.float32 and len(shape) == 1
            ):  # looked at first, for NumPy crashes on some headers that it reads
                if size - offset != 4 * shape[0]:
                    raise ValueError(
                        f'it announces {shape[0]:,} floats and has {size - offset:,} bytes'
                    )
                return np.memmap(path, np.float32, 'r', offset, shape)
        except OSError as error:
            raise InputError(f'cannot read {path}: {error.strerror or error}') from error
        except Exception as error:  # the header is a Python literal: a damaged one can fail in any of a dozen exceptions
            raise InputError(
                f'{path} is cut off or not a NumPy array of numbers ({str(error)[:80]}); fetch it again'
            ) from error
        raise InputError(f'{path}: expected a flat float32 array')

    @property
    def n_layer(self):
        return (len(self.shapes) - 2) // 12

    @property
    def n_positions(self):
        return self.shapes[0][0]

    def check(self, n_vocab, n_embd, n_transfer):
        """Raise InputError unless the embedding and the first `n_transfer` layers have the shapes asked for."""
        if n_transfer > self.n_layer:
            raise InputError(
                f'--n_transfer {n_transfer}: the weights in {self.folder} have {self.n_layer} layers'
            )
        expected = [[self.n_positions, n_embd], [n_vocab, n_embd]] + [
            list(shape) for shape in _layer_shapes(n_embd) * n_transfer
        ]
        for i, (shape, wanted) in enumerate(zip(self.shapes, expected)):
            if shape != wanted:
                raise InputError(
                    f'{self.folder}: array {i} of params_shapes.json is {shape}, but a vocabulary of {n_vocab:,} symbols '
                    f'and --n_embd {n_embd} ask for {wanted}'
                )

    def read(self, first, count):
        """Yield arrays `first` .. `first + count - 1` in their shapes. Raises InputError if one has a NaN or an infinity."""
        start = sum(map(math.prod, self.shapes[:first]))
        for i in range(first, first + count):
            array = np.empty(math.prod(self.shapes[i]), dtype=np.float32)
            shard_start = 0
            for path, shard in zip(self.paths, self.shards):
                lo, hi = max(start, shard_start), min(start + len(array), shard_start + len(shard))
                if lo < hi:
                    array[lo - start : hi - start] = piece = shard[
                        lo - shard_start : hi - shard_start
                    ]
                    if not np.isfinite(piece).all():
                        raise InputError(f'{path} contains NaN or infinity; fetch it again')
                shard_start += len(shard)
            start += len(array)
            yield array.reshape(self.shapes[i])


def _layer_shapes(n):
    """Shapes of a layer's arrays in OpenAI's order, which is also that of `Block`'s parameters (whose matrices lack the leading 1)."""
    return (
        (1, n, 3 * n),
        (3 * n,),
        (1, n, n),
        (n,),
        (n,),
        (n,),
        (1, n, 4 * n),
        (4 * n,),
        (1, 4 * n, n),
        (n,),
        (n,),
        (n,),
    )


def save_openai_shards(model, folder):
    """Write the embedding and the layers of a model as OpenAI published theirs. The special tokens' rows are left out: fine-tuning draws them.

    `params_shapes.json` comes last: where it is, the rest is whole.
    """
    config, embed = model.config, model.transformer.embed.weight
    parameters = [
        embed[config.first_position :],
        embed[: config.n_vocab],
        *(p for block in model.transformer.h for p in block.parameters()),
    ]
    shapes = [[config.n_ctx, config.n_embd], [config.n_vocab, config.n_embd]] + [
        list(shape) for shape in _layer_shapes(config.n_embd) * config.n_layer
    ]
    flat = torch.cat([p.detach().float().cpu().flatten() for p in parameters]).numpy()
    for i, shard in enumerate(np.array_split(flat, N_SHARDS)):
        with whole_file(os.path.join(folder, f'params_{i}.npy'), 'wb') as f:
            np.save(f, shard)
    with whole_file(os.path.join(folder, 'params_shapes.json')) as f:
        json.dump(shapes, f)


@torch.no_grad()
def load_openai_pretrained_model(model, shards, special, n_transfer=12):
    """Load OpenAI's embedding and the first `n_transfer` layers into `model`; -1 loads nothing.

    special [3, n_embd] fills the special tokens' rows. Holds one array beside the model. Returns the parameters that it filled.
    Raises InputError.
    """
    if n_transfer < 0:
        return []
    config, embed = model.config, model.transformer.embed.weight
    shards.check(config.n_vocab, config.n_embd, n_transfer)
    if config.n_ctx > shards.n_positions:
        raise InputError(
            f'the stories need n_ctx {config.n_ctx}, but the weights have {shards.n_positions} positions; lower --n_ctx'
        )
    positions, tokens = shards.read(0, 2)
    embed[: config.n_vocab] = torch.from_numpy(tokens)
    embed[config.n_vocab : config.first_position] = torch.from_numpy(special)
    embed[config.first_position :] = torch.from_numpy(positions[: config.n_ctx])
    parameters = [p for block in model.transformer.h[:n_transfer] for p in block.parameters()]
    for p, array in zip(parameters, shards.read(2, 12 * n_transfer)):
        p.copy_(torch.from_numpy(array).view_as(p))
    return [embed, *parameters]


def read_settings(folder):
    """What `folder`/settings.json says of the weights beside it: a dict of `SETTINGS`, empty where there is no such file. Raises InputError."""
    path = os.path.join(folder, 'settings.json')
    try:
        with open(path, encoding='utf-8') as f:
            settings = json.load(f)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not JSON: {str(error)[:80]}') from error
    if not isinstance(settings, dict):
        raise InputError(f'{path} holds no settings: expected a JSON object')
    check_settings(settings, path)
    return settings


def check_settings(settings, where):
    """Raise InputError, saying `where`, unless all is among `SETTINGS` and of its kind."""
    for name, value in settings.items():
        if name not in SETTINGS:
            raise InputError(
                f'{where}: "{name[:20]}" is not among what a model may set ({", ".join(SETTINGS)})'
            )
        if not KINDS[SETTINGS[name]](value):
            raise InputError(
                f'{where}: "{name}" is {json.dumps(value)[:40]}, expected {SETTINGS[name]}'
            )


def load_pretrained_model(folder, n_head=None, afn=None, seed=42):
    """A `DoubleHeadModel` with all that OpenAI published, or `pretrain.py` wrote, in `folder`; for evaluation until `.train()` is called.

    n_head, afn  where settings.json in the folder does not tell: 12 and gelu
    The special tokens' rows and the classifier are drawn with `seed`, as before fine-tuning. Raises InputError.
    """
    shards, settings = OpenAIShards(folder), read_settings(folder)
    n_head, afn = n_head or settings.get('n_head', 12), afn or settings.get('afn', 'gelu')
    if not all(len(shape) == 2 for shape in shards.shapes[:2]):
        raise InputError(
            f'{folder}: params_shapes.json should begin with the shapes of the position and the token embedding'
        )
    (n_ctx, n_embd), (n_vocab, _) = shards.shapes[:2]
    if n_embd % n_head:
        raise InputError(
            f'{folder} has states of width {n_embd}, not divisible by --n_head {n_head}'
        )
    model = DoubleHeadModel(
        Config(
            n_vocab=n_vocab,
            n_ctx=n_ctx,
            n_embd=n_embd,
            n_head=n_head,
            n_layer=shards.n_layer,
            afn=afn,
        )
    )
    loaded = load_openai_pretrained_model(
        model, shards, special_rows(n_embd, np.random.RandomState(seed)), shards.n_layer
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        init_weights(model, loaded)
    return model.eval()
