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
from small_files import error_of, put

from gpt1.text import text_files
from gpt1.text.text_files import TextFile, find_texts, read_blocks


def write(path, content):
    put(path.parent, {path.name: content})
    return path


def blocks_of(path):
    return list(read_blocks(str(path)))


def read(path):
    return ''.join(blocks_of(path))


STORY = 'Once upon a time.\r\n\n A café… 物語 😀\n' * 3 + 'The end'


def jsonl(text, end='\n'):
    lines = [json.dumps({'id': 1, 'text': line}) for line in text.split('\n')]
    return (end.join(lines) + end).encode()


def parquet(text, **options):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({'text': text.split('\n')}), file, **options)
    return file.getvalue()


def zst(data):
    return pyarrow.Codec('zstd').compress(data, asbytes=True)


def names_of(folder):
    texts, notes = find_texts([folder])
    return [text.name for text in texts], notes


def test_a_folder_is_read_in_the_order_of_names_and_other_kinds_of_files_are_named(tmp_path):
    c4 = 'c4-train.00000-of-01024.json.gz'
    texts = ['b.txt', 'a/z.TXT', 'c.jsonl', 'B.Txt.Gz', 'a.parquet', 'd.txt.zst', 'e.jsonl.xz']
    put(tmp_path, dict.fromkeys(texts, ''))
    put(tmp_path, {'b.json': jsonl('one'), c4: gzip.compress(jsonl('one'))})
    texts = sorted([*texts, 'b.json', c4])
    assert names_of(tmp_path) == (texts, [])
    put(tmp_path, dict.fromkeys(('b.md', 'c/d.pdf', 'txt', 'z.md'), ''))
    put(tmp_path, {'info.json': '{"license": "cc"}'})  # records with a text are read, no others
    os.mkfifo(tmp_path / 'pipe.txt')
    found, [note] = names_of(tmp_path)
    assert found == texts
    assert note.endswith('not read: b.md, c/d.pdf, info.json, pipe.txt, txt and 1 more')


def test_symbolic_links_are_followed_and_each_file_is_read_once(tmp_path):
    books = tmp_path / 'books'
    put(tmp_path, {'books/a/one.txt': 'one', 'elsewhere/two.txt': 'two', 'three.txt': 'three'})
    (books / 'linked').symlink_to(tmp_path / 'elsewhere')
    (books / 'again').symlink_to(tmp_path / 'elsewhere')
    (books / 'a' / 'loop').symlink_to(books)
    (books / 'three.txt').symlink_to(tmp_path / 'three.txt')
    (books / 'three-again.txt').symlink_to(tmp_path / 'three.txt')
    assert names_of(books) == (['a/one.txt', 'again/two.txt', 'three-again.txt'], [])


def test_a_kind_that_is_not_text_is_refused_by_name(tmp_path):
    kinds = {'a.csv a.tsv.gz': 'a table', 'a.HTML a.xml.zst': 'plain text', 'a.tar.gz': 'unpack it'}
    for names, words in kinds.items():
        for name in names.split():
            assert words in error_of(find_texts, [write(tmp_path / name, 'text')])
    path = write(tmp_path / 'book', 'text')  # any other name may be given
    assert find_texts([path])[0] == [TextFile('book', str(path))]


@pytest.mark.parametrize(
    'content, words',
    [
        ('<!DOCTYPE html>\n<p>Hello.', 'extract the plain text'),
        ('\ufeff<?xml version="1.0"?>\n<page/>', 'extract the plain text'),
        ('[{"text": "one"}]', 'extract the plain text'),
        ('{"content": "one"}\n', 'a string named "text"'),
        ('book/a.txt\0\0000644\0text', 'UTF-16 or an archive'),
        ('text'.encode('utf-16-le'), 'UTF-16 or an archive'),
        ('version https://git-lfs.github.com/spec/v1\noid sha256:ab\n', 'is a Git LFS pointer'),
        (b'caf\xe9\n', 'is not UTF-8 text (near byte 3: '),
        (b'\xef\xbb\xbfcaf\xe9\n', 'is not UTF-8 text (near byte 3: '),
        (b'a' * (2 << 20) + b'\xff', 'is not UTF-8 text (near byte 2,097,152: '),
    ],
)
def test_a_kind_that_is_not_text_is_refused_by_its_content(tmp_path, content, words):
    assert words in error_of(read, write(tmp_path / 'a.txt', content))


