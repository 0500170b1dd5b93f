"""The LSTM that the paper compares its transformer with (section 5, table 5, figure 2).

    python pretrain.py --text books/ --out model/lstm --model lstm
    python train.py --dataset rte --model_dir model/lstm

The paper says: "a single layer 2048 unit LSTM using the same framework". This program chooses: no
positions, since an LSTM reads its tokens in order; a linear layer from the units back to n_embd, to
whose states the transformer's heads are applied; embd_pdrop on the embedding matrix and resid_pdrop
on these states; a state of zeros at the start of each row, and gradients through whole rows.
"""

from argparse import Namespace
from dataclasses import dataclass, fields

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from gpt1.ops.batches import Batch
from gpt1.ops.functional import compute_dtype, dropout, select
from gpt1.ops.tied import TiedEmbedding
from model_pytorch import Config


@dataclass(frozen=True)
class LSTMConfig(Config):
    """Sizes and dropout rates. Those of `Config` that the LSTM does not have are not used."""

    lstm_units: int = 2048

    separate_rows = True  # it cannot go back to the end of a shared trunk, see `batches`

    def trunk(self) -> nn.Module:
        return LSTMModel(self)


class LSTMModel(nn.Module):
    """The embedding matrix, the LSTM and the linear layer: they stand for the transformer."""

    def __init__(self, config: LSTMConfig):
        super().__init__()
        rows = torch.empty(config.first_position, config.n_embd)
        self.embed = nn.Embedding.from_pretrained(rows, freeze=False)
        self.lstm = nn.LSTM(config.n_embd, config.lstm_units, batch_first=True)
        self.proj = nn.Linear(config.lstm_units, config.n_embd)
        self.embd_pdrop, self.resid_pdrop = config.embd_pdrop, config.resid_pdrop

    def forward(self, batch: Batch, masks=None, tokens=None) -> tuple[Tensor, TiedEmbedding]:
        """See `model_pytorch.TransformerModel`. Raises ValueError if the batch has shared rows."""
        if batch.branch is not None:
            raise ValueError('an LSTM reads separate rows only')
        matrix = dropout(self.embed.weight, self.embd_pdrop, masks, 'embd')
        embedding = TiedEmbedding(F.embedding(batch.ids, matrix), matrix)
        # The padding stands at the end of a row, so no real token comes after it.
        padded = embedding.h.new_zeros(batch.rows * batch.length, embedding.h.shape[1])
        padded = padded.index_copy(0, batch.slots, embedding.h)
        self.lstm.flatten_parameters()  # on a GPU: one block of memory, else a warning
        # Not every CPU has an LSTM in bfloat16. On a GPU, autocast would take float16 in its place,
        # which needs a loss scale.
        is_fp16 = padded.is_cuda and compute_dtype(padded) == torch.float16
        with torch.autocast(padded.device.type, enabled=is_fp16):
            states, _ = self.lstm(padded.view(batch.rows, batch.length, -1))
        slots = batch.slots if tokens is None else batch.slots[tokens]
        h = self.proj(select(states.flatten(0, 1), slots))
        return dropout(h, self.resid_pdrop, masks), embedding

    def transferred(self) -> list[nn.Parameter]:
        """Return the parameters below the heads, without the embedding, in the files' order."""
        return [*self.lstm.parameters(), *self.proj.parameters()]


def lstm_shapes(n_vocab: int, n_embd: int, units: int) -> list[list[int]]:
    """Return the shapes of the arrays in the files of a pre-trained LSTM, in their order."""
    gates = 4 * units  # i, f, g, o
    embedding, of_input, of_state = [n_vocab, n_embd], [gates, n_embd], [gates, units]
    return [embedding, of_input, of_state, [gates], [gates], [n_embd, units], [n_embd]]


def make_config(values: dict, **sizes: int) -> Config:
    """Return the model's configuration from a script's options; `sizes` take precedence."""
    kind = LSTMConfig if values.get('model') == 'lstm' else Config
    values = {**values, **sizes}
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})


def describe_source(args: Namespace) -> str:
    if args.n_transfer < 0:
        return 'drawn at random'
    if args.model == 'lstm':
        return f'an LSTM of {args.lstm_units} units, all of it from {args.model_dir}'
    return f'embedding and {args.n_transfer} of {args.n_layer} layers from {args.model_dir}'
