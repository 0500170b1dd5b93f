"""Write a model as a Hugging Face folder, or as the scripts of this program do.

Our settings, the task and the vocabulary's fingerprint stand in `config.json`, so that an exported
model comes back complete.
"""

import json
import os
from dataclasses import replace

import numpy as np
import torch
from safetensors.numpy import save
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from gpt1.files import PARAMETERS_FILE
from gpt1.settings import CONFIG_KEY, CONFIG_NAMES
from gpt1.weights.open import CHOICE_HEAD, CLASS_HEAD, OpenedModel
from gpt1.weights.openai import model_shapes
from gpt1.weights.parameters import save_settings, settings_of, sign
from gpt1.weights.shards import save_openai_shards
from gpt1.weights.vocabulary import known_merges, save_vocabulary, write_merges
from utils import SPECIAL_TOKENS, InputError, whole_file


def save_ours(opened: OpenedModel, folder: str) -> None:
    """Write a model as this program's scripts do: OpenAI's files, or best_params."""
    config = opened.model.config
    sizes = {name: getattr(config, name) for name in ('n_embd', 'n_head', 'n_layer', 'afn')}
    settings = {'n_ctx': config.n_ctx, **opened.settings, **sizes}
    save_vocabulary(opened.encoder, folder)
    save_settings(folder, settings, opened.encoder, opened.task)
    if opened.finetuned:
        sign(opened.model, settings, opened.task, opened.encoder)
        with whole_file(os.path.join(folder, PARAMETERS_FILE), 'wb') as f:
            torch.save(opened.model.state_dict(), f)
    else:
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
        for kind, p in model.task_head.linear.named_parameters():
            tensors[f'{CHOICE_HEAD}.{kind}'] = _numpy(p)
    else:
        config['architectures'] = ['OpenAIGPTForSequenceClassification']
        config['pad_token_id'] = model.config.first_position
        config.update(_label_config(task))
        tensors[f'{CLASS_HEAD}.weight'], warnings = _class_head(model, task)
        if task.regression:  # the head computes in the units of the data
            task = replace(task, mean=0.0, std=1.0)
    in_config = set(CONFIG_NAMES.values()) - {'n_ctx'}  # n_positions may be another number
    settings = {name: x for name, x in opened.settings.items() if name not in in_config}
    config[CONFIG_KEY] = {**settings, **settings_of({}, task, encoder)}
    with whole_file(os.path.join(folder, 'model.safetensors'), 'wb') as f:
        f.write(save({n: np.ascontiguousarray(p) for n, p in tensors.items()}, {'format': 'pt'}))
    _save_tokenizer(encoder, task, pads, model.config.n_ctx, folder)
    _save_json(config, folder, 'config.json')  # last: a folder with it is complete
    return warnings


def _save_json(values: dict, folder: str, name: str) -> None:
    with whole_file(os.path.join(folder, name)) as f:
        json.dump(values, f, indent=1)


def _numpy(p: torch.Tensor) -> np.ndarray:
    return p.detach().float().cpu().numpy()


def _transformer_tensors(model, special: bool, pads: bool) -> dict[str, np.ndarray]:
    config, embed = model.config, _numpy(model.transformer.embed.weight)
    n_rows = config.first_position if special else config.n_vocab
    padding = np.zeros((int(pads), config.n_embd), dtype=np.float32)
    arrays = [embed[config.first_position :], np.concatenate([embed[:n_rows], padding])]
    arrays += map(_numpy, model.transformer.h.parameters())
    names = model_shapes(config.n_ctx, n_rows, config.n_embd, config.n_layer)
    return {f'transformer.{name}': p for name, p in zip(names, arrays)}


def _config(config, n_rows: int) -> dict:
    return {
        'model_type': 'openai-gpt',
        **{their: getattr(config, our) for their, our in CONFIG_NAMES.items()},
        'vocab_size': n_rows,
        'layer_norm_epsilon': 1e-5,
        # The classifier of OpenAIGPTDoubleHeadsModel: one linear layer.
        'summary_type': 'cls_index',
        'summary_use_proj': True,
        'summary_activation': None,
        'summary_proj_to_labels': True,
    }


def _label_config(task) -> dict:
    is_number = task.labels is None and task.n_out == 1
    labels = task.labels or ([task.name] if is_number else map(str, range(task.n_out)))
    names = dict(enumerate(labels))
    return {
        'num_labels': task.n_out,
        'id2label': names,
        'label2id': {label: i for i, label in names.items()},
        'problem_type': 'regression' if is_number else 'single_label_classification',
    }


