"""Hugging Face's tokenizer gives the ids of TextEncoder for ordinary English."""

import csv
import os

import pytest
from conftest import ROOT
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from gpt1.files import SAMPLE_MODEL
from gpt1.weights.hf_tokenizer import huggingface_tokenizer
from gpt1.weights.vocabulary import open_encoder
from text_utils import english_tokenizer, split_words
from utils import SPECIAL_TOKENS

DATA = os.path.join(ROOT, 'data', 'sample')


@pytest.fixture(scope='module')
def encoder():
    return open_encoder(SAMPLE_MODEL)


@pytest.fixture(scope='module')
def tokenizer(encoder):
    return huggingface_tokenizer(encoder)


def tokens(tokenizer, text):
    """The tokens before they are split into byte pairs."""
    return tokenizer.normalizer.normalize_str(text).split(' ')


def our_tokens(text):
    found = []
    for word in split_words(text):
        found += [token.lower() for token in english_tokenizer()(word)]
    return found


@pytest.mark.parametrize(
    'text',
    [
        "Tom couldn't go. He'd lost $1,000!!!",
        '"I can\'t," she said; "it\'s too late (isn\'t it?)..."',
        '“Smart” ‘quotes’ — and dashes… it´s fine.',
        "They're gonna cannot; I'm, you've, who'll, y'all, o'clock, ma'am, rock 'n' roll",
        "CAN'T stop. We won't've. It's ok; its end.",
        'Mr. and Mrs. Hill met Dr. Day in the U.S. at 9 a.m. or 10p.m. in May.',
        "the dogs' tails, Tom's 'quoted' words, 'em, 'cause, '90s",
        'end.The next one,two well-known 3-4 and/or w/o: 7€, 10%, 3kg.',
        'see www.example.com, me@example.org or http://example.com/a_b.',
        'tabs\tand\n\nnew  lines \r\n here\x00',
        '\n  spaces at both ends \n',
        '',
        "- -- ---- // ** ))) !? ?!! __ *** [1] {2} |3| ~4 ``quoted''",
        "c'mon, this'll do, that've",
    ],
)
def test_ordinary_english(encoder, tokenizer, text):
    assert tokenizer.encode(text).ids == encoder.encode(text)
    assert [token for token in tokens(tokenizer, text) if token] == our_tokens(text)


def test_the_sample_stories(encoder, tokenizer):
    texts = []
    for name in sorted(name for name in os.listdir(DATA) if name.endswith('.csv')):
        with open(os.path.join(DATA, name), encoding='utf-8', newline='') as f:
            for row in list(csv.DictReader(f))[:100]:
                texts.append(' '.join(row[f'InputSentence{i}'] for i in range(1, 5)))
    assert [encoded.ids for encoded in tokenizer.encode_batch(texts)] == encoder.encode_all(texts)


def test_marks_around_words_and_exceptions(tokenizer):
    for word in "dog Tom's can't I'm Mr. U.S. e.g. 10 3.5 9am USA o'clock :) 5km".split():
        for opening in ('', "'", '"', '(', '$', '...', '#'):
            for closing in ('', "'", '"', ',', '!', '?', ':', ';', '...', ')', "'s", '%'):
                text = f'Oh {opening}{word}{closing} no'
                assert tokens(tokenizer, text) == our_tokens(text)


def test_it_can_be_saved_and_loaded(encoder, tmp_path):
    path = str(tmp_path / 'tokenizer.json')
    huggingface_tokenizer(encoder, SPECIAL_TOKENS).save(path)
    text = "_start_ Tom couldn't go._delimiter_ He's sad._classify_"
    start, delimiter, classify = range(encoder.n_vocab, encoder.n_vocab + 3)
    words = [encoder.encode(text) for text in ("Tom couldn't go.", "He's sad.")]
    ids = [start, *words[0], delimiter, *words[1], classify]
    for loaded in (Tokenizer.from_file(path), PreTrainedTokenizerFast(tokenizer_file=path)):
        encoded = loaded.encode(text)
        assert getattr(encoded, 'ids', encoded) == ids
    assert loaded.decode(words[1]) == "he 's sad ."
