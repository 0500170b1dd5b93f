"""Finding text files, reading each kind of them, and cutting them into blocks."""

import gzip
import io
import json
import lzma
import os
import sys

import pyarrow
import pyarrow.parquet
import pytest
from conftest import ON_LINUX
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt1.text import text_files
from gpt1.text.text_files import TextFile, find_texts, read_blocks
from utils import InputError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path):
    """The text of a file, as `read_blocks` gives it."""
    return ''.join(block.decode() for block in read_blocks(str(path)))


def error_of(function, *args):
    with pytest.raises(InputError) as caught:
        function(*args)
    message = str(caught.value)
    assert '\n' not in message
    return message


# ------------------------------------------------------------------------------ finding the files


def names_of(folder):
    texts, notes = find_texts([folder])
    return [text.name for text in texts], notes


def test_a_folder_is_read_in_the_order_of_names_and_other_kinds_of_files_are_named(tmp_path):
    for name in ('b.txt', 'a/z.TXT', 'c.jsonl', 'B.Txt.Gz', 'a.parquet', 'd.txt.zst', 'e.jsonl.xz'):
        write(tmp_path / name, '')
    names, notes = names_of(tmp_path)
    assert names == sorted(names) and len(names) == 7
    assert notes == []
    for name in ('b.md', 'c/d.pdf', 'e.tar.gz', 'txt'):
        write(tmp_path / name, '')
    os.mkfifo(tmp_path / 'pipe.txt')
    assert names_of(tmp_path)[0] == names
    others = 'not read: b.md, c/d.pdf, e.tar.gz, pipe.txt, txt'
    assert names_of(tmp_path)[1][0].endswith(others)
    write(tmp_path / 'z.md', '')
    assert names_of(tmp_path)[1][0].endswith(others + ' and 1 more')


def test_records_of_json_in_a_folder_are_read_whatever_they_are_called(tmp_path):
    record = jsonl('one')
    write(tmp_path / 'c4-train.00000-of-01024.json.gz', gzip.compress(record))
    write(tmp_path / 'a.ndjson', record)
    write(tmp_path / 'b.json', record)
    write(tmp_path / 'info.json', '{"license": "cc"}')
    names, [note] = names_of(tmp_path)
    assert names == ['a.ndjson', 'b.json', 'c4-train.00000-of-01024.json.gz']
    assert note.endswith('not read: info.json')


def test_symbolic_links_are_followed_and_each_file_is_read_once(tmp_path):
    books = tmp_path / 'books'
    write(books / 'a' / 'one.txt', 'one')
    write(tmp_path / 'elsewhere' / 'two.txt', 'two')
    write(tmp_path / 'three.txt', 'three')
    (books / 'linked').symlink_to(tmp_path / 'elsewhere')
    (books / 'again').symlink_to(tmp_path / 'elsewhere')
    (books / 'a' / 'loop').symlink_to(books)
    (books / 'three.txt').symlink_to(tmp_path / 'three.txt')
    (books / 'three-again.txt').symlink_to(tmp_path / 'three.txt')
    names, notes = names_of(books)
    assert names == ['a/one.txt', 'again/two.txt', 'three-again.txt']
    assert notes == []


def test_a_file_given_by_name_is_read_whatever_its_name(tmp_path):
    path = write(tmp_path / 'book', 'text')
    assert find_texts([path])[0] == [TextFile('book', str(path))]


@pytest.mark.parametrize(
    'names, words',
    [
        ('a.csv a.tsv.gz', 'a table'),
        ('a.HTML a.xml.zst', 'extract the plain text'),
        ('a.tar.gz', 'unpack it'),
    ],
)
def test_a_kind_that_is_not_text_is_refused_by_name(tmp_path, names, words):
    for name in names.split():
        assert words in error_of(find_texts, [write(tmp_path / name, 'text')])


@pytest.mark.parametrize(
    'content, words',
    [
        ('<!DOCTYPE html>\n<p>Hello.', 'extract the plain text'),
        ('\ufeff<?xml version="1.0"?>\n<page/>', 'extract the plain text'),
        ('[{"text": "one"}]', 'extract the plain text'),
        ('{"content": "one"}\n', 'a string named "text"'),
        ('book/a.txt\0\0000644\0text', 'UTF-16 or an archive'),
        ('text'.encode('utf-16-le'), 'UTF-16 or an archive'),
        ('物語'.encode('utf-16'), 'UTF-16 or an archive'),
        ('version https://git-lfs.github.com/spec/v1\noid sha256:ab\n', 'is a Git LFS pointer'),
    ],
)
def test_a_kind_that_is_not_text_is_refused_by_its_content(tmp_path, content, words):
    assert words in error_of(read, write(tmp_path / 'a.txt', content))


