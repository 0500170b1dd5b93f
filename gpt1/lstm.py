"""The LSTM that the paper compares its transformer with (section 5, table 5, figure 2).

    python pretrain.py --text books/ --out model/lstm --model lstm
    python train.py --dataset rte --model_dir model/lstm

The paper says: "a single layer 2048 unit LSTM using the same framework". This program chooses: no
positions, since an LSTM reads its tokens in order; a linear layer from the units back to n_embd, to
whose states the transformer's heads are applied; embd_pdrop on the embedding matrix and resid_pdrop
on these states, no dropout within the recurrence; a state of zeros at the start of each row, and
gradients through whole rows; the transformer's initialization, optimizer, batches and losses.

In a shared row (see `batches`) a branch goes back to the end of the trunk. An LSTM cannot, so it
reads separate rows only.
"""

from argparse import Namespace
from dataclasses import dataclass, fields

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from gpt1.ops.batches import Batch
from gpt1.ops.functional import compute_dtype, dropout, path, select
from gpt1.ops.masks import DropoutMasks
from gpt1.ops.tied import TiedEmbedding
from model_pytorch import Config
from utils import InputError


@dataclass(frozen=True)
class LSTMConfig(Config):
    """Sizes and dropout rates. Those of `Config` that the LSTM does not have are not used."""

    lstm_units: int = 2048

    separate_rows = True

    def trunk(self) -> nn.Module:
        return LSTMModel(self)


class LSTMEmbedding(TiedEmbedding):
    """A `TiedEmbedding` without positions: h [tokens, n_embd] are rows of the matrix."""

    def __init__(self, weight: Tensor, ids: Tensor, p: float, masks: DropoutMasks | None):
        self.path = path(weight)
        self.is_private = False
        self.matrix = dropout(weight, p, masks, 'embd')
        self.h = F.embedding(ids, self.matrix)


class LSTMModel(nn.Module):
    """The embedding matrix, the LSTM and the linear layer.

    In the models with heads it stands where the transformer would, and has its name.
    """

    def __init__(self, config: LSTMConfig):
        super().__init__()
        rows = torch.empty(config.first_position, config.n_embd)
        self.embed = nn.Embedding.from_pretrained(rows, freeze=False)
        self.lstm = nn.LSTM(config.n_embd, config.lstm_units, batch_first=True)
        self.proj = nn.Linear(config.lstm_units, config.n_embd)
        self.embd_pdrop, self.resid_pdrop = config.embd_pdrop, config.resid_pdrop

    def forward(
        self, batch: Batch, masks: DropoutMasks | None = None, tokens: Tensor | None = None
    ) -> tuple[Tensor, TiedEmbedding]:
        """See `model_pytorch.TransformerModel`. Raises ValueError if the batch has shared rows."""
        if batch.branch is not None:
            raise ValueError('an LSTM reads separate rows only')
        p = self.embd_pdrop if self.training else 0
        embedding = LSTMEmbedding(self.embed.weight, batch.ids, p, masks)
        # The padding stands at the end of a row, so no real token comes after it.
        padded = embedding.h.new_zeros(batch.rows * batch.length, embedding.h.shape[1])
        padded = padded.index_copy(0, batch.slots, embedding.h)
        self.lstm.flatten_parameters()  # on a GPU: one block of memory, else a warning
        # Not every CPU has an LSTM in bfloat16. On a GPU, autocast would take float16 in its place,
        # which needs a loss scale: cuDNN computes in float32 (TF32, see `precision.set_tf32`).
        is_fp16 = padded.is_cuda and compute_dtype(padded) == torch.float16
        with torch.autocast(padded.device.type, enabled=is_fp16):
            states, _ = self.lstm(padded.view(batch.rows, batch.length, -1))
        slots = batch.slots if tokens is None else batch.slots[tokens]
        h = self.proj(select(states.flatten(0, 1), slots))
        return dropout(h, self.resid_pdrop if self.training else 0, masks), embedding

    def transferred(self) -> list[nn.Parameter]:
        """Return the parameters below the heads, without the embedding, in the files' order."""
        return [*self.lstm.parameters(), *self.proj.parameters()]


def lstm_shapes(n_vocab: int, n_embd: int, units: int) -> list[list[int]]:
    """Return the shapes of the arrays in the files of a pre-trained LSTM, in their order."""
    gates = 4 * units  # i, f, g, o
    embedding, of_input, of_state = [n_vocab, n_embd], [gates, n_embd], [gates, units]
    return [embedding, of_input, of_state, [gates], [gates], [n_embd, units], [n_embd]]


def make_config(values: dict, **sizes: int) -> Config:
    """Return the configuration of the model that options ask for.

    values  options of a script and their values
    sizes   `n_vocab`, `n_ctx`; they take precedence
    """
    kind = LSTMConfig if values.get('model') == 'lstm' else Config
    values = {**values, **sizes}
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})


def describe_source(args: Namespace) -> str:
    """Describe where the weights of a run of train.py come from."""
    if args.n_transfer < 0:
        return 'drawn at random'
    if args.model == 'lstm':
        return f'an LSTM of {args.lstm_units} units, all of it from {args.model_dir}'
    return f'embedding and {args.n_transfer} of {args.n_layer} layers from {args.model_dir}'


def refuse_lstm(config: Config, path: str, what: str) -> None:
    """Raise InputError if a model is an LSTM, for a script that has no use for it."""
    if isinstance(config, LSTMConfig):
        raise InputError(f'{path} is an LSTM: {what}')
