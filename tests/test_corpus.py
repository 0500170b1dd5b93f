"""Learning a vocabulary, encoding text, and what `prepare` writes."""

import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN
from small_files import error_of, put

from gpt1.files import ENCODER_FILE, MERGES_FILE
from gpt1.run import corpus
from gpt1.run.corpus import learn_byte_pairs, prepare, vocabulary_files
from gpt1.text import text_files, workers
from text_utils import TextEncoder


@pytest.fixture(scope='module')
def stories(tmp_path_factory):
    """A text file with the stories of the golden recording, commas and all."""
    path = tmp_path_factory.mktemp('text') / 'stories.txt'
    parts = [part.read_text('utf-8') for part in sorted(Path(GOLDEN, 'data').glob('*.csv'))]
    path.write_text(''.join(parts), encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, stories):
    """A folder with a vocabulary that was learned from the stories, and their ids in `work`."""
    folder = tmp_path_factory.mktemp('prepared')
    prepare([stories], folder, folder / 'work', 100)
    return folder


@pytest.fixture
def one_process(monkeypatch):
    monkeypatch.setattr(workers, 'available_cores', lambda: 1)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


TOKENS = Counter(
    {'low': 5, 'lower': 2, 'newest': 6, 'widest': 3, 'aaaa': 4, 'aaa': 2, "n't": 2, '7': 3, 'ü': 1}
)


MERGES = (  # by the plain algorithm: count all pairs, merge a commonest one, if it occurs twice
    'a a|e s|es t</w>|l o|e w|n ew|new est</w>|lo w</w>|a a</w>|aa aa</w>|w i|d est</w>|'
    "wi dest</w>|e r</w>|w er</w>|n '|aa a</w>|lo wer</w>|n' t</w>"
)


def test_a_learned_vocabulary_has_openais_form():
    characters, merges = learn_byte_pairs(TOKENS, 100)
    assert ''.join(characters) == "aewtsnlo7di'rü"  # the commonest first
    assert '|'.join(map(' '.join, merges)) == MERGES
    assert learn_byte_pairs(TOKENS, 3)[1] == merges[:3]
    assert learn_byte_pairs(TOKENS, 0)[1] == []
    encoder = corpus.encoder_of(characters, merges)
    ends = [f'{character}</w>' for character in characters]
    symbols = ['<unk>', *characters, *ends, *map(''.join, merges), '\n</w>']
    assert sorted(encoder.encoder, key=encoder.encoder.get) == symbols
    assert sorted(encoder.bpe_ranks, key=encoder.bpe_ranks.get) == merges


def test_rare_characters_and_words_are_not_learned_from(monkeypatch):
    tokens = Counter(ab=9, abx=1)
    assert learn_byte_pairs(tokens, 5, coverage=0.9)[0] == ['a', 'b', 'x']
    monkeypatch.setattr(corpus, 'MIN_CHARACTERS', 0)
    assert learn_byte_pairs(tokens, 5, coverage=0.9) == (['a', 'b'], [('a', 'b</w>')])
    for coverage, characters in ((0, 'a'), (0.5, 'a'), (0.51, 'ab'), (0.75, 'ab'), (1, 'abc')):
        found = corpus.choose_characters(Counter(c=1, a=2, b=1), coverage)
        assert ''.join(found) == characters
    monkeypatch.setattr(corpus, 'MAX_WORDS', 4)
    counts = [Counter(a=5, b=1, c=2), Counter(d=4, e=1, A=3), Counter(f=1)]
    assert corpus.count_tokens(counts) == Counter(a=5, d=4, f=1)


@pytest.mark.parametrize('alphabet', ['acgt', '的一是不了人我在有他这为之大来以个中上们'])
def test_a_word_of_a_megabyte_is_learned_from_in_bounded_time(alphabet):
    rng = np.random.default_rng(0)
    size = (1 << 20) // len(alphabet[0].encode())
    word = ''.join(alphabet[i] for i in rng.integers(len(alphabet), size=size))
    start = time.process_time()
    tokens = corpus.count_tokens([corpus.count_words(None, word)])
    _, merges = learn_byte_pairs(tokens, 20)
    assert time.process_time() - start < 15
    assert len(merges) == 20 and max(map(len, tokens)) <= corpus.LONGEST_WORD


