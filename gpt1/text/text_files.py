"""Find the files of a text, and read them as blocks of about a megabyte, in bounded memory.

A file whose name does not tell is known by its first line: records of JSON are read, whatever they
are called; markup, tables, archives and Git LFS pointers are refused, not trained on.
"""

import codecs
import contextlib
import gzip
import io
import itertools
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from utils import InputError, check_not_pointer

JSON_LINES = ('.json', '.jsonl', '.ndjson')
MARKUP = 'markup would be learned as text; extract the plain text first'
NOT_TEXT = {
    **dict.fromkeys(('.csv', '.tsv'), 'a table; write the texts of one column to .txt or .jsonl'),
    **dict.fromkeys(('.html', '.htm', '.xhtml', '.xml', '.rtf', '.ipynb'), MARKUP),
    **dict.fromkeys(('.tar', '.zip', '.tgz', '.7z', '.bz2'), 'an archive; unpack it first'),
}
MARKUP_START = re.compile(rb'<(!doctype|\?xml|html|head|mediawiki|doc)\b|\{\\rtf|\[\{\x22', re.I)
BLOCK = 1 << 20  # characters of a block, at most
LONGEST_LINE = 1 << 27  # bytes of a line of JSON; a longer one is refused


def import_pyarrow(path: str):
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f'{path}: to read it, pip install pyarrow') from error
    return pyarrow


def open_zstd(path: str, mode: str) -> BinaryIO:
    # Unlike the package zstandard, it reads all frames, and notices where a file is cut off.
    stream = import_pyarrow(path).CompressedInputStream(open(path, mode), 'zstd')  # noqa: SIM115
    return io.BufferedReader(stream, BLOCK)


OPENERS = {'.gz': gzip.open, '.xz': lzma.open, '.zst': open_zstd}


class TextFile(NamedTuple):
    name: str  # recorded with the result; does not depend on where the folder is
    path: str  # to open, and for messages


def find_texts(places: Iterable[str]) -> tuple[list[TextFile], list[str]]:
    """List the text files among and below `places`, which are files and folders.

    In a folder, the endings of the names tell what is text. A file that is given by its own name
    may have any. Returns the texts, and a line for each folder with files that are not read.
    Raises InputError if a place does not exist or has no text file.
    """
    texts, notes = [], []
    for place in map(str, places):
        if os.path.isdir(place):
            found, others = list_folder(place)
            texts += found
            if others:
                notes.append(f'{place}: other kinds of files are not read: {shorten(others)}')
            continue
        reason = NOT_TEXT.get(kind_of(place))
        if not os.path.exists(place):
            raise InputError(f'--text {place}: no such file or folder')
        if not os.path.isfile(place):
            reason = 'a pipe or a device; write its text to a file, since it is read twice'
        if reason:
            raise InputError(f'--text {place}: this kind of file is not read: {reason}')
        texts.append(TextFile(os.path.basename(place), place))
    return texts, notes


def kind_of(path: str) -> str:
    """The ending of a name in lower case; of a compressed file, the one before."""
    root, suffix = os.path.splitext(path.lower())
    return os.path.splitext(root)[1] if suffix in OPENERS else suffix


def list_folder(folder: str) -> tuple[list[TextFile], list[str]]:
    """List the text files below a folder by name, each once, and the names of all other files."""

    def fail(error):
        raise InputError(f'cannot read {error.filename}: {error.strerror}') from error

    texts, others, seen = {}, [], set()
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders.sort()
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for path in (os.path.join(parent, file) for file in sorted(files)):
            name = os.path.relpath(path, folder)
            if is_text(path):
                texts.setdefault(os.path.realpath(path), TextFile(name, path))
            else:
                others.append(name)
    if not texts:
        kinds = 'no .txt file in this folder, and no .jsonl, .ndjson, .parquet'
        found = f'; it holds {shorten(others)}' if others else ''
        raise InputError(f'--text {folder}: {kinds}{found}')
    return sorted(texts.values()), sorted(others)


def is_text(path: str) -> bool:
    """Whether a file in a folder is a text. A .json file is one if it holds records."""
    kind = kind_of(path)
    if kind not in ('.txt', *JSON_LINES) and not path.lower().endswith('.parquet'):
        return False
    if not os.path.exists(path):
        raise InputError(f'cannot read {path}: the symbolic link leads nowhere')
    if kind != '.json' or not os.path.isfile(path):
        return os.path.isfile(path)
    with open_text(path) as f:
        record = read_record(f.readline(LONGEST_LINE).removeprefix(codecs.BOM_UTF8))
    return record is not None and isinstance(record.get('text'), str)


def shorten(names: list[str]) -> str:
    shown = ', '.join(names[:5])
    return shown if len(names) <= 5 else f'{shown} and {len(names) - 5:,} more'


