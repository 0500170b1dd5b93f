"""Hugging Face's folders for models of the type `openai-gpt`: read the weights, write a model.

Reading accepts what the library itself writes, in all its versions. A model that this program has
exported keeps our settings, its task and its vocabulary's fingerprint under the key `gpt1` of
`config.json`, so that it comes back complete.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tokenizers.processors import TemplateProcessing

from gpt1.files import HUGGINGFACE_WEIGHTS
from gpt1.settings import (
    CONFIG_KEY,
    CONFIG_NAMES,
    check_settings,
    check_sizes,
    read_json,
    settings_of_config,
)
from gpt1.weights.hf_tokenizer import huggingface_tokenizer
from gpt1.weights.safe_load import load_file
from gpt1.weights.vocabulary import known_merges, read_added_tokens, vocabulary_facts, write_merges
from utils import SPECIAL_TOKENS, InputError, check_not_pointer, is_out_of_memory, whole_file

# The parts of a layer, in OpenAI's order. Each has a weight and a bias.
LAYER_PARTS = ('attn.c_attn', 'attn.c_proj', 'ln_1', 'mlp.c_fc', 'mlp.c_proj', 'ln_2')
CHOICE_HEAD = 'multiple_choice_head.summary'  # of OpenAIGPTDoubleHeadsModel
CLASS_HEAD = 'score'  # of OpenAIGPTForSequenceClassification; it has no bias, see `fold_bias`
MAX_OUTPUTS = 10_000


# ---------------------------------------------------------------------------------- reading weights


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


def layer_names(i: int) -> list[str]:
    """Return the names of the arrays of layer `i`, in OpenAI's order."""
    return [f'h.{i}.{part}.{kind}' for part in LAYER_PARTS for kind in ('weight', 'bias')]


