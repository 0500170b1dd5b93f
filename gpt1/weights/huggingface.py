"""Read the weights in Hugging Face's folders for models of the type `openai-gpt`.

What the library itself writes is accepted, in all its versions. `export.py` writes such folders.
"""

import os
from collections.abc import Iterator

import numpy as np
import torch

from gpt1.files import HUGGINGFACE_WEIGHTS, SHAPES_FILE
from gpt1.settings import check_settings, read_json, settings_of_config
from gpt1.weights.openai import OpenAIShards, Weights, model_shapes
from gpt1.weights.safe_load import load_file, read_numbers
from gpt1.weights.vocabulary import read_vocabulary_of
from utils import SPECIAL_TOKENS, InputError

# The parts of a layer, in OpenAI's order. Each has a weight and a bias.
LAYER_PARTS = ('attn.c_attn', 'attn.c_proj', 'ln_1', 'mlp.c_fc', 'mlp.c_proj', 'ln_2')
TOKENS, OUTPUT = 'tokens_embed.weight', 'lm_head.weight'
CHOICE_HEAD = 'multiple_choice_head.summary'  # of OpenAIGPTDoubleHeadsModel
CLASS_HEAD = 'score'  # of OpenAIGPTForSequenceClassification; see `export.fold_bias`


def array_names(n_layer: int) -> list[str]:
    """Return the names of all arrays of a transformer, in OpenAI's order."""
    parts = [f'{part}.{kind}' for part in LAYER_PARTS for kind in ('weight', 'bias')]
    return ['positions_embed.weight', TOKENS] + [
        f'h.{i}.{part}' for i in range(n_layer) for part in parts
    ]


def find_tensors(folder: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the file of the weights of a Hugging Face folder, and its tensors by name.

    The names do not begin with `transformer.`, which not all versions write. Raises InputError.
    """
    for path in (os.path.join(folder, name) for name in HUGGINGFACE_WEIGHTS):
        if os.path.exists(path):
            state = load_file(path)
            if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
                raise InputError(f'{path}: expected a dict of tensors')
            tensors = {n: p for n, p in state.items() if isinstance(p, torch.Tensor)}
            return path, {n.removeprefix('transformer.'): p for n, p in tensors.items()}
        if os.path.exists(f'{path}.index.json'):
            raise InputError(
                f'{folder}: the weights are in several files; save them in one, with '
                'save_pretrained(..., max_shard_size="5GB")'
            )
    raise InputError(f'{folder}: no weights; expected model.safetensors or pytorch_model.bin')


class HuggingFaceWeights(Weights):
    """The weights in a Hugging Face folder.

    Where the token embedding is stored under the name of the output matrix only, `lm_head.weight`,
    it is taken from there. Rows of the token embedding that follow the vocabulary belong to special
    tokens, ours or added ones. Raises InputError.
    """

    def __init__(self, folder: str):
        self.folder = folder
        path = os.path.join(folder, 'config.json')
        config = read_json(path)
        settings = settings_of_config(config, path)
        check_settings(settings, path, facts=True)
        for name in ('n_positions', 'n_embd', 'n_head', 'n_layer', 'vocab_size'):
            value = config.get(name)
            if type(value) is not int or not 0 < value < 1 << 24:
                raise InputError(f'{path}: "{name}" should be a positive whole number')
        self.n_positions: int = config['n_positions']
        self.n_embd: int = config['n_embd']
        self.n_layer: int = config['n_layer']
        self.n_rows: int = config['vocab_size']
        self.path, self.tensors = find_tensors(folder)
        if TOKENS not in self.tensors and OUTPUT in self.tensors:
            self.tensors[TOKENS] = self.tensors[OUTPUT]
        self.n_vocab, self._special = self._find_special(settings)
        self.names = array_names(self.n_layer)
        shapes = model_shapes(self.n_positions, self.n_rows, self.n_embd, self.n_layer)
        for name, shape in zip(self.names, shapes):
            if name not in self.tensors:
                raise InputError(f'{self.folder}: the weights lack {name}')
            self._check_shape(name, shape[-2:])  # without the leading 1 of OpenAI's matrices
        tied = config.get('tie_word_embeddings', True) or OUTPUT not in self.tensors
        if not tied and not np.array_equal(self._take(TOKENS), self._take(OUTPUT)):
            raise InputError(
                f'{path}: "tie_word_embeddings" is false, and {OUTPUT} is not {TOKENS}; GPT-1 has '
                'one matrix for both, so this model cannot be used'
            )

    def _find_special(self, settings: dict) -> tuple[int, list[int] | None]:
        """Return the size of the vocabulary, and the rows of our special tokens, if there are any.

        Other rows that follow the vocabulary belong to added tokens, such as [PAD].
        """
        n_special = len(SPECIAL_TOKENS)
        n_vocab = settings.get('n_vocab')
        if n_vocab is not None:  # a model of this program
            n_more = self.n_rows - n_vocab
            if n_more not in (0, n_special, n_special + 1):
                raise InputError(
                    f'{self.folder}: the token embedding has {self.n_rows:,} rows, which does not '
                    f'fit the vocabulary: config.json declares {n_vocab:,} symbols'
                )
            return n_vocab, list(range(n_vocab, n_vocab + n_special)) if n_more else None
        try:
            symbols, _, added = read_vocabulary_of(self.folder)
        except InputError:  # the vocabulary is elsewhere
            return self.n_rows, None
        n_vocab = len(symbols)
        if set(added.values()) != set(range(n_vocab, self.n_rows)):
            return self.n_rows, None
        rows = [added[token] for token in SPECIAL_TOKENS if token in added]
        return n_vocab, rows if len(rows) == n_special else None

    def _check_shape(self, name: str, expected: list[int]) -> None:
        shape = list(self.tensors[name].shape)
        if shape != expected:
            raise InputError(f'{self.path}: the shape of {name} is {shape}, expected {expected}')

    def _take(self, name: str) -> np.ndarray:
        return read_numbers(self.tensors[name], name, self.path).numpy()

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """See `Weights.read`."""
        for name in self.names[first : first + count]:
            array = self._take(name)
            if name == TOKENS:
                array = array[: self.n_vocab]
            elif name.startswith('h.') and array.ndim == 2:
                array = array[None]  # OpenAI's matrices are convolutions of width 1
            yield array

    def special_rows(self) -> np.ndarray | None:
        """Return the embedding of the special tokens, [3, n_embd], or None."""
        return None if self._special is None else self._take(TOKENS)[self._special]

    def classifier(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the weight [n_out, n_embd] and the bias [n_out] of the classifier, or None."""
        for head in (CHOICE_HEAD, CLASS_HEAD):
            weight, bias = f'{head}.weight', f'{head}.bias'
            if weight in self.tensors:
                n_out = max(1, self.tensors[weight].numel() // self.n_embd)
                self._check_shape(weight, [n_out, self.n_embd])
                self.tensors.setdefault(bias, torch.zeros(n_out))  # CLASS_HEAD has none
                self._check_shape(bias, [n_out])
                return self._take(weight), self._take(bias)
        return None


def is_huggingface(folder: str) -> bool:
    """Return whether `folder` is a Hugging Face folder."""
    ours, theirs = (os.path.join(folder, name) for name in (SHAPES_FILE, 'config.json'))
    return os.path.exists(theirs) and not os.path.exists(ours)


def open_weights(folder: str) -> Weights:
    """Open the pre-trained weights in `folder`, in either format. Raises InputError."""
    return HuggingFaceWeights(folder) if is_huggingface(folder) else OpenAIShards(folder)
