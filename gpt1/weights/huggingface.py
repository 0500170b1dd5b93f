"""Read the weights in Hugging Face's folders for models of the type `openai-gpt`.

What the library itself writes is accepted, in all its versions. `export.py` writes such folders.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from gpt1.files import HUGGINGFACE_WEIGHTS
from gpt1.settings import check_settings, read_json, settings_of_config
from gpt1.weights.openai import Weights, model_shapes
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import read_vocabulary_of
from utils import SPECIAL_TOKENS, InputError, check_not_pointer, is_out_of_memory

# The parts of a layer, in OpenAI's order. Each has a weight and a bias.
LAYER_PARTS = ('attn.c_attn', 'attn.c_proj', 'ln_1', 'mlp.c_fc', 'mlp.c_proj', 'ln_2')
CHOICE_HEAD = 'multiple_choice_head.summary'  # of OpenAIGPTDoubleHeadsModel
CLASS_HEAD = 'score'  # of OpenAIGPTForSequenceClassification; see `export.fold_bias`
MAX_OUTPUTS = 10_000


class TensorFile:
    """The tensors in a file of safetensors or of PyTorch. Raises InputError.

    shapes  {name: shape}
    """

    def __init__(self, path: str):
        check_not_pointer(path)
        self.path = path
        if path.endswith('.safetensors'):
            with self._errors():
                self._file = safe_open(path, framework='pt')
                names = self._file.keys()
                self.shapes = {name: self._file.get_slice(name).get_shape() for name in names}
            self._get = self._file.get_tensor
        else:
            state = load_file(path)
            if not isinstance(state, dict):
                raise InputError(f'{path}: expected a dict of tensors')
            tensors = {name: p for name, p in state.items() if isinstance(p, torch.Tensor)}
            self.shapes = {name: list(p.shape) for name, p in tensors.items()}
            self._get = tensors.__getitem__

    @contextlib.contextmanager
    def _errors(self):
        """Return a context in which the errors of safetensors become an InputError."""
        try:
            yield
        except OSError as error:
            raise InputError(f'cannot read {self.path}: {error.strerror or error}') from error
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f'{self.path} is damaged, or not a safetensors file ({str(error)[:100]})'
            ) from error

    def read(self, name: str) -> np.ndarray:
        """Return the tensor `name` as float32. Raises InputError unless its numbers are finite."""
        with self._errors():
            p = self._get(name)
        if p.layout != torch.strided or p.device.type != 'cpu' or not p.is_floating_point():
            raise InputError(f'{self.path}: {name} is not an array of numbers')
        if p.numel() > os.path.getsize(self.path):
            raise InputError(f'{self.path}: {name} is larger than the file')
        p = p.detach().float()
        if not torch.isfinite(p).all():
            raise InputError(f'{self.path}: {name} contains NaN or infinity')
        return p.numpy()


def find_tensors(folder: str) -> dict[str, TensorFile]:
    """Return the file of each tensor of a Hugging Face folder, by the name of the tensor.

    Raises InputError.
    """
    for file in HUGGINGFACE_WEIGHTS:
        path = os.path.join(folder, file)
        if os.path.exists(path):
            tensors = TensorFile(path)
            return dict.fromkeys(tensors.shapes, tensors)
        if os.path.exists(f'{path}.index.json'):
            return _read_index(f'{path}.index.json')
    raise InputError(
        f'{folder}: no weights; expected model.safetensors or pytorch_model.bin, or one of them in '
        'several files with an .index.json'
    )


def _read_index(path: str) -> dict[str, TensorFile]:
    """Do the same where the weights are split into several files, which an index lists."""
    weight_map = read_json(path).get('weight_map')
    if not isinstance(weight_map, dict):
        raise InputError(f'{path}: expected "weight_map", an object from names to files')
    files = {}
    for name, file in weight_map.items():
        # A name such as model-00001-of-00002.safetensors, never a path to somewhere else
        if not isinstance(file, str) or not re.fullmatch(r'[\w.-]+', file, re.ASCII):
            raise InputError(f'{path}: {json.dumps(file)[:80]} is not the name of a file')
        if file not in files:
            files[file] = TensorFile(os.path.join(os.path.dirname(path), file))
        if name not in files[file].shapes:
            raise InputError(f'{path}: {name[:80]} is not in {file}')
    return {name: files[file] for name, file in weight_map.items()}


def array_names(n_layer: int) -> list[str]:
    """Return the names of all arrays of a transformer, in OpenAI's order."""
    parts = [f'{part}.{kind}' for part in LAYER_PARTS for kind in ('weight', 'bias')]
    layers = [f'h.{i}.{part}' for i in range(n_layer) for part in parts]
    return ['positions_embed.weight', 'tokens_embed.weight', *layers]