class HuggingFaceWeights:
    """The weights in a Hugging Face folder, with the interface of `weights.OpenAIShards`.

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
                    f'fit the vocabulary of {n_vocab:,} symbols that config.json tells of'
                )
            return n_vocab, list(range(n_vocab, n_vocab + n_special)) if n_more else None
        try:
            n_vocab, added = read_added_tokens(self.folder)
        except InputError:  # the vocabulary is elsewhere
            return self.n_rows, None
        if set(added.values()) != set(range(n_vocab, self.n_rows)):
            return self.n_rows, None
        rows = [added[token] for token in SPECIAL_TOKENS if token in added]
        return n_vocab, rows if len(rows) == n_special else None

    def _check_tied(self, config: dict, path: str) -> None:
        """Raise InputError if the output matrix is not the token embedding."""
        stored, output = self._stored_name('tokens_embed.weight'), 'lm_head.weight'
        if config.get('tie_word_embeddings', True) or output not in self.tensors:
            return
        if not np.array_equal(self._take('tokens_embed.weight'), self.tensors[output].read(output)):
            raise InputError(
                f'{path}: "tie_word_embeddings" is false, and {output} is not {stored}; GPT-1 has '
                'one matrix for both, so this model cannot be used'
            )

    def _stored_name(self, name: str) -> str:
        """Return the name under which the array `name` is stored. Raises InputError."""
        names = [f'transformer.{name}', name]
        if name == 'tokens_embed.weight':
            names.append('lm_head.weight')
        for stored in names:
            if stored in self.tensors:
                return stored
        raise InputError(f'{self.folder}: the weights lack {name}')

    def _shapes(self) -> Iterator[tuple[str, list[int]]]:
        """Yield the names and shapes of all arrays, in OpenAI's order."""
        n = self.n_embd
        yield 'positions_embed.weight', [self.n_positions, n]
        yield 'tokens_embed.weight', [self.n_rows, n]
        attention = [[n, 3 * n], [3 * n], [n, n], [n]]
        norm = [[n], [n]]
        mlp = [[n, 4 * n], [4 * n], [4 * n, n], [n]]
        for i in range(self.n_layer):
            yield from zip(layer_names(i), attention + norm + mlp + norm)

    def _check_shapes(self) -> None:
        """Raise InputError if an array is missing or has another shape."""
        for name, expected in self._shapes():
            stored = self._stored_name(name)
            shape = self.tensors[stored].shapes[stored]
            if shape != expected:
                raise InputError(
                    f'{self.tensors[stored].path}: the shape of {stored} is {shape}, '
                    f'expected {expected}'
                )

    def check(self, n_vocab: int, n_embd: int, n_transfer: int) -> None:
        """Raise InputError unless the weights have the sizes asked for."""
        check_sizes(self, n_vocab, n_embd, n_transfer)

    def _take(self, name: str) -> np.ndarray:
        stored = self._stored_name(name)
        return self.tensors[stored].read(stored)

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Yield the arrays `first` ... `first + count - 1`, in OpenAI's order and shapes.

        Raises InputError if one contains NaN or infinity.
        """
        for name, _ in list(self._shapes())[first : first + count]:
            array = self._take(name)
            if name == 'tokens_embed.weight':
                array = array[: self.n_vocab]
            elif name.startswith('h.') and array.ndim == 2:
                array = array[None]  # OpenAI's matrices are convolutions of width 1
            yield array

    def special_rows(self) -> np.ndarray | None:
        """Return the embedding of the special tokens, [3, n_embd], or None."""
        return None if self._special is None else self._take('tokens_embed.weight')[self._special]

    def classifier(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the weight [n_out, n_embd] and the bias [n_out] of the classifier, or None."""
        weight, bias = f'{CHOICE_HEAD}.weight', f'{CHOICE_HEAD}.bias'
        if weight in self.tensors and bias in self.tensors:
            head = self.tensors[weight].read(weight), self.tensors[bias].read(bias)
        elif f'{CLASS_HEAD}.weight' in self.tensors:
            weight = f'{CLASS_HEAD}.weight'
            array = self.tensors[weight].read(weight)
            bias = f'{CLASS_HEAD}.bias'
            zeros = np.zeros(len(array), dtype=np.float32)
            head = array, self.tensors[bias].read(bias) if bias in self.tensors else zeros
        else:
            return None
        n_out = len(head[1])
        if head[0].shape != (n_out, self.n_embd) or not 0 < n_out <= MAX_OUTPUTS:
            raise InputError(
                f'{self.folder}: the shape of {weight} is {list(head[0].shape)}, expected '
                f'[outputs, {self.n_embd}]'
            )
        return head


# ---------------------------------------------------------------------------------- writing a model


def save_huggingface(model, encoder, settings: dict, task, folder: str) -> list[str]:
    """Write a model as a Hugging Face folder. Returns what its user should know, in sentences.

    model     an `LMModel` or a `DoubleHeadModel`
    settings  see `options.read_settings`
    task      `datasets.Task`; None for a pre-trained model

    The classes of the library that load the folder, and what they compute:

        no task     OpenAIGPTLMHeadModel                the same logits
        choices     OpenAIGPTDoubleHeadsModel           the same logits
        text, pair  OpenAIGPTForSequenceClassification  the same logits
        similarity  OpenAIGPTForSequenceClassification  logits for each order of the two texts,
                                                        whose sum is ours
        regression  OpenAIGPTForSequenceClassification  the number, in the units of the data

    Raises WriteError.
    """
    # The library classifies the last token that is not padding, so no text may have that token.
    pads = task is not None and task.layout != 'choices'
    tensors = _transformer_tensors(model, special=task is not None, pads=pads)
    config = _config(model.config, n_rows=len(tensors['transformer.tokens_embed.weight']))
    notes = []
    if task is None:
        config['architectures'] = ['OpenAIGPTLMHeadModel']
    elif task.layout == 'choices':
        config['architectures'] = ['OpenAIGPTDoubleHeadsModel']
        tensors.update(_choice_head(model))
    else:
        config['architectures'] = ['OpenAIGPTForSequenceClassification']
        config.update(_label_config(task))
        head, notes = _class_head(model, task)
        tensors.update(head)
        config['pad_token_id'] = model.config.first_position
        if task.regression:  # the head computes in the units of the data
            task = replace(task, mean=0.0, std=1.0)
    config[CONFIG_KEY] = _our_settings(settings, encoder, task)
    n_left_out = len(encoder.bpe_ranks) - len(known_merges(encoder))
    if n_left_out:
        notes.append(
            'merges that are left out, because their results are not in the vocabulary: '
            f'{n_left_out:,}; words with them get other tokens there'
        )
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with whole_file(os.path.join(folder, 'model.safetensors'), 'wb') as f:
        f.write(save(tensors, {'format': 'pt'}))
    _save_tokenizer(encoder, task, pads, model.config.n_ctx, folder)
    # Last: a folder with config.json is complete.
    with whole_file(os.path.join(folder, 'config.json')) as f:
        json.dump(config, f, indent=1)
    return notes