def _class_head(model, task) -> tuple[np.ndarray, list[str]]:
    """Return the weight of the classifier, which needs no bias, and warnings for its user."""
    linear, norm = model.task_head.linear, model.transformer.h[-1].ln_2
    weight, bias, tolerance, warnings = _numpy(linear.weight), _numpy(linear.bias), 1e-5, []
    if task.regression:
        weight = weight * np.float32(task.std)
        bias = bias * np.float32(task.std) + np.float32(task.mean)
        tolerance *= max(task.std, abs(task.mean))
    if task.soft_labels:
        warnings.append(
            'the score of a pair is not one of the classes 0 to 5 but their mean, weighted by '
            'their probabilities: softmax(logits) @ [0, 1, 2, 3, 4, 5]'
        )
    if task.layout == 'similarity':
        bias = bias / 2  # each of the two orders brings half of it
        warnings.append('the logits of a pair are the sum of those of its two orders')
    gain, shift = (_numpy(p).astype(np.float64) for p in (norm.g, norm.b))
    return fold_bias(weight, bias, gain, shift, tolerance), warnings


def fold_bias(weight, bias, gain, shift, tolerance: float) -> np.ndarray:
    """Return a weight that alone does what `weight` [n_out, n] and `bias` [n_out] do.

    The classifier reads h = gain * x + shift of a layer normalization, with sum(x) = 0. So
    sum(h / gain) is the same number for all inputs, c = sum(shift / gain), the product of h with
    u = 1 / (gain * c) is always 1, and (weight + bias u) h = weight h + bias.
    Raises InputError where rounding would change it by more than `tolerance`: where a gain or c is
    almost 0, as in a model that was not trained.
    """
    if not bias.any():
        return weight
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        u = 1 / (gain * (shift / gain).sum())
        # |h| is at most about sqrt(n) * max(gain) + |shift|.
        size = np.sqrt(len(gain)) * np.abs(gain).max() + np.linalg.norm(shift)
        error = np.finfo(np.float32).eps * np.linalg.norm(u) * size * np.abs(bias).max()
    if not error < tolerance:
        raise InputError(
            'OpenAIGPTForSequenceClassification has no bias, and the last layer normalization '
            'cannot express that of this classifier: the model cannot be converted'
        )
    return (weight + np.outer(bias, u)).astype(np.float32)


def _save_tokenizer(encoder, task, pads: bool, n_ctx: int, folder: str) -> None:
    """Write a tokenizer with the ids of `TextEncoder` for English.

    That of a fine-tuned model has the special tokens: `tokenizer(text)` and `tokenizer(a, b)` are
    the sequences of its task; of choices, a is the context.

    transformers' own tokenizer of GPT-1 splits contractions otherwise (didn ' t). Here, the rules
    and exceptions of spaCy 2.0 are patterns, in `tokenizer.json`, that insert a space wherever it
    starts a new token. The text is lower-cased last, since they depend on capitals.

    Ids differ for text with HTML, emoji, formulas or broken encoding, for some URLs, for words with
    more than two marks at one end, and for scripts other than Latin, Greek and Cyrillic. Of 2,500
    texts of the paper's data sets, none differs.
    """
    special = SPECIAL_TOKENS if task is not None else ()
    special += ('<pad>',) if pads else ()
    ids = {token: encoder.n_vocab + i for i, token in enumerate(special)}
    config = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'unk_token': '<unk>',
        'additional_special_tokens': list(special[: len(SPECIAL_TOKENS)]),
        'model_input_names': ['input_ids', 'attention_mask'],  # no types of tokens
        'model_max_length': n_ctx,
    }
    if pads or '<unk>' in encoder.encoder:
        config['pad_token'] = '<pad>' if pads else '<unk>'
    merges = known_merges(encoder)  # the library refuses others
    with open(os.path.join(os.path.dirname(__file__), 'tokenizer.json'), encoding='utf-8') as f:
        rules = json.load(f)
    rules['model'].update(vocab=encoder.encoder, merges=merges)
    tokenizer = Tokenizer.from_str(json.dumps(rules))
    tokenizer.add_special_tokens(list(special))
    if special:
        start, delimiter, classify = SPECIAL_TOKENS
        tokenizer.post_processor = TemplateProcessing(
            single=f'{start} $A {classify}',
            pair=f'{start} $A {delimiter} $B {classify}',
            special_tokens=list(ids.items()),
        )
    _save_json(json.loads(tokenizer.to_str()), folder, 'tokenizer.json')
    _save_json({**encoder.encoder, **ids}, folder, 'vocab.json')
    _save_json(config, folder, 'tokenizer_config.json')
    with whole_file(os.path.join(folder, 'merges.txt')) as f:
        write_merges(f, merges)
