"""GPT-1: a post-norm transformer decoder with a language-model head and a task head.

The names are those of OpenAI's program and of its best-known PyTorch port. A batch
(`batches.Batch`) holds the real tokens of all rows one after another, without padding, so x is
[tokens, n_embd] everywhere but inside attention.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from gpt1.ops import functional
from gpt1.ops.batches import Batch
from gpt1.ops.functional import AttentionLayout, dropout, full_precision, select
from gpt1.ops.masks import DropoutMasks
from gpt1.ops.tied import TiedEmbedding, embed
from utils import SPECIAL_TOKENS

ACT_FNS = {'relu': F.relu, 'swish': F.silu, 'gelu': functional.gelu}


@dataclass(frozen=True)
class Config:
    """Sizes and dropout rates. The defaults are the paper's (section 4.1)."""

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

    separate_rows = False  # whether the model can only read those, see `batches`

    def trunk(self) -> nn.Module:
        """Return the model below the heads. That of `lstm.LSTMConfig` is not a transformer."""
        return TransformerModel(self)

    @property
    def first_position(self) -> int:
        """Row of the embedding for position 0, after the vocabulary and the special tokens."""
        return self.n_vocab + len(SPECIAL_TOKENS)


class LayerNorm(nn.Module):
    """Layer normalization: biased variance, epsilon 1e-5 inside the root, gain g and bias b."""

    def __init__(self, n_state: int):
        super().__init__()
        self.g = nn.Parameter(torch.ones(n_state))
        self.b = nn.Parameter(torch.zeros(n_state))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.g.shape, self.g, self.b, eps=1e-5)


class Conv1D(nn.Module):
    """The original's convolution of width 1: x [tokens, nx] -> x w + b [tokens, nf]."""

    def __init__(self, nf: int, nx: int):
        super().__init__()
        self.w = nn.Parameter(torch.empty(nx, nf))
        self.b = nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.w, self.b)


class Attention(nn.Module):
    """Masked multi-head self-attention (paper, section 3.1)."""

    def __init__(self, config: Config):
        super().__init__()
        self.c_attn = Conv1D(3 * config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.attn_pdrop = config.attn_pdrop
        self.resid_pdrop = config.resid_pdrop

    def forward(self, x: Tensor, layout: AttentionLayout, masks, tokens=None) -> Tensor:
        """x [tokens, n_embd] -> [tokens, n_embd]; with `tokens`, at those alone, see `Block`."""
        if tokens is None:
            a = functional.attention(self.c_attn(x), layout, self.attn_pdrop, masks)
        else:
            n = x.shape[1]
            w, b = self.c_attn.w, self.c_attn.b
            q = functional.linear(x[tokens], w[:, :n], b[:n])
            kv = functional.linear(x, w[:, n:], b[n:])
            a = functional.attention_at(q, kv, layout, tokens)
        return dropout(self.c_proj(a), self.resid_pdrop, masks)


class MLP(nn.Module):
    """Feed-forward layers: n_embd -> 4 * n_embd -> n_embd."""

    def __init__(self, config: Config):
        super().__init__()
        self.c_fc = Conv1D(4 * config.n_embd, config.n_embd)
        self.c_proj = Conv1D(config.n_embd, 4 * config.n_embd)
        self.act = ACT_FNS[config.afn]
        self.resid_pdrop = config.resid_pdrop

    def forward(self, x: Tensor, masks: DropoutMasks | None) -> Tensor:
        m = functional.activated_linear(self.c_fc(x), self.c_proj.w, self.c_proj.b, self.act)
        return dropout(m, self.resid_pdrop, masks)


class Block(nn.Module):
    """One layer. Post-norm: layer normalization follows each sum, unlike in GPT-2."""

    def __init__(self, config: Config):
        super().__init__()
        self.attn = Attention(config)
        self.ln_1 = LayerNorm(config.n_embd)
        self.mlp = MLP(config)
        self.ln_2 = LayerNorm(config.n_embd)

    def forward(self, x: Tensor, layout: AttentionLayout, masks, tokens=None) -> Tensor:
        """Return the output; with `tokens`, of these alone: equally many of every row, in order."""
        a = self.attn(x, layout, masks, tokens)
        return self.rest(x if tokens is None else x[tokens], a, masks)

    def rest(self, x: Tensor, a: Tensor, masks: DropoutMasks | None) -> Tensor:
        """Return the output of the layer from its input x and a, what attention makes of x."""
        n = self.ln_1(x + a)
        return self.ln_2(n + self.mlp(n, masks))


class TransformerModel(nn.Module):
    """The embedding matrix and the blocks."""

    def __init__(self, config: Config):
        super().__init__()
        # from_pretrained: nn.Embedding would draw 31 million numbers, to be overwritten.
        rows = torch.empty(config.first_position + config.n_ctx, config.n_embd)
        self.embed = nn.Embedding.from_pretrained(rows, freeze=False)
        self.embd_pdrop = config.embd_pdrop
        self.n_head = config.n_head
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))

    def forward(self, batch: Batch, masks=None, tokens=None) -> tuple[Tensor, TiedEmbedding]:
        """Return the states h [tokens, n_embd] and the embedding as this batch uses it.

        With `tokens`, the last layer computes the states of these alone, see `Block`.
        """
        weight = self.embed.weight
        embedding = embed(weight, batch.ids, batch.positions, self.embd_pdrop, masks)
        layout = AttentionLayout(batch, self.n_head)
        h = embedding.h
        for block in self.h[:-1]:
            h = block(h, layout, masks)
        return self.h[-1](h, layout, masks, tokens), embedding