def test_places_without_text_are_refused(tmp_path):
    write(tmp_path / 'notes' / 'a.md', '')
    (tmp_path / 'links').mkdir()
    (tmp_path / 'links' / 'a.txt').symlink_to(tmp_path / 'nowhere')
    assert 'no such file or folder' in error_of(find_texts, [tmp_path / 'nowhere'])
    message = error_of(find_texts, [tmp_path / 'notes'])
    assert 'no .txt file' in message and 'it holds a.md' in message
    assert 'leads nowhere' in error_of(find_texts, [tmp_path / 'links'])
    os.mkfifo(tmp_path / 'fifo')
    for place in (tmp_path / 'fifo', '/dev/null'):
        assert 'write the text of a pipe to a file' in error_of(find_texts, [place])


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read all folders')
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    write(tmp_path / 'closed' / 'a.txt', '')
    (tmp_path / 'closed').chmod(0)
    assert 'closed: Permission denied' in error_of(find_texts, [tmp_path])


# ------------------------------------------------------------------------------ reading the files

STORY = 'Once upon a time.\r\n\n A café… 物語 😀\n' * 3 + 'The end'


def jsonl(text, end='\n'):
    lines = [json.dumps({'id': 1, 'text': line}) for line in text.split('\n')]
    return (end.join(lines) + end).encode()


def parquet(text, **options):
    lines = text.split('\n')
    file = io.BytesIO()
    table = pyarrow.table({'id': range(len(lines)), 'text': lines})
    pyarrow.parquet.write_table(table, file, **options)
    return file.getvalue()


def zst(data):
    return pyarrow.Codec('zstd').compress(data, asbytes=True)


