"""Find the files of a text, and read them as blocks of about a megabyte.

    find_texts      lists the files among and below the given places
    read_blocks     reads one file: plain text, compressed text, JSON Lines or Parquet

A file whose name does not tell is known by its first line: records of JSON are read, whatever they
are called; markup, tables, archives and Git LFS pointers are refused, not trained on.

Memory does not grow with the size of the files.
"""

import codecs
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from utils import InputError, check_not_pointer

COMPRESSIONS = ('.gz', '.xz', '.zst')
JSON_LINES = ('.jsonl', '.ndjson')
SUFFIXES = ('.txt', '.jsonl', '.parquet', '.ndjson') + tuple(
    kind + compression for kind in ('.txt', *JSON_LINES) for compression in COMPRESSIONS
)
# In a folder, these are read if they hold records with a text. Others describe the data.
MAYBE_SUFFIXES = ('.json', *('.json' + compression for compression in COMPRESSIONS))
MARKUP = 'markup would be learned as text; extract the plain text first'
ARCHIVE = 'an archive; unpack it first'
NOT_TEXT = {
    **dict.fromkeys(('.csv', '.tsv'), 'a table; write the texts of one column to .txt or .jsonl'),
    **dict.fromkeys(('.html', '.htm', '.xhtml', '.xml', '.rtf', '.ipynb'), MARKUP),
    **dict.fromkeys(('.tar', '.zip', '.tgz', '.7z', '.bz2'), ARCHIVE),
}
MARKUP_START = re.compile(rb'<(!doctype|\?xml|html|head|mediawiki|doc)\b|\{\\rtf|\[\{\x22', re.I)
ONE_OBJECT = 'each line should be a JSON object with a string named "text"'
# JSON can hold half of a surrogate pair, UTF-8 cannot.
SURROGATE = re.compile('[\ud800-\udfff]')
BLOCK = 1 << 20  # bytes of text in a block, at most (but for three)
LONGEST_RECORD = 1 << 27  # bytes of a line of JSON; a longer one is refused
PARQUET_ROWS = 64  # read at a time; a row may be a book


# -------------------------------------------------------------------------------- finding the files


class TextFile(NamedTuple):
    """A file of text."""

    name: str  # recorded with the result; does not depend on where the folder is
    path: str  # to open, and for messages


def find_texts(places: Iterable[str]) -> tuple[list[TextFile], list[str]]:
    """List the text files among and below `places`, which are files and folders.

    In a folder, the files whose names end in one of `SUFFIXES` (in upper or lower case) are text.
    They are sorted by name. Symbolic links are followed. A file that is given by its own name and
    ends differently is plain text, or records of JSON; see `read_chunks`.

    Returns the texts, and a line for each folder with files that are not read. Raises InputError if
    a place does not exist or has no text file.
    """
    texts, notes = [], []
    for place in map(str, places):
        if not os.path.exists(place):
            raise InputError(f'--text {place}: no such file or folder')
        if os.path.isdir(place):
            found, others = list_folder(place)
            texts += found
            if others:
                notes.append(f'{place}: other kinds of files are not read: {shorten(others)}')
        elif os.path.isfile(place):
            reason = NOT_TEXT.get(os.path.splitext(plain_name(place))[1])
            if reason:
                raise InputError(f'--text {place}: this kind of file is not read: {reason}')
            texts.append(TextFile(os.path.basename(place), place))
        else:
            raise InputError(
                f'--text {place}: expected a file or a folder; write the text of a pipe to a file, '
                'since it is read more than once'
            )
    return texts, notes


def plain_name(name: str) -> str:
    """Return a name in lower case, without the ending of a compressed file."""
    root, suffix = os.path.splitext(name.lower())
    return root if suffix in COMPRESSIONS else root + suffix


def list_folder(folder: str) -> tuple[list[TextFile], list[str]]:
    """List the text files below a folder, and the names of all other files.

    If symbolic links lead to a file or folder in several ways, it is listed once.
    """

    def fail(error):
        raise InputError(f'cannot read {error.filename}: {error.strerror}') from error

    def is_new(path):
        real = os.path.realpath(path)
        n_before = len(seen)
        seen.add(real)
        return len(seen) > n_before

    texts, others = [], []
    seen = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in sorted(folders) if is_new(os.path.join(parent, name))]
        for path in (os.path.join(parent, file) for file in sorted(files)):
            name = os.path.relpath(path, folder)
            if not is_text(path):
                others.append(name)
            elif is_new(path):
                texts.append(TextFile(name, path))
    if not texts:
        message = f'--text {folder}: no .txt file in this folder, and no other kind that is read'
        message += f' ({", ".join(SUFFIXES[1:])})'
        if others:
            message += f'; it holds {shorten(others)}'
        raise InputError(message)
    return sorted(texts), sorted(others)