def _numpy(p: torch.Tensor) -> np.ndarray:
    return p.detach().float().cpu().numpy()


def _transformer_tensors(model, special: bool, pads: bool) -> dict[str, np.ndarray]:
    """Return the arrays of the transformer, by name, with rows for special tokens and padding."""
    config, embed = model.config, _numpy(model.transformer.embed.weight)
    n_rows = config.first_position if special else config.n_vocab
    padding = np.zeros((int(pads), config.n_embd), dtype=np.float32)
    tensors = {
        'tokens_embed.weight': np.concatenate([embed[:n_rows], padding]),
        'positions_embed.weight': embed[config.first_position :],
    }
    for i, block in enumerate(model.transformer.h):
        tensors.update(zip(layer_names(i), map(_numpy, block.parameters())))
    return {f'transformer.{name}': array for name, array in tensors.items()}


def _config(config, n_rows: int) -> dict:
    """Return the part of `config.json` that describes the transformer."""
    ours = {their: getattr(config, our) for their, our in CONFIG_NAMES.items()}
    return {
        'model_type': 'openai-gpt',
        **ours,
        'vocab_size': n_rows,
        'layer_norm_epsilon': 1e-5,
        # The classifier of OpenAIGPTDoubleHeadsModel: one linear layer.
        'summary_type': 'cls_index',
        'summary_use_proj': True,
        'summary_activation': None,
        'summary_proj_to_labels': True,
    }


def _label_config(task) -> dict:
    """Return the part of `config.json` that names the classes."""
    if task.labels is not None:
        labels, problem_type = list(task.labels), 'single_label_classification'
    elif task.n_out == 1:
        labels, problem_type = [task.name], 'regression'
    else:
        labels, problem_type = [str(i) for i in range(task.n_out)], 'single_label_classification'
    return {
        'num_labels': task.n_out,
        'id2label': {str(i): label for i, label in enumerate(labels)},
        'label2id': {label: i for i, label in enumerate(labels)},
        'problem_type': problem_type,
    }


def _our_settings(settings: dict, encoder, task) -> dict:
    """Return what `config.json` keeps for this program."""
    in_config = set(CONFIG_NAMES.values()) - {'n_ctx'}  # n_positions may be another number
    ours = {name: value for name, value in settings.items() if name not in in_config}
    ours.update(vocabulary_facts(encoder))
    if task is not None:
        ours['task'] = task.to_dict()
    return ours


def _choice_head(model) -> dict[str, np.ndarray]:
    linear = model.task_head.linear
    return {
        f'{CHOICE_HEAD}.weight': _numpy(linear.weight),
        f'{CHOICE_HEAD}.bias': _numpy(linear.bias),
    }


