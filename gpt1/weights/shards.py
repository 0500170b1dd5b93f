"""Write pre-trained weights as OpenAI published them; `openai.py` reads them."""

import json
import os

import numpy as np
import torch

from gpt1.files import SHAPES_FILE, SHARDS
from gpt1.lstm import LSTMConfig
from utils import whole_file


def save_openai_shards(model: torch.nn.Module, folder: str) -> None:
    """Write the embedding and the layers of `model` as OpenAI published theirs.

    The rows of the special tokens are left out: fine-tuning draws them. `params_shapes.json` is
    written last: where it is, the rest is complete. Raises WriteError.
    """
    config, embed = model.config, model.transformer.embed.weight
    tokens = embed[: config.n_vocab]
    if isinstance(config, LSTMConfig):
        arrays = [tokens, *model.transformer.transferred()]
    else:
        layers = (p[None] if p.dim() == 2 else p for p in model.transformer.h.parameters())
        arrays = [embed[config.first_position :], tokens, *layers]
    flat = torch.cat([p.detach().float().cpu().flatten() for p in arrays]).numpy()
    for name, shard in zip(SHARDS, np.array_split(flat, len(SHARDS))):
        with whole_file(os.path.join(folder, name), 'wb') as f:
            np.save(f, shard)
    with whole_file(os.path.join(folder, SHAPES_FILE)) as f:
        json.dump([list(p.shape) for p in arrays], f)