SKIPPABLE_FRAME = b'\x50\x2a\x4d\x18\4\0\0\0skip'
KINDS = {
    'a.txt': lambda text: text.encode(),
    'ends.txt': lambda text: text.encode() + b'\n',
    'mark.txt': lambda text: b'\xef\xbb\xbf' + text.encode(),
    'a.TXT.GZ': lambda text: gzip.compress(text.encode()),
    'members.txt.gz': lambda text: (
        gzip.compress(text[:20].encode()) + gzip.compress(text[20:].encode()) + bytes(512)
    ),
    'a.txt.xz': lambda text: lzma.compress(text.encode()),
    'a.txt.zst': lambda text: zst(text.encode()),
    'frames.txt.zst': lambda text: (
        zst(text[:20].encode()) + SKIPPABLE_FRAME + zst(text[20:].encode())
    ),
    'a.jsonl': jsonl,
    'mark.jsonl': lambda text: b'\xef\xbb\xbf' + jsonl(text, '\r\n\n'),
    'a.NDJSON': jsonl,
    'a.json': jsonl,
    'records': lambda text: b'\xef\xbb\xbf' + jsonl(text),
    'c4-train.00000-of-01024.json.gz': lambda text: gzip.compress(jsonl(text)),
    'a.jsonl.gz': lambda text: gzip.compress(jsonl(text)),
    'a.jsonl.xz': lambda text: lzma.compress(jsonl(text)),
    'a.jsonl.zst': lambda text: zst(jsonl(text)),
    'a.parquet': parquet,
    'groups.PARQUET': lambda text: parquet(text, row_group_size=2, use_dictionary=False),
}


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('text', [STORY, 'x', 'word ' * 100_000 + '\nend'])
def test_each_kind_of_file_gives_the_same_blocks(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr(text_files, 'BLOCK', 1000)
    path = write(tmp_path / name, KINDS[name](text))
    blocks = [block.decode() for block in read_blocks(str(path))]
    plain = write(tmp_path / 'plain.txt', text)
    assert blocks == [block.decode() for block in read_blocks(str(plain))]
    assert ''.join(blocks) == text + '\n'


@pytest.mark.parametrize('name', KINDS)
def test_progress_adds_up_to_the_size_of_the_file(tmp_path, name):
    path = write(tmp_path / name, KINDS[name](STORY))
    advances = []
    list(read_blocks(str(path), advances.append))
    assert min(advances) >= 0
    assert 0.9 * path.stat().st_size < sum(advances) <= path.stat().st_size


@pytest.mark.parametrize('name', [name for name in KINDS if '.txt.' in name.lower()])
def test_a_compressed_file_that_is_cut_off_or_damaged_is_an_error(tmp_path, name):
    data = KINDS[name](STORY * 100).rstrip(b'\0')  # without the zeros that fill up a file
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 255
    path = tmp_path / name
    # A file of several parts that ends with one of them is not known to be cut off.
    sizes = {0, 3, len(data) // 3, len(data) - 9, len(data) - 1}
    for content in (*(data[:size] for size in sizes), STORY):
        write(path, content)
        assert f'{path}: its compressed data are cut off, damaged or' in error_of(read, path)
    assert str(path) in error_of(read, write(path, bytes(damaged)))


@pytest.mark.parametrize(
    'lines, message',
    [
        ([b'no json', b'{"text": "cut o', b'[' * 100_000], 'the line is not JSON'),
        ([b'{"text": "caf\xe9"}'], 'not UTF-8'),
        ([b'{"id": 1}', b'{"text": null}', b'["text"]'], 'a string named "text"'),
    ],
)
def test_a_bad_line_of_json_is_named(tmp_path, lines, message):
    for line in lines:
        content = b'{"text": "one"}\n\n' + line + b'\n{"text": "two"}\n'
        path = write(tmp_path / 'a.jsonl', content)
        found = error_of(read, path)
        assert f'{path}, line 3: ' in found and message in found


def test_a_line_of_json_has_a_greatest_length(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, 'LONGEST_RECORD', 100)
    path = write(tmp_path / 'a.jsonl', json.dumps({'text': 'x' * 100}))
    assert 'line 1: the line is not JSON' in error_of(read, path)


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    path = write(tmp_path / 'a.jsonl', r'{"text": "a\ud83d\ude00 b\ud83d c"}')
    assert read(path) == 'a😀 b� c\n'


@ON_LINUX
def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b'na\xefve.parquet')
    assert read(write(path, parquet(STORY))) == STORY + '\n'


def test_bad_parquet_files_are_refused(tmp_path):
    path = tmp_path / 'a.parquet'
    data = parquet(STORY)
    for damaged in (b'', b'text', data[:-10], data[: len(data) // 2]):
        write(path, damaged)
        assert 'as a Parquet file' in error_of(read, path)
    for columns, message in (
        ({'body': ['a']}, 'no column "text"; its columns: body'),
        ({'text': [1]}, 'row 1: expected a string in the column "text", found int'),
        ({'text': ['a'] * 99 + [None]}, 'row 100: expected a string in the column "text", found n'),
        ({'text': [['a']]}, 'found list'),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        assert message in error_of(read, path)
    for kind in (pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())):
        column = pyarrow.array(['a', 'a']).cast(kind)
        pyarrow.parquet.write_table(pyarrow.table({'id': [1, 2], 'text': column}), path)
        assert read(path) == 'a\na\n'


@pytest.mark.parametrize('name', ['a.txt.zst', 'a.jsonl.zst', 'a.parquet'])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    assert f'{name}: to read this, pip install pyarrow' in error_of(
        read, write(tmp_path / name, 'x')
    )


# ------------------------------------------------------------------------------------------ blocks

LINES = st.lists(st.text(st.sampled_from('aé€😀 .\t\r'), max_size=40), max_size=12).map('\n'.join)


@settings(max_examples=150, deadline=None)
@given(text=LINES, block=st.integers(4, 40))
@example(text='aa aa\n\n aa aaaaaaaaaaaaaaaa \n', block=4)
@example(text='aaaaaaaaaaaaaaaa 😀😀😀😀😀😀😀😀😀', block=4)
def test_blocks_together_are_the_file(tmp_path_factory, text, block):
    path = write(tmp_path_factory.getbasetemp() / 'blocks.txt', text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, 'BLOCK', block)
        blocks = list(read_blocks(str(path)))
    newline = '' if not text or text.endswith('\n') else '\n'
    assert ''.join(block.decode() for block in blocks) == text + newline
    assert all(0 < len(b.data) <= block + 3 for b in blocks)
    starts = [b.start for b in blocks]
    assert starts == [sum(len(b.data) for b in blocks[:i]) for i in range(len(blocks))]


@pytest.mark.parametrize(
    'text, blocks',
    [
        ('ab\ncd\nefgh\n', ['ab\ncd\n', 'efgh\n']),  # after the last newline
        ('ab cd efghijklm\n', ['ab cd', ' efghijk', 'lm\n']),  # before the last space
        ('éééé😀😀\n', ['éééé', '😀😀', '\n']),
        ('aéééééé\n', ['aéééé', 'éé\n']),  # between two characters
    ],
)
def test_where_a_text_is_cut(tmp_path, monkeypatch, text, blocks):
    monkeypatch.setattr(text_files, 'BLOCK', 8)
    path = write(tmp_path / 'a.txt', text)
    assert [block.decode() for block in read_blocks(str(path))] == blocks


@pytest.mark.parametrize(
    'data, problem',
    [
        (b'caf\xe9\n', 'byte 3: '),
        (b'\xef\xbb\xbfcaf\xe9\n', 'byte 3: '),
        (b'\x80' * (2 << 20), 'byte 0: '),
        (b'a' * (2 << 20) + b'\xff', 'byte 2,097,152: '),
    ],
)
def test_text_that_is_not_utf8_is_an_error(tmp_path, data, problem):
    path = write(tmp_path / 'a.txt', data)
    assert f'{path} is not UTF-8 text ({problem}' in error_of(read, path)


def test_a_file_without_text_has_no_blocks(tmp_path):
    compress = {'.txt': bytes, '.gz': gzip.compress, '.xz': lzma.compress, '.zst': zst}
    for name in ('a.txt', 'a.txt.gz', 'a.txt.xz', 'a.txt.zst', 'a.jsonl.gz'):
        path = tmp_path / name
        assert list(read_blocks(str(write(path, compress[path.suffix](b''))))) == []