def is_text(path: str) -> bool:
    """Return whether a file in a folder is a text. Raises InputError."""
    name = path.lower()
    if name.endswith(SUFFIXES) and not os.path.exists(path):
        raise InputError(f'cannot read {path}: the symbolic link leads nowhere')
    if not os.path.isfile(path):
        return False
    if name.endswith(MAYBE_SUFFIXES):
        with open_text(path) as (_, f):
            record = read_record(first_line(f)) or {}
        return isinstance(record.get('text'), str)
    return name.endswith(SUFFIXES)


def shorten(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    shown = ', '.join(names[:5])
    return shown if len(names) <= 5 else f'{shown} and {len(names) - 5:,} more'


def file_hash(path: str) -> list:
    """The size of a file in bytes, and the hash of its content (BLAKE2b). Raises InputError."""
    try:
        with open(path, 'rb') as f:
            digest = hashlib.file_digest(f, 'blake2b').hexdigest()
            return [os.path.getsize(path), digest]
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error


# -------------------------------------------------------------------------------- reading the files


def read_chunks(path: str) -> Iterator[tuple[bytes, int]]:
    """Yield the text of a file in pieces of any size, as UTF-8.

    Each piece comes with the number of bytes of the file that have been read. In JSON Lines and
    .parquet files, a newline follows each text. A file of another name holds JSON Lines if its
    first line is a JSON object. Raises InputError.
    """
    if path.lower().endswith('.parquet'):
        check_not_pointer(path)
        yield from parquet_texts(path)
        return
    with open_text(path) as (raw, f):
        first = first_line(f)
        is_json = plain_name(path).endswith(('.json', *JSON_LINES))
        if not is_json:
            check_plain(first, path)
            is_json = read_record(first) is not None
        if is_json:
            lines = iter(lambda: f.readline(LONGEST_RECORD), b'')
            chunks = json_texts(itertools.chain([first], lines), path)
        else:
            chunks = itertools.chain([first], iter(lambda: f.read(BLOCK), b''))
        for chunk in chunks:
            yield chunk, raw.tell()


@contextlib.contextmanager
def open_text(path: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file as (raw, decompressed). Within, errors of reading it become an InputError."""
    check_not_pointer(path)
    try:
        with open(path, 'rb') as raw, decompress(raw, path) as f:
            yield raw, f
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        reason = getattr(error, 'strerror', None)  # of the system
        if not reason:
            reason = f'its compressed data are cut off, damaged or of another kind ({error})'
        raise InputError(f'cannot read {path}: {reason}') from error


def decompress(raw: BinaryIO, path: str) -> BinaryIO:
    """Open the compressed file `raw`; its name says how. Raises EOFError if it is empty."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in COMPRESSIONS:
        return raw
    if not os.fstat(raw.fileno()).st_size:
        raise EOFError('an empty file')
    if suffix == '.gz':
        return gzip.open(raw)
    if suffix == '.xz':
        return lzma.open(raw)
    # Unlike the package zstandard, it reads all frames, and notices where a file is cut off.
    pyarrow = import_pyarrow(path)
    return io.BufferedReader(pyarrow.CompressedInputStream(raw, 'zstd'), BLOCK)


def import_pyarrow(path: str):
    """Return the package `pyarrow`. Raises InputError if it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f'{path}: to read this, pip install pyarrow') from error
    return pyarrow


def first_line(f: BinaryIO) -> bytes:
    """Read the first line of a file, without the byte order mark of UTF-8."""
    return f.readline(LONGEST_RECORD).removeprefix(codecs.BOM_UTF8)


def check_plain(first: bytes, path: str) -> None:
    """Raise InputError if the first line of a file is not that of a plain text."""
    if b'\0' in first[:1024] or first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(
            f'{path} is not UTF-8 text (it is UTF-16 or an archive); save it again as UTF-8'
        )
    if MARKUP_START.match(first.lstrip()):
        raise InputError(f'{path} is not plain text: {MARKUP}')


def read_record(line: bytes) -> dict | None:
    """Return the JSON object that a line holds, or None."""
    try:
        return json.loads(line) if line.startswith(b'{') else None
    except (ValueError, RecursionError):
        return None


def json_texts(lines: Iterable[bytes], path: str) -> Iterator[bytes]:
    """Yield the field `text` of each line of a JSON Lines file that is not blank."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode('utf-8-sig'))
        except UnicodeDecodeError as error:
            raise InputError(f'{path}, line {number:,}: the line is not UTF-8 text') from error
        except (ValueError, RecursionError) as error:
            raise InputError(
                f'{path}, line {number:,}: the line is not JSON ({error}); {ONE_OBJECT}'
            ) from error
        text = record.get('text') if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise InputError(f'{path}, line {number:,}: {ONE_OBJECT}')
        yield to_utf8(text)


def parquet_texts(path: str) -> Iterator[tuple[bytes, int]]:
    """Yield the column `text` of a Parquet file, some rows at a time; see `read_chunks`.

    Memory holds one page of the column. A page has about a megabyte, unless single texts are large.
    """
    pyarrow = import_pyarrow(path)
    n_read = 0
    try:
        size = os.path.getsize(path)
        # These two options make it read the pages of a column one after another. By its name, it
        # opens a file only if that is UTF-8.
        options = {'pre_buffer': False, 'buffer_size': BLOCK}
        with open(path, 'rb') as raw, pyarrow.parquet.ParquetFile(raw, **options) as f:
            names = f.schema_arrow.names
            if 'text' not in names:
                raise InputError(f'{path} has no column "text"; its columns: {shorten(names)}')
            for batch in f.iter_batches(PARQUET_ROWS, columns=['text'], use_threads=False):
                texts = batch.column(0).to_pylist()
                for row, text in enumerate(texts, n_read + 1):
                    if not isinstance(text, str):
                        found = 'nothing' if text is None else type(text).__name__
                        raise InputError(
                            f'{path}, row {row:,}: expected a string in the column "text", '
                            f'found {found}'
                        )
                n_read += len(texts)
                yield b''.join(map(to_utf8, texts)), size * n_read // f.metadata.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read {path} as a Parquet file ({error})') from error


def to_utf8(text: str) -> bytes:
    """A text and a newline, as UTF-8."""
    return SURROGATE.sub('\ufffd', f'{text}\n').encode()


# ------------------------------------------------------------------------------------------- blocks


class TextBlock(NamedTuple):
    """At most about a megabyte of the text of a file: whole lines, unless one is longer."""

    data: bytes
    path: str  # of the file, for messages
    start: int  # position of `data` in the text of the file, in bytes, without its mark

    def decode(self) -> str:
        """The text. Raises InputError if it is not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f'{self.path} is not UTF-8 text (byte {self.start + error.start:,}: '
                f'{error.reason}); save it again as UTF-8'
            ) from error


def read_blocks(
    path: str, progress: Callable[[int], object] = lambda n_bytes: None
) -> Iterator[TextBlock]:
    """Cut the text of a file into blocks. If no newline ends the last line, one is added.

    The cuts depend on the text alone, not on how the file is stored. `progress` is called with
    numbers of bytes of the file, as they are read. Raises InputError.
    """
    pending = bytearray()
    start = n_read_before = 0

    def take(rest):
        """Yield blocks until no more than `rest` bytes are pending."""
        nonlocal start
        while len(pending) > rest:
            block = TextBlock(bytes(pending[: find_cut(pending)]), path, start)
            del pending[: len(block.data)]
            start += len(block.data)
            yield block

    for chunk, n_read in read_chunks(path):
        progress(n_read - n_read_before)
        n_read_before = n_read
        pending += chunk
        yield from take(BLOCK + 3)  # all that `find_cut` looks at
    if pending and not pending.endswith(b'\n'):
        pending += b'\n'
    yield from take(0)


def find_cut(data: bytearray) -> int:
    """Where a block ends: after the last newline in it; in a longer line, before the last space.

    In a word that is longer than a block, it is between two characters.
    """
    if len(data) <= BLOCK:
        return len(data)
    newline = data.rfind(b'\n', 0, BLOCK)
    if newline >= 0:
        return newline + 1
    space = data.rfind(b' ', 1, BLOCK)
    if space >= 0:
        return space
    first_bytes = (i for i in range(BLOCK, len(data)) if data[i] & 0xC0 != 0x80)
    return next(first_bytes, BLOCK)