def test_a_text_gets_the_ids_of_the_whole(tmp_path, stories, prepared, monkeypatch):
    """Whatever the blocks and the number of processes."""
    monkeypatch.setattr(text_files, 'BLOCK', 500)
    encoder = TextEncoder(*vocabulary_files(prepared))
    text = stories.read_text(encoding='utf-8')
    for n in (1, 3):
        monkeypatch.setattr(workers, 'available_cores', lambda n=n: n)
        folder = tmp_path / str(n)
        prepare([stories], folder, folder, 100)
        ids = corpus.open_tokens(folder)[0].tolist()
        assert ids == [*encoder.encode(text), encoder.encoder['\n</w>']]
        for name in (ENCODER_FILE, MERGES_FILE):
            assert (folder / name).read_bytes() == (prepared / name).read_bytes()


def test_blank_lines_and_long_lines(tmp_path, prepared, monkeypatch, one_process):
    monkeypatch.setattr(text_files, 'BLOCK', 1000)
    words = ' '.join(f'word{i}' for i in range(1000))  # a line of 9 kB
    folder = put(tmp_path / 'texts', {'a.txt': 'One.\r\n\r\n  \nTwo.', 'b/c.txt': words})
    prepare([folder], tmp_path / 'out', tmp_path / 'work', 0, prepared)
    expected = TextEncoder(*vocabulary_files(prepared)).encode(f'One. \n Two. \n {words} \n x')
    assert corpus.open_tokens(tmp_path / 'work')[0].tolist() == expected[:-1]


@pytest.mark.parametrize('content', [b'', b'\n\n \r\n', b'\xef\xbb\xbf\n'])
def test_a_text_without_words_is_an_error(tmp_path, prepared, one_process, content):
    path = tmp_path / 'a.txt'
    path.write_bytes(content)
    for vocabulary in (prepared, None):
        message = error_of(prepare, [path], tmp_path / 'out', tmp_path / 'work', 10, vocabulary)
        assert 'the text is empty' in message and str(path) in message
        assert not (tmp_path / 'work' / 'tokens.bin').exists()


def test_an_encoding_is_made_once(tmp_path, stories, capsys, one_process):
    copy, out, work = tmp_path / 'text.txt', tmp_path / 'out', tmp_path / 'work'
    shutil.copy(stories, copy)

    def steps(n_merges=20, **options):
        prepare([copy], out, work, n_merges, **options)
        return re.findall('^(learned|encoded) +(already)?', capsys.readouterr().out, re.M)

    assert steps() == [('learned', ''), ('encoded', '')]
    assert steps() == [('encoded', 'already')]
    os.utime(copy, (0, 0))  # the content counts
    assert steps() == [('encoded', 'already')]
    (out / 'params_0.npy').touch()  # of weights, which keep their vocabulary
    os.unlink(work / 'tokens.json')  # as if it had been stopped
    assert steps() == [('encoded', '')]
    os.unlink(out / 'params_0.npy')
    os.truncate(work / 'tokens.bin', 100)
    assert steps() == [('encoded', '')]
    assert steps(21) == [('learned', ''), ('encoded', '')]
    assert steps(21, coverage=0.5) == [('learned', ''), ('encoded', '')]
    copy.write_text('Another text. ' * 100)
    assert steps(21) == [('learned', ''), ('encoded', '')]
    (out / ENCODER_FILE).write_text('{"a": 0}')
    assert steps(21) == [('learned', ''), ('encoded', '')]


CHANGES = {
    'text': 'params_shapes.json',
    'n_merges': 'params_0.npy',
    'vocabulary': 'work/checkpoint',
    'no work': 'params_shapes.json',
    'vocabulary file': 'params_0.npy',
}


@pytest.mark.parametrize('change', CHANGES)
def test_the_vocabulary_of_weights_is_never_replaced(
    tmp_path, stories, prepared, one_process, change
):
    folder = tmp_path / 'finished'
    shutil.copytree(prepared, folder)
    weights, text = folder / CHANGES[change], stories
    weights.touch()
    if change == 'text':
        put(tmp_path, {'other.txt': 'Another text. ' * 100})
        text = tmp_path / 'other.txt'
    elif change == 'vocabulary file':
        (folder / MERGES_FILE).write_text('#version: 0.2\n')
    elif change == 'no work':
        shutil.rmtree(folder / 'work')
    before = contents(folder)
    options = (99 if change == 'n_merges' else 100, prepared if change == 'vocabulary' else None)
    message = error_of(prepare, [text], folder, folder / 'work', *options)
    assert str(weights) in message and 'another text or vocabulary' in message
    assert contents(folder) == before
