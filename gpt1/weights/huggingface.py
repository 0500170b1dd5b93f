"""Read the weights in Hugging Face's folders for models of the type `openai-gpt`.

What the library itself writes is accepted, in all its versions. `export.py` writes such folders.
"""

import os
from collections.abc import Iterator

import numpy as np
import torch

from gpt1.files import HUGGINGFACE_WEIGHTS, SHAPES_FILE
from gpt1.settings import read_json, read_settings
from gpt1.weights.openai import OpenAIShards, Weights, model_shapes
from gpt1.weights.safe_load import load_file, read_numbers
from gpt1.weights.vocabulary import read_vocabulary_of
from utils import SPECIAL_TOKENS, InputError

TOKENS, OUTPUT = 'tokens_embed.weight', 'lm_head.weight'


class HuggingFaceWeights(Weights):
    """The weights in a Hugging Face folder.

    tensors  by names that do not begin with `transformer.`, which not all versions write
    special  the rows of our special tokens in the token embedding; None if it has none
    """

    def __init__(self, folder: str):
        self.folder = folder
        path = os.path.join(folder, 'config.json')
        read_settings(folder)  # checks their names and values
        config = read_json(path)
        names = ('n_positions', 'n_embd', 'n_layer', 'vocab_size', 'n_head')
        for name in names:
            value = config.get(name)
            if type(value) is not int or not 0 < value < 1 << 24:
                raise InputError(f'{path}: "{name}" should be a positive whole number')
        self.n_positions, self.n_embd, self.n_layer, self.n_rows, _ = map(config.get, names)
        self.path, self.tensors = find_tensors(folder)
        if TOKENS not in self.tensors and OUTPUT in self.tensors:  # some versions write one of both
            self.tensors[TOKENS] = self.tensors[OUTPUT]
        # The rows after the vocabulary are those of added tokens: ours, or others such as [PAD].
        try:
            symbols, _, added = read_vocabulary_of(folder)
        except InputError:  # the vocabulary is elsewhere
            symbols, added = range(self.n_rows), {}
        is_known = set(added.values()) == set(range(len(symbols), self.n_rows))
        self.n_vocab = len(symbols) if is_known else self.n_rows
        special = [added.get(token) for token in SPECIAL_TOKENS]
        self.special = special if is_known and None not in special else None
        shapes = model_shapes(self.n_positions, self.n_rows, self.n_embd, self.n_layer)
        for name, shape in shapes.items():
            self.check_shape(name, shape[-2:])
        self.names = list(shapes)
        tied = config.get('tie_word_embeddings', True) or OUTPUT not in self.tensors
        if not tied and not np.array_equal(self.take(TOKENS), self.take(OUTPUT)):
            raise InputError(
                f'{path}: "tie_word_embeddings" is false, and {OUTPUT} is not {TOKENS}; GPT-1 has '
                'one matrix for both, so this model cannot be used'
            )

    def check_shape(self, name: str, expected: list[int]) -> None:
        """Raise InputError unless there is a tensor of this name and shape."""
        shape = list(self.tensors[name].shape) if name in self.tensors else 'missing'
        if shape != expected:
            raise InputError(f'{self.path}: the shape of {name} is {shape}, expected {expected}')

    def take(self, name: str) -> np.ndarray:
        """Return the numbers of a tensor, float32. Raises InputError if they are not finite."""
        return read_numbers(self.tensors[name], name, self.path).numpy()

    def read(self) -> Iterator[np.ndarray]:
        """See `OpenAIShards.read`. Matrices lack the leading 1."""
        for name in self.names:
            yield self.take(name)[: self.n_vocab if name == TOKENS else None]


def find_tensors(folder: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the file of the weights of a Hugging Face folder, and its tensors by name."""
    for path in (os.path.join(folder, name) for name in HUGGINGFACE_WEIGHTS):
        if os.path.exists(path):
            state = load_file(path)
            if not isinstance(state, dict):
                raise InputError(f'{path}: expected a dict of tensors')
            tensors = {str(n): p for n, p in state.items() if isinstance(p, torch.Tensor)}
            return path, {n.removeprefix('transformer.'): p for n, p in tensors.items()}
    raise InputError(f'{folder}: no weights; expected model.safetensors or pytorch_model.bin')


def is_huggingface(folder: str) -> bool:
    """Return whether `folder` is a Hugging Face folder."""
    ours, theirs = (os.path.join(folder, name) for name in (SHAPES_FILE, 'config.json'))
    return os.path.exists(theirs) and not os.path.exists(ours)


def open_weights(folder: str) -> Weights:
    """Open the pre-trained weights in `folder`, in either format. Raises InputError."""
    return HuggingFaceWeights(folder) if is_huggingface(folder) else OpenAIShards(folder)
