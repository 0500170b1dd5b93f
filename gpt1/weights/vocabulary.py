"""The vocabularies that lie beside weights: the symbols with their ids, and the merges.

They are OpenAI's two files, or `vocab.json` and `merges.txt`, or `tokenizer.json` of a Hugging Face
folder.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable

from gpt1.files import ENCODER_FILE, MERGES_FILE
from gpt1.settings import read_json, read_settings
from text_utils import TextEncoder, read_merges, read_vocabulary
from utils import SPECIAL_TOKENS, InputError, whole_file

FILES = (ENCODER_FILE, 'vocab.json', 'added_tokens.json', 'tokenizer.json')
Symbols = dict[str, int]  # symbol -> id, ids 0, 1, 2, ...
Merges = dict[tuple[str, str], int]  # (left, right) -> rank, the lowest first


def open_encoder(
    folder: str,
    encoder_path: str | None = None,
    bpe_path: str | None = None,
    transfers: bool = True,
) -> TextEncoder:
    """Return the encoder for the weights in `folder`, or that of the two files if they are given.

    transfers  whether the weights are used. Two files that are given need not fit them otherwise
    """
    if encoder_path is None and bpe_path is None:
        encoder = TextEncoder(*read_vocabulary_of(folder)[:2])
        check_vocabulary(encoder, read_settings(folder), folder)
        return encoder
    encoder_path = encoder_path or os.path.join(folder, ENCODER_FILE)
    bpe_path = bpe_path or os.path.join(folder, MERGES_FILE)
    encoder = TextEncoder(encoder_path, bpe_path)
    if transfers:
        facts = read_settings(folder)
        if 'vocabulary' not in facts:  # as with OpenAI's files: the vocabulary beside them tells
            with contextlib.suppress(InputError):
                facts = vocabulary_facts(TextEncoder(*read_vocabulary_of(folder)[:2]))
        check_vocabulary(encoder, facts, f'{encoder_path}, {bpe_path}')
    return encoder


def read_vocabulary_of(folder: str) -> tuple[Symbols, Merges, Symbols]:
    """Read the symbols, the merges, and the added tokens with their ids. Raises InputError.

    Added tokens, such as our special tokens in an exported model, are no symbols: no text has them.
    """
    there = {name for name in FILES if os.path.exists(os.path.join(folder, name))}
    names, added = (ENCODER_FILE, MERGES_FILE), {}
    if ENCODER_FILE not in there and 'vocab.json' in there:
        names = ('vocab.json', 'merges.txt')
        if 'added_tokens.json' in there:
            added = read_json(os.path.join(folder, 'added_tokens.json'))
    if 'tokenizer.json' in there and names[0] not in there:
        symbols, merges, added = _read_tokenizer(os.path.join(folder, 'tokenizer.json'))
    else:
        encoder_path, bpe_path = (os.path.join(folder, name) for name in names)
        symbols, merges = read_vocabulary(encoder_path), read_merges(bpe_path)
    first = symbols.get(SPECIAL_TOKENS[0])
    ids = [symbols.get(token) for token in SPECIAL_TOKENS]
    if first is not None and ids == [first, first + 1, first + 2]:
        # Exported by this program: they and what follows them were added.
        added = {**{token: i for token, i in symbols.items() if i >= first}, **added}
        symbols = {symbol: i for symbol, i in symbols.items() if i < first}
    return symbols, merges, added


def _read_tokenizer(path: str) -> tuple[Symbols, Merges, Symbols]:
    tokenizer = read_json(path)
    try:
        symbols, merges = dict(tokenizer['model']['vocab']), {}
        tokens = {token['content']: token['id'] for token in tokenizer.get('added_tokens') or []}
        added = {token: i for token, i in tokens.items() if token not in symbols}
        for rank, pair in enumerate(tokenizer['model']['merges']):
            left, right = (pair if isinstance(pair, str) else ' '.join(pair)).split()
            merges[left, right] = rank
        if sorted(symbols.values()) != list(range(len(symbols))):
            raise ValueError('wrong ids')
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f'{path} holds no byte pairs: expected model.vocab, from symbols to the ids 0, 1, 2, '
            '..., and model.merges, pairs of symbols'
        ) from error
    return symbols, merges, added


def vocabulary_facts(encoder: TextEncoder) -> dict:
    """Return what the settings of a model keep: the number of symbols, and a fingerprint."""
    symbols = sorted(encoder.encoder.items(), key=lambda item: item[1])
    text = json.dumps([symbols, known_merges(encoder)])
    digits = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {'n_vocab': encoder.n_vocab, 'vocabulary': digits}


def check_vocabulary(encoder: TextEncoder, settings: dict, where: str) -> None:
    """Raise InputError if the settings of a model declare another vocabulary than that `where`."""
    expected = settings.get('vocabulary')
    if expected and vocabulary_facts(encoder)['vocabulary'] != expected:
        raise InputError(
            f'the vocabulary in {where} belongs to another model: its fingerprint is not {expected}'
        )


def sorted_merges(encoder: TextEncoder) -> list[tuple[str, str]]:
    """Return the merges, the best first."""
    return sorted(encoder.bpe_ranks, key=encoder.bpe_ranks.get)


def known_merges(encoder: TextEncoder) -> list[tuple[str, str]]:
    """Return the merges whose result is a symbol. Real vocabularies have no others."""
    return [pair for pair in sorted_merges(encoder) if ''.join(pair) in encoder.encoder]


def write_merges(f, merges: Iterable[tuple[str, str]]) -> None:
    """Write merges as OpenAI and Hugging Face do: a comment, then one on each line."""
    f.write('#version: 0.2\n')
    f.writelines(f'{left} {right}\n' for left, right in merges)


def save_vocabulary(encoder: TextEncoder, folder: str) -> None:
    """Write the vocabulary as OpenAI's two files. Raises WriteError."""
    with whole_file(os.path.join(folder, ENCODER_FILE)) as f:
        json.dump(encoder.encoder, f)
    with whole_file(os.path.join(folder, MERGES_FILE)) as f:
        write_merges(f, sorted_merges(encoder))