def test_places_without_text_are_refused(tmp_path):
    put(tmp_path, {'notes/a.md': ''})
    (tmp_path / 'links').mkdir()
    (tmp_path / 'links' / 'a.txt').symlink_to(tmp_path / 'nowhere')
    assert 'no such file or folder' in error_of(find_texts, [tmp_path / 'nowhere'])
    message = error_of(find_texts, [tmp_path / 'notes'])
    assert 'no .txt file' in message and 'it holds a.md' in message
    assert 'leads nowhere' in error_of(find_texts, [tmp_path / 'links'])
    assert 'a pipe or a device' in error_of(find_texts, ['/dev/null'])
    if os.geteuid():  # root may read all folders
        (tmp_path / 'notes').chmod(0)
        assert 'notes: Permission denied' in error_of(find_texts, [tmp_path])


def halves(compress):
    return lambda text: compress(text[:20].encode()) + compress(text[20:].encode())


SKIPPABLE_FRAME = b'\x50\x2a\x4d\x18\4\0\0\0skip'
KINDS = {
    'a.txt': str.encode,
    'mark.txt': lambda text: b'\xef\xbb\xbf' + text.encode(),
    'members.TXT.GZ': lambda text: halves(gzip.compress)(text) + bytes(512),
    'a.txt.xz': lambda text: lzma.compress(text.encode()),
    'frames.txt.zst': lambda text: SKIPPABLE_FRAME + halves(zst)(text),
    'mark.jsonl': lambda text: b'\xef\xbb\xbf' + jsonl(text, '\r\n\n'),
    'a.NDJSON': jsonl,
    'records': lambda text: b'\xef\xbb\xbf' + jsonl(text),
    'c4-train.00000-of-01024.json.gz': lambda text: gzip.compress(jsonl(text)),
    'a.jsonl.zst': lambda text: zst(jsonl(text)),
    'groups.PARQUET': lambda text: parquet(text, row_group_size=2, use_dictionary=False),
}


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('text', [STORY, 'x', 'word ' * 100_000 + '\nend'])
def test_each_kind_of_file_gives_the_same_blocks(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr(text_files, 'BLOCK', 1000)
    blocks = blocks_of(write(tmp_path / name, KINDS[name](text)))
    assert blocks == blocks_of(write(tmp_path / 'plain.txt', text))
    assert ''.join(blocks) == text + '\n'


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


def test_a_bad_line_of_json_is_named(tmp_path):
    for line, message in {
        b'{"text": "cut o': 'the line is not JSON',
        b'[' * 100_000: 'the line is not JSON',
        b'{"text": "caf\xe9"}': "can't decode",
        b'{"id": 1}': 'a string named "text"',
        b'{"text": null}': 'a string named "text"',
    }.items():
        content = b'{"text": "one"}\n\n' + line + b'\n{"text": "two"}\n'
        path = write(tmp_path / 'a.jsonl', content)
        found = error_of(read, path)
        assert f'{path}, line 3: ' in found and message in found


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    path = write(tmp_path / 'a.jsonl', r'{"text": "a\ud83d\ude00 b\ud83d c"}')
    assert read(path) == 'a😀 b? c\n'


def test_parquet_files_of_other_kinds(tmp_path):
    path = tmp_path / 'a.parquet'
    data = parquet(STORY)
    for damaged in (b'', b'text', data[:-10], data[: len(data) // 2]):
        write(path, damaged)
        assert 'as a Parquet file' in error_of(read, path)
    for columns, message in (
        ({'body': ['a']}, 'no column "text"; its columns: body'),
        ({'text': [1]}, 'holds other things than strings'),
        ({'text': ['a'] * 99 + [None]}, 'holds other things than strings'),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        assert message in error_of(read, path)
    for kind in (pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), pyarrow.string())):
        column = pyarrow.array(['a', 'a']).cast(kind)
        pyarrow.parquet.write_table(pyarrow.table({'id': [1, 2], 'text': column}), path)
        assert read(path) == 'a\na\n'
    if sys.platform == 'linux':  # where a name need not be UTF-8
        path = tmp_path / os.fsdecode(b'na\xefve.parquet')
        assert read(write(path, parquet(STORY))) == STORY + '\n'


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    for name in ('a.txt.zst', 'a.parquet'):
        path = write(tmp_path / name, 'x')
        assert f'{path}: to read it, pip install pyarrow' in error_of(read, path)


@pytest.mark.parametrize(
    'text, blocks',
    [
        ('', []),
        ('ab\r\ncd\nefgh', ['ab\r\ncd\n', 'efgh\n']),  # after the last newline
        ('ab cd efghijklm\n', ['ab cd', ' efghijk', 'lm\n']),  # before the last space
        ('éééééé😀😀😀\n', ['éééééé😀😀', '😀\n']),  # between two characters
    ],
)
def test_where_a_text_is_cut(tmp_path, monkeypatch, text, blocks):
    monkeypatch.setattr(text_files, 'BLOCK', 8)
    assert blocks_of(write(tmp_path / 'a.txt', text)) == blocks
