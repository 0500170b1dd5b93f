"""Hugging Face's tokenizer gives the ids of TextEncoder for ordinary English."""

import csv
import os

import pytest
from conftest import ROOT
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from gpt1.weights.hf_tokenizer import huggingface_tokenizer
from text_utils import TextEncoder, english_tokenizer, split_words

SAMPLE = os.path.join(ROOT, 'model', 'sample')
DATA = os.path.join(ROOT, 'data', 'sample')
SPECIAL_TOKENS = ['_start_', '_delimiter_', '_classify_']


@pytest.fixture(scope='module')
def encoder():
    return TextEncoder(
        os.path.join(SAMPLE, 'encoder_bpe_40000.json'), os.path.join(SAMPLE, 'vocab_40000.bpe')
    )


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
        '“Smart” ‘quotes’ — and dashes… it´s ﬁne.',
        "They're gonna cannot; I'm, you've, who'll, y'all, o'clock, ma'am, rock 'n' roll",
        "CAN'T stop. We won't've. It's ok; its end.",
        'Mr. and Mrs. Hill met Dr. Day in the U.S. at 9 a.m. or 10p.m. in May.',
        "the dogs' tails, Tom's 'quoted' words, 'em, 'cause, '90s",
        'It cost $5, US$6, 7€ or 8.50. 10% of 3kg, 58m. and 5°C. at 12:30',
        'end.The next one,two well-known 3-4 and/or w/o',
        'see www.example.com, me@example.org or http://example.com/a_b.',
        "example.com's page",
        '#tag @user R&D :) :-( <3 o.O',
        'tabs\tand\n\nnew  lines \r\n here\x00',
        '\n  spaces at both ends \n',
        '  ',
        '',
        '- -- ---- // ** ))) !? ?!! __',
        '*** [1] {2} |3| ~4',
        "``quoted''",
        'cafe\u0301 naïve Zoë 😀 word😀. ok☺ok',
        'r&amp;b &lt;3',
        'x^2 3^4 a=b 1=b a:b 1:b a.B a.b',
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
            for row in list(csv.DictReader(f))[:300]:
                texts.append(' '.join(row[f'InputSentence{i}'] for i in range(1, 5)))
                texts.append(row['RandomFifthSentenceQuiz1'])
    assert len(texts) == 1200
    assert [encoded.ids for encoded in tokenizer.encode_batch(texts)] == encoder.encode_all(texts)


def test_all_words_that_spacy_treats_as_exceptions(tokenizer):
    for word in english_tokenizer().exceptions:
        if word.isascii() and word.isprintable() and word not in (' ', '<space>'):
            text = f'Oh {word} no'
            assert tokens(tokenizer, text) == our_tokens(text)


def test_punctuation_at_both_ends(tokenizer):
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
    ids = [
        start,
        *encoder.encode("Tom couldn't go."),
        delimiter,
        *encoder.encode("He's sad."),
        classify,
    ]
    for loaded in (Tokenizer.from_file(path), PreTrainedTokenizerFast(tokenizer_file=path)):
        encoded = loaded.encode(text)
        assert getattr(encoded, 'ids', encoded) == ids


def test_decode(encoder, tokenizer):
    ids = encoder.encode('A dog ran home.')
    assert tokenizer.decode(ids) == 'a dog ran home .'
