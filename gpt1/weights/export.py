"""Write a model as a Hugging Face folder, or as the scripts of this program do.

A model that is exported keeps our settings, its task and its vocabulary's fingerprint under the key
`gpt1` of `config.json`, so that it comes back complete.
"""

import json
import os
from dataclasses import replace

import numpy as np
import torch
from safetensors.numpy import save
from tokenizers.processors import TemplateProcessing

from gpt1.files import PARAMETERS_FILE
from gpt1.settings import CONFIG_KEY, CONFIG_NAMES
from gpt1.weights.hf_tokenizer import huggingface_tokenizer
from gpt1.weights.huggingface import CHOICE_HEAD, CLASS_HEAD, array_names
from gpt1.weights.open import OpenedModel
from gpt1.weights.openai import save_openai_shards
from gpt1.weights.parameters import save_finetuned_settings, sign
from gpt1.weights.pretrained import save_pretrained_settings
from gpt1.weights.vocabulary import (
    known_merges,
    save_vocabulary,
    vocabulary_facts,
    write_merges,
)
from utils import SPECIAL_TOKENS, whole_file


def save_ours(opened: OpenedModel, folder: str) -> None:
    """Write a model as this program's scripts do: OpenAI's files, or best_params.

    Raises WriteError.
    """
    config = opened.model.config
    sizes = {name: getattr(config, name) for name in ('n_embd', 'n_head', 'n_layer', 'afn')}
    settings = {'n_ctx': config.n_ctx, **opened.settings, **sizes}
    if opened.finetuned:
        save_finetuned_settings(folder, settings, opened.task, opened.encoder)
        sign(opened.model, settings, opened.task, opened.encoder)
        with whole_file(os.path.join(folder, PARAMETERS_FILE), 'wb') as f:
            torch.save(opened.model.state_dict(), f)
    else:
        save_vocabulary(opened.encoder, folder)
        save_pretrained_settings(folder, settings, opened.encoder)
        save_openai_shards(opened.model, folder)


def save_huggingface(opened: OpenedModel, folder: str) -> list[str]:
    """Write a model as a Hugging Face folder. Returns warnings for its user, in sentences.

    The classes of the library that load the folder, and what they compute:

        no task     OpenAIGPTLMHeadModel                the same logits
        choices     OpenAIGPTDoubleHeadsModel           the same logits
        text, pair  OpenAIGPTForSequenceClassification  the same logits
        similarity  OpenAIGPTForSequenceClassification  logits for each order of the two texts,
                                                        whose sum is ours
        regression  OpenAIGPTForSequenceClassification  the number, in the units of the data

    Raises WriteError.
    """
    model, encoder, task = opened.model, opened.encoder, opened.task
    # The library classifies the last token that is not padding, so no text may have that token.
    pads = task is not None and task.layout != 'choices'
    tensors = _transformer_tensors(model, special=task is not None, pads=pads)
    config = _config(model.config, n_rows=len(tensors['transformer.tokens_embed.weight']))
    warnings = []
    if task is None:
        config['architectures'] = ['OpenAIGPTLMHeadModel']
    elif task.layout == 'choices':
        config['architectures'] = ['OpenAIGPTDoubleHeadsModel']
        linear = model.task_head.linear
        tensors[f'{CHOICE_HEAD}.weight'] = _numpy(linear.weight)
        tensors[f'{CHOICE_HEAD}.bias'] = _numpy(linear.bias)
    else:
        config['architectures'] = ['OpenAIGPTForSequenceClassification']
        config['pad_token_id'] = model.config.first_position
        config.update(_label_config(task))
        head, warnings = _class_head(model, task)
        tensors.update(head)
        if task.regression:  # the head computes in the units of the data
            task = replace(task, mean=0.0, std=1.0)
    config[CONFIG_KEY] = _our_settings(opened.settings, encoder, task)
    n_left_out = len(encoder.bpe_ranks) - len(known_merges(encoder))
    if n_left_out:
        warnings.append(
            f'{n_left_out:,} merges are left out, because their results are not in the '
            'vocabulary: words with them get other tokens there'
        )
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with whole_file(os.path.join(folder, 'model.safetensors'), 'wb') as f:
        f.write(save(tensors, {'format': 'pt'}))
    _save_tokenizer(encoder, task, pads, model.config.n_ctx, folder)
    # Last: a folder with config.json is complete.
    with whole_file(os.path.join(folder, 'config.json')) as f:
        json.dump(config, f, indent=1)
    return warnings


def _numpy(p: torch.Tensor) -> np.ndarray:
    return p.detach().float().cpu().numpy()


def _transformer_tensors(model, special: bool, pads: bool) -> dict[str, np.ndarray]:
    """Return the arrays of the transformer, by name, with rows for special tokens and padding."""
    config, embed = model.config, _numpy(model.transformer.embed.weight)
    n_rows = config.first_position if special else config.n_vocab
    padding = np.zeros((int(pads), config.n_embd), dtype=np.float32)
    arrays = [embed[config.first_position :], np.concatenate([embed[:n_rows], padding])]
    for block in model.transformer.h:
        arrays += map(_numpy, block.parameters())
    return {f'transformer.{name}': p for name, p in zip(array_names(config.n_layer), arrays)}


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


def _class_head(model, task) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays of the classifier, and warnings for its user.

    They are a weight that needs no bias, [n_out, n_embd]; where there is none, the bias, [n_out],
    comes with it. The library leaves that out, `HuggingFaceWeights` does not.
    """
    linear, norm = model.task_head.linear, model.transformer.h[-1].ln_2
    weight, bias = _numpy(linear.weight), _numpy(linear.bias)
    warnings = []
    tolerance = 1e-5
    if task.regression:
        weight, bias = weight * np.float32(task.std), bias * np.float32(task.std)
        bias += np.float32(task.mean)
        tolerance *= max(task.std, abs(task.mean))
    if task.soft_labels:
        warnings.append(
            'the score of a pair is not one of the classes 0 to 5 but their mean, weighted by '
            'their probabilities: softmax(logits) @ [0, 1, 2, 3, 4, 5]'
        )
    if task.layout == 'similarity':
        bias = bias / 2  # each of the two orders brings half of it
        warnings.append('the logits of a pair are the sum of those of its two orders')
    folded = fold_bias(weight, bias, _numpy(norm.g), _numpy(norm.b), tolerance)
    if folded is not None:
        return {f'{CLASS_HEAD}.weight': folded}, warnings
    values = ', '.join(f'{value:.4g}' for value in bias)
    if len(bias) == 1 or np.ptp(bias) > 0:
        warnings.append(
            'OpenAIGPTForSequenceClassification has no bias, and the weights cannot express it: '
            f'add {values} to its logits'
        )
    else:
        warnings.append('all logits lack the same number, the bias: the probabilities are the same')
    return {f'{CLASS_HEAD}.weight': weight, f'{CLASS_HEAD}.bias': bias}, warnings


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