def _class_head(model, task) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of the classifier, and what its user should know.

    They are a weight that needs no bias, [n_out, n_embd]; where there is none, the bias, [n_out],
    comes with it. The library leaves that out, `HuggingFaceWeights` does not.
    """
    linear, norm = model.task_head.linear, model.transformer.h[-1].ln_2
    weight, bias = _numpy(linear.weight), _numpy(linear.bias)
    notes, tolerance = [], 1e-5
    if task.regression:
        weight, bias = weight * np.float32(task.std), bias * np.float32(task.std)
        bias += np.float32(task.mean)
        tolerance *= max(task.std, abs(task.mean))
    if task.soft_labels:
        notes.append(
            'the score of a pair is not one of the classes 0 to 5 but their mean, weighted by '
            'their probabilities: softmax(logits) @ [0, 1, 2, 3, 4, 5]'
        )
    if task.layout == 'similarity':
        bias = bias / 2  # each of the two orders brings half of it
        notes.append('the logits of a pair are the sum of those of its two orders')
    folded = fold_bias(weight, bias, _numpy(norm.g), _numpy(norm.b), tolerance)
    if folded is not None:
        return {f'{CLASS_HEAD}.weight': folded}, notes
    values = ', '.join(f'{value:.4g}' for value in bias)
    if len(bias) == 1 or np.ptp(bias) > 0:
        notes.append(
            'OpenAIGPTForSequenceClassification has no bias, and the weights cannot express it: '
            f'add {values} to its logits'
        )
    else:
        notes.append('all logits lack the same number, the bias: the probabilities are the same')
    return {f'{CLASS_HEAD}.weight': weight, f'{CLASS_HEAD}.bias': bias}, notes


def fold_bias(
    weight: np.ndarray,
    bias: np.ndarray,
    gain: np.ndarray,
    shift: np.ndarray,
    tolerance: float = 1e-5,
) -> np.ndarray | None:
    """Return a weight that alone does what `weight` [n_out, n] and `bias` [n_out] do, or None.

    gain, shift  [n] of the layer normalization whose output is the input of the classifier

    That output is h = gain * x + shift with sum(x) = 0, so sum(h / gain) is the same number for all
    inputs, c = sum(shift / gain). The product of h with u = 1 / (gain * c) is therefore always 1,
    and (weight + bias u) h = weight h + bias.
    The result is None where rounding would change it by more than `tolerance`: where a gain or c is
    almost 0.
    """
    gain, shift = gain.astype(np.float64), shift.astype(np.float64)
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        u = 1 / (gain * (shift / gain).sum())
        # |h| is at most about sqrt(n) * max(gain) + |shift|.
        size = np.sqrt(len(gain)) * np.abs(gain).max() + np.linalg.norm(shift)
        error = np.finfo(np.float32).eps * np.linalg.norm(u) * size * np.abs(bias).max()
    if not error < tolerance:
        return None
    return (weight + np.outer(bias, u)).astype(np.float32)


def _save_tokenizer(encoder, task, pads: bool, n_ctx: int, folder: str) -> None:
    """Write the files of the tokenizer.

    That of a fine-tuned model adds the special tokens: `tokenizer(text)` and `tokenizer(a, b)` give
    the sequences that the model was trained on. For choices, `a` is the context, `b` a choice.
    """
    special = SPECIAL_TOKENS if task is not None else ()
    special += ('<pad>',) if pads else ()
    ids = {token: encoder.n_vocab + i for i, token in enumerate(special)}
    tokenizer = huggingface_tokenizer(encoder, special)
    if special:
        start, delimiter, classify = SPECIAL_TOKENS
        tokenizer.post_processor = TemplateProcessing(
            single=f'{start} $A {classify}',
            pair=f'{start} $A {delimiter} $B {classify}',
            special_tokens=list(ids.items()),
        )
    config = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'unk_token': '<unk>',
        'additional_special_tokens': list(special[: len(SPECIAL_TOKENS)]),
        'model_input_names': ['input_ids', 'attention_mask'],  # no types of tokens
        'model_max_length': n_ctx,
    }
    if pads or '<unk>' in encoder.encoder:
        config['pad_token'] = '<pad>' if pads else '<unk>'
    with whole_file(os.path.join(folder, 'tokenizer.json')) as f:
        f.write(tokenizer.to_str())
    with whole_file(os.path.join(folder, 'vocab.json')) as f:
        json.dump({**encoder.encoder, **ids}, f)
    with whole_file(os.path.join(folder, 'merges.txt')) as f:
        write_merges(f, known_merges(encoder))  # the library refuses others
    with whole_file(os.path.join(folder, 'tokenizer_config.json')) as f:
        json.dump(config, f, indent=1)