class HuggingFaceWeights(Weights):
    """The weights in a Hugging Face folder.

    The names may begin with `transformer.` or not. Where the token embedding is stored under the
    name of the output matrix only, `lm_head.weight`, it is taken from there. Rows of the token
    embedding that follow the vocabulary belong to special tokens, ours or added ones.
    Raises InputError.
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
        self.tensors = find_tensors(folder)
        self.n_vocab, self._special = self._find_special(settings)
        self.stored = {name: self._stored_name(name) for name in array_names(self.n_layer)}
        self._check_shapes()
        self._check_tied(config, path)

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

    def _stored_name(self, name: str) -> str:
        """Return the name under which the array `name` is stored. Raises InputError."""
        names = [f'transformer.{name}', name]
        if name == 'tokens_embed.weight':
            names.append('lm_head.weight')
        for stored in names:
            if stored in self.tensors:
                return stored
        raise InputError(f'{self.folder}: the weights lack {name}')

    def _check_shapes(self) -> None:
        """Raise InputError if an array has another shape."""
        shapes = model_shapes(self.n_positions, self.n_rows, self.n_embd, self.n_layer)
        for stored, expected in zip(self.stored.values(), shapes):
            shape = self.tensors[stored].shapes[stored]
            if shape != expected[-2:]:  # without the leading 1 of OpenAI's matrices
                raise InputError(
                    f'{self.tensors[stored].path}: the shape of {stored} is {shape}, '
                    f'expected {expected[-2:]}'
                )

    def _check_tied(self, config: dict, path: str) -> None:
        """Raise InputError if the output matrix is not the token embedding."""
        stored, output = self.stored['tokens_embed.weight'], 'lm_head.weight'
        if config.get('tie_word_embeddings', True) or output not in self.tensors:
            return
        if not np.array_equal(self._take(stored), self._take(output)):
            raise InputError(
                f'{path}: "tie_word_embeddings" is false, and {output} is not {stored}; GPT-1 has '
                'one matrix for both, so this model cannot be used'
            )

    def _take(self, stored: str) -> np.ndarray:
        return self.tensors[stored].read(stored)

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """See `Weights.read`."""
        for name, stored in list(self.stored.items())[first : first + count]:
            array = self._take(stored)
            if name == 'tokens_embed.weight':
                array = array[: self.n_vocab]
            elif name.startswith('h.') and array.ndim == 2:
                array = array[None]  # OpenAI's matrices are convolutions of width 1
            yield array

    def special_rows(self) -> np.ndarray | None:
        """Return the embedding of the special tokens, [3, n_embd], or None."""
        if self._special is None:
            return None
        return self._take(self.stored['tokens_embed.weight'])[self._special]

    def classifier(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the weight [n_out, n_embd] and the bias [n_out] of the classifier, or None."""
        for head in (CHOICE_HEAD, CLASS_HEAD):
            name, bias_name = f'{head}.weight', f'{head}.bias'
            if name in self.tensors and (bias_name in self.tensors or head == CLASS_HEAD):
                break
        else:
            return None
        weight = self._take(name)
        if bias_name in self.tensors:
            bias = self._take(bias_name)
        else:
            bias = np.zeros(len(weight), dtype=np.float32)
        n_out = len(bias)
        if weight.shape != (n_out, self.n_embd) or not 0 < n_out <= MAX_OUTPUTS:
            raise InputError(
                f'{self.folder}: the shape of {name} is {list(weight.shape)}, expected '
                f'[outputs, {self.n_embd}]'
            )
        return weight, bias