def read_pieces(path: str) -> Iterator[str]:
    """Yield the text of a file in pieces of any size.

    In JSON Lines and .parquet files, a newline follows each text. A file of another name holds JSON
    Lines if its first line is a JSON object. Raises InputError.
    """
    if path.lower().endswith('.parquet'):
        yield from parquet_texts(path)
        return
    with open_text(path) as f:
        first = f.readline(LONGEST_LINE).removeprefix(codecs.BOM_UTF8)
        is_json = kind_of(path) in JSON_LINES
        if not is_json:
            check_plain(first, path)
            is_json = read_record(first) is not None
        if is_json:
            lines = itertools.chain([first], iter(lambda: f.readline(LONGEST_LINE), b''))
            yield from (json_text(line, path, i) for i, line in enumerate(lines, 1))
        else:
            yield from decode(itertools.chain([first], iter(lambda: f.read(BLOCK), b'')), path)


def decode(chunks: Iterable[bytes], path: str) -> Iterator[str]:
    decoder, n_before = codecs.getincrementaldecoder('utf-8')(), 0
    try:
        for chunk in chunks:
            yield decoder.decode(chunk)
            n_before += len(chunk)
        yield decoder.decode(b'', final=True)
    except UnicodeDecodeError as error:
        where = f'near byte {n_before + error.start:,}: {error.reason}'
        raise InputError(f'{path} is not UTF-8 text ({where}); save it again as UTF-8') from error


@contextlib.contextmanager
def open_text(path: str) -> Iterator[BinaryIO]:
    """Open a file, decompressed. Within, errors of reading it become an InputError."""
    check_not_pointer(path)
    opener = OPENERS.get(os.path.splitext(path)[1].lower(), open)
    try:
        if opener is not open and not os.path.getsize(path):
            raise EOFError('an empty file')
        with opener(path, 'rb') as f:
            yield f
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        damage = f'its compressed data are cut off, damaged or of another kind ({error})'
        reason = getattr(error, 'strerror', None) or damage
        raise InputError(f'cannot read {path}: {reason}') from error


def check_plain(first: bytes, path: str) -> None:
    """Raise InputError if the first line of a file is not that of a plain text."""
    if b'\0' in first[:1024] or first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        reason = 'it is not UTF-8 but UTF-16 or an archive; save it again as UTF-8'
        raise InputError(f'{path} is not plain text: {reason}')
    if MARKUP_START.match(first.lstrip()):
        raise InputError(f'{path} is not plain text: {MARKUP}')


def read_record(line: bytes) -> dict | None:
    try:
        return json.loads(line) if line.startswith(b'{') else None
    except (ValueError, RecursionError):
        return None


def json_text(line: bytes, path: str, number: int) -> str:
    """Return the field `text` of a line of JSON and a newline; nothing for a blank line."""
    if not line.strip():
        return ''
    where = f'{path}, line {number:,}'
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where}: the line is not JSON ({error})') from error
    text = record.get('text') if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(f'{where}: expected a JSON object with a string named "text"')
    return whole_characters(text)


def parquet_texts(path: str) -> Iterator[str]:
    """Yield the column `text` of a Parquet file. Memory holds a page of it, about a megabyte."""
    check_not_pointer(path)
    pyarrow = import_pyarrow(path)
    try:
        # These options make it read the pages of a column one after another. By its name, it opens
        # a file only if that is UTF-8.
        options = {'pre_buffer': False, 'buffer_size': BLOCK}
        with open(path, 'rb') as raw, pyarrow.parquet.ParquetFile(raw, **options) as f:
            names = f.schema_arrow.names
            if 'text' not in names:
                raise InputError(f'{path} has no column "text"; its columns: {shorten(names)}')
            for batch in f.iter_batches(64, columns=['text'], use_threads=False):
                texts = batch.column(0).to_pylist()
                if not all(isinstance(text, str) for text in texts):
                    raise InputError(f'{path}: the column "text" holds other things than strings')
                yield ''.join(map(whole_characters, texts))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read {path} as a Parquet file ({error})') from error


def whole_characters(text: str) -> str:
    """Return a text and a newline. Half of a surrogate pair, which JSON can hold, becomes `?`."""
    return f'{text}\n'.encode(errors='replace').decode()


def read_blocks(path: str) -> Iterator[str]:
    """Cut the text of a file into blocks: whole lines; a longer one is cut before a space.

    If no newline ends the last line, one is added. The cuts depend on the text alone, not on how
    the file is stored. Raises InputError.
    """
    pending = ''
    for piece in read_pieces(path):
        pending += piece
        while len(pending) > BLOCK:
            newline, space = pending.rfind('\n', 0, BLOCK), pending.rfind(' ', 1, BLOCK)
            end = newline + 1 or (space if space > 0 else BLOCK)
            yield pending[:end]
            pending = pending[end:]
    if pending:
        yield pending if pending.endswith('\n') else f'{pending}\n'