def dropout_masks(model: nn.Module, batch: Batch) -> DropoutMasks | None:
    """Return `batch.masks`, else masks with a seed of PyTorch's generator; None in evaluation."""
    if not model.training:
        return None
    masks = batch.masks or DropoutMasks(int(torch.randint(2**63 - 1, ())))
    masks.start(batch.ids.device)
    return masks


class LMHead(nn.Module):
    """The language-model head. Its weights are the embedding matrix: tied, all rows of it."""

    def forward(self, h: Tensor, embedding: TiedEmbedding, batch: Batch) -> Tensor:
        """Return the LM loss of each row, [rows], from the states h [tokens, n_embd].

        Every token is predicted from the state of its parent. The loss is their weighted sum.
        """
        losses = embedding.cross_entropy(select(h, batch.lm_parent), batch.lm_target)
        losses = losses * batch.lm_weight.to(losses.dtype)
        return losses.new_zeros(batch.rows).index_add(0, batch.lm_row, losses)


class LMModel(nn.Module):
    """Transformer and language-model head: the model that is pre-trained (paper, section 3.1)."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.transformer = config.trunk()
        self.lm_head = LMHead()

    def forward(self, batch: Batch) -> Tensor:
        """Return the LM loss of each row, [rows]."""
        h, embedding = self.transformer(batch, dropout_masks(self, batch))
        return self.lm_head(h, embedding, batch)


class TaskHead(nn.Module):
    """Dropout and one linear layer on the states of an example's `_classify_` tokens."""

    def __init__(self, config: Config, n_out: int):
        super().__init__()
        self.clf_pdrop = config.clf_pdrop
        self.linear = nn.Linear(config.n_embd, n_out)

    def drop(self, h: Tensor, masks: DropoutMasks | None) -> Tensor:
        """Apply dropout with one mask for all branches of an example, as the original does."""
        ones = h.new_ones(h.shape[0], h.shape[2])
        return h * dropout(ones, self.clf_pdrop, masks, 'clf')[:, None]


class MultipleChoiceHead(TaskHead):
    """A score for each choice: h [examples, choices, n_embd] -> [examples, choices]."""

    def forward(self, h: Tensor, masks: DropoutMasks | None) -> Tensor:
        return self.linear(self.drop(h, masks)).squeeze(2)


class ClfHead(TaskHead):
    """A score for each class: h [examples, branches, n_embd] -> [examples, n_out]."""

    def forward(self, h: Tensor, masks: DropoutMasks | None) -> Tensor:
        return self.linear(self.drop(h, masks).sum(1))


class SimilarityHead(ClfHead):
    """Scores from the sum over both orders, which are two branches."""


HEADS = {  # by the layout of a task, see `datasets.Task`
    'text': ClfHead,
    'pair': ClfHead,
    'similarity': SimilarityHead,
    'choices': MultipleChoiceHead,
}


class DoubleHeadModel(LMModel):
    """Transformer, language-model head and task head: the model that is fine-tuned."""

    def __init__(self, config: Config, layout: str = 'choices', n_out: int = 1):
        super().__init__(config)
        self.task_head = HEADS[layout](config, n_out)

    def forward(self, batch: Batch, lm: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return the task's logits and the LM loss of each row.

        The logits are [examples, n_out], or [examples, choices], with -inf where an example has
        fewer choices. The LM losses are [rows], or None with `lm=False`.
        """
        masks = dropout_masks(self, batch)
        classify = batch.clf.flatten()
        # Separate rows of uneven choices do not have equally many, see `Block`.
        is_even = batch.n_choices is None or batch.branch is not None
        only = is_even and not self.training and not lm
        h, embedding = self.transformer(batch, masks, classify if only else None)
        lm_losses = self.lm_head(h, embedding, batch) if lm else None
        h = h if only else select(h, classify)
        h = h.view(*batch.clf.shape, -1)  # [examples, branches, n_embd]
        logits = full_precision(self.task_head(h, masks))
        if isinstance(self.task_head, MultipleChoiceHead):
            logits = one_score_a_choice(logits, batch)
        return logits, lm_losses


def one_score_a_choice(logits: Tensor, batch: Batch) -> Tensor:
    """Give equal choices equal scores and missing choices -inf: [examples, choices]."""
    clf = batch.clf  # equal choices share a token; rounding must not decide between them
    first = (clf[:, :, None] == clf[:, None, :]).int().argmax(2)
    logits = logits.gather(1, first)
    if batch.n_choices is None:
        return logits
    choice = torch.arange(logits.shape[1], device=logits.device)
    return logits.masked_fill(choice >= batch.n_choices[:, None], -torch.inf)


@torch.no_grad()
def init_weights(model: nn.Module, loaded: Iterable[Tensor] = (), std: float = 0.02) -> None:
    """Draw what is not `loaded`: weights N(0, std), biases 0, gains 1 (paper, section 4.1)."""
    loaded = {id(p) for p in loaded}
    for name, p in model.named_parameters():
        if id(p) in loaded:
            continue
        if p.dim() > 1:
            p.normal_(0, std)
        else:
            p.fill_(name.endswith('.g'))


def special_rows(n_embd: int, random_state: np.random.RandomState) -> np.ndarray:
    """Draw the special tokens' rows, [3, n_embd]: the original's first use of NumPy's state."""
    return (random_state.randn(len(SPECIAL_TOKENS), n_embd) * 0.02).astype(np.float32)
