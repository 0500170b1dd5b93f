"""Find the files of a text, and read them as blocks of about a megabyte.

    find_texts      lists the files among and below the given places
    pipes_on_disk   makes what comes through a pipe readable more than once
    read_blocks     reads one file: plain text, compressed text, JSON Lines or Parquet

A file whose name does not tell is known by its first line: records of JSON are read, whatever they
are called; markup, tables, archives and Git LFS pointers are refused, not trained on.

Memory does not grow with the size of the files.
"""

import codecs
import contextlib
import functools
import gzip
import hashlib
import io
import itertools
import json
import lzma
import os
import re
import shutil
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from utils import InputError, check_not_pointer, write_error

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
BLOCK = 1 << 20  # bytes of text in a block
LONGEST_LINE = 1 << 16  # bytes; a block may end within a longer line
LONGEST_RECORD = 1 << 27  # bytes of a line of a .jsonl file
ONE_OBJECT = 'each line should be a JSON object with a string named "text"'


# -------------------------------------------------------------------------------- finding the files


class Text(NamedTuple):
    """A file of text."""

    name: str  # recorded with the result; does not depend on where the folder is
    path: str  # the file to open
    shown: str  # what messages call it


def find_texts(places: Iterable[str]) -> tuple[list[Text], list[str]]:
    """List the text files among and below `places`, which are files, folders and pipes.

    In a folder, the files whose names end in one of `SUFFIXES` (in upper or lower case) are text.
    They are sorted by name. Symbolic links are followed. A file that is given by its own name and
    ends differently is plain text, or records of JSON; see `read_chunks`.

    Returns the texts, and one-line notes on the files that are not read. Raises InputError if a
    place does not exist or has no text file.
    """
    texts, notes = [], []
    for place in map(str, places):
        if not os.path.exists(place):
            raise InputError(f'--text {place}: no such file or folder')
        mode = os.stat(place).st_mode
        if stat.S_ISDIR(mode):
            found, others = list_folder(place)
            texts += [Text(name, path, path) for name, path in found]
            if others:
                notes.append(f'{place}: other kinds of files are not read: {shorten(others)}')
        elif stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
            name = 'pipe' if is_pipe(place) else os.path.basename(place)
            reason = NOT_TEXT.get(os.path.splitext(plain_name(name))[1])
            if reason:
                raise InputError(f'--text {place}: this kind of file is not read: {reason}')
            texts.append(Text(name, place, place))
        else:
            raise InputError(f'--text {place}: expected a file, a folder or a pipe')
    return texts, notes


def plain_name(name: str) -> str:
    """Return a name in lower case, without the ending of a compressed file."""
    root, suffix = os.path.splitext(name.lower())
    return root if suffix in COMPRESSIONS else root + suffix


def list_folder(folder: str) -> tuple[list[tuple[str, str]], list[str]]:
    """List the text files below a folder as (name, path), and the names of all other files.

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
        for file in sorted(files):
            path = os.path.join(parent, file)
            name = os.path.relpath(path, folder)
            is_text = file.lower().endswith(SUFFIXES)
            if is_text and not os.path.exists(path):
                raise InputError(f'cannot read {path}: the symbolic link leads nowhere')
            if file.lower().endswith(MAYBE_SUFFIXES) and os.path.isfile(path):
                with open_text(path, path) as (_, f):
                    record = read_record(f.readline(LONGEST_RECORD)) or {}
                is_text = isinstance(record.get('text'), str)
            if not is_text or not os.path.isfile(path):
                others.append(name)
            elif is_new(path):
                texts.append((name, path))
    if not texts:
        message = f'--text {folder}: no .txt file in this folder, and no other kind that is read'
        message += f' ({", ".join(SUFFIXES[1:])})'
        if others:
            message += f'; it holds {shorten(others)}'
        raise InputError(message)
    return sorted(texts), sorted(others)


def shorten(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    shown = ', '.join(names[:5])
    return shown if len(names) <= 5 else f'{shown} and {len(names) - 5:,} more'


def is_pipe(path: str) -> bool:
    """Whether a file may be readable only once, as `<(command)` and /dev/stdin are."""
    is_descriptor = os.path.abspath(path).startswith(('/dev/fd/', '/dev/stdin', '/proc/'))
    return is_descriptor or stat.S_ISFIFO(os.stat(path).st_mode)


@contextlib.contextmanager
def pipes_on_disk(texts: list[Text], work: str) -> Iterator[list[Text]]:
    """Copy the text of pipes to files in the folder `work`, and delete these at the end.

    Yields the texts with the paths to read them from. Raises InputError and WriteError.
    """
    with contextlib.ExitStack() as stack:
        readable = []
        for i, text in enumerate(texts):
            if is_pipe(text.path):
                # A killed run leaves the copy behind. `utils.remove_leftovers` knows such names.
                copy = os.path.join(work, f'.pipe{i}.{os.getpid()}.part')
                stack.callback(remove_if_there, copy)
                copy_pipe(text.path, copy)
                text = text._replace(path=copy)
            readable.append(text)
        yield readable


def copy_pipe(path: str, copy: str) -> None:
    try:
        source = open(path, 'rb')  # noqa: SIM115
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    with source:
        try:
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            with open(copy, 'wb') as f:
                shutil.copyfileobj(source, f, BLOCK)
        except OSError as error:
            raise write_error(copy, error) from error


def remove_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def file_hash(path: str, kind: str = 'blake2b') -> list:
    """The size of a file in bytes, and the hash of its content. Raises InputError.

    kind  'blake2b', or 'sha256', which some processors compute much faster
    """
    try:
        with open(path, 'rb') as f:
            digest = hashlib.file_digest(f, kind).hexdigest()
            return [os.path.getsize(path), digest]
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error


# -------------------------------------------------------------------------------- reading the files


class DamagedFile(Exception):
    """A compressed file is damaged, or of another kind."""


def read_chunks(text: Text) -> Iterator[tuple[bytes, int]]:
    """Yield the text of a file in pieces of any size, as UTF-8.

    Each piece comes with the number of bytes of the file that have been read. In JSON Lines and
    .parquet files, a newline follows each text. A file of another name holds JSON Lines if its
    first line is a JSON object. Raises InputError.
    """
    name = text.shown.lower()
    if name.endswith('.parquet'):
        check_not_pointer(text.path)
        yield from parquet_texts(text)
        return
    with open_text(text.path, text.shown) as (raw, f):
        first = b''
        is_json = plain_name(name).endswith(('.json', *JSON_LINES))
        if not is_json:
            first = f.readline(BLOCK)
            check_plain(first, text.shown)
            if first.startswith((b'{', codecs.BOM_UTF8 + b'{')) and not first.endswith(b'\n'):
                first += f.readline(LONGEST_RECORD)  # of a long record
            is_json = read_record(first) is not None
        if is_json:
            chunks = json_texts(f, text.shown, first)
        else:
            chunks = itertools.chain([first], iter(lambda: f.read(BLOCK), b''))
        for chunk in chunks:
            yield chunk, raw.tell()


@contextlib.contextmanager
def open_text(path: str, shown: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file as (raw, decompressed). Within, errors of reading it become an InputError."""
    check_not_pointer(path)
    try:
        with open(path, 'rb') as raw, decompress(raw, shown) as f:
            yield raw, f
    except EOFError as error:
        raise InputError(
            f'{shown} is cut off: its compressed data end too early; copy it again'
        ) from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, DamagedFile) as error:
        raise InputError(
            f'cannot decompress {shown}: it is damaged or of another kind ({error})'
        ) from error
    except OSError as error:
        raise InputError(f'cannot read {shown}: {error.strerror or error}') from error


def check_plain(first: bytes, shown: str) -> None:
    """Raise InputError if the first line of a file is not that of a plain text."""
    if b'\0' in first[:1024]:
        raise InputError(
            f'{shown} is not UTF-8 text (it is UTF-16 or an archive); save it again as UTF-8'
        )
    if MARKUP_START.match(first.removeprefix(codecs.BOM_UTF8).lstrip()):
        raise InputError(f'{shown} is not plain text: {MARKUP}')


def read_record(line: bytes) -> dict | None:
    """Return the JSON object that a line holds, or None."""
    if not line.startswith((b'{', codecs.BOM_UTF8 + b'{')):
        return None
    try:
        return json.loads(line.decode('utf-8-sig'))
    except (ValueError, RecursionError):
        return None


def decompress(raw: BinaryIO, name: str) -> BinaryIO:
    """Open the compressed file `raw`; its name says how. Raises EOFError if it is empty."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in COMPRESSIONS:
        return raw
    if not os.fstat(raw.fileno()).st_size:
        raise EOFError
    if suffix == '.gz':
        return gzip.open(raw)
    if suffix == '.xz':
        return lzma.open(raw)
    return io.BufferedReader(ZstdReader(raw, name), BLOCK)


class ZstdReader(io.RawIOBase):
    """Reads a file of zstd frames.

    The reader of the package zstandard takes the end of a file that is cut off for the end of the
    text. This one raises EOFError. It raises DamagedFile if the file is damaged.
    """

    def __init__(self, raw: BinaryIO, name: str):
        self.raw = raw
        self.new_frame, self.error = zstd_decompressor(name)
        self.frame = None  # decompressor of the current frame
        self.compressed = b''
        self.output = b''

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.output:
            # Data can grow to 32,000 times their size, so a little is decompressed at a time.
            compressed = self.compressed or self.raw.read(1 << 10)
            if not compressed and self.frame:
                raise EOFError
            if not compressed:
                return 0
            self.frame = self.frame or self.new_frame()
            try:
                self.output = memoryview(self.frame.decompress(compressed))
            except self.error as error:
                raise DamagedFile(error) from error
            self.compressed = b''
            if self.frame.eof:
                self.compressed = self.frame.unused_data
                self.frame = None
        n = min(len(buffer), len(self.output))
        buffer[:n] = self.output[:n]
        self.output = self.output[n:]
        return n


def zstd_decompressor(name: str) -> tuple[Callable, type[Exception]]:
    """A function that makes a decompressor of one zstd frame, and the error that this raises.

    Frames with windows of up to 2 GiB are allowed (`zstd --long=31`).
    """
    try:
        from compression import zstd  # Python 3.14

        options = {zstd.DecompressionParameter.window_log_max: 31}
        return functools.partial(zstd.ZstdDecompressor, options=options), zstd.ZstdError
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError as error:
        raise InputError(f'{name}: to read this, pip install zstandard') from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    return decompressor.decompressobj, zstandard.ZstdError


def json_texts(f: BinaryIO, shown: str, first: bytes = b'') -> Iterator[bytes]:
    """Yield the field `text` of each line of a JSON Lines file that is not blank.

    first  the first line, if it has been read
    """
    lines = iter(lambda: f.readline(LONGEST_RECORD), b'')
    if first:
        lines = itertools.chain([first], lines)
    for number, line in enumerate(lines, 1):
        place = f'{shown}, line {number:,}'
        if len(line) == LONGEST_RECORD:
            raise InputError(f'{place}: the line has more than {LONGEST_RECORD:,} bytes')
        if line.isspace():
            continue
        try:
            record = json.loads(line.decode('utf-8-sig'))
        except UnicodeDecodeError as error:
            raise InputError(f'{place}: the line is not UTF-8 text') from error
        except (ValueError, RecursionError) as error:
            raise InputError(f'{place}: the line is not JSON ({error}); {ONE_OBJECT}') from error
        text = record.get('text') if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise InputError(f'{place}: {ONE_OBJECT}')
        yield to_utf8(text)


def parquet_texts(text: Text) -> Iterator[tuple[bytes, int]]:
    """Yield the column `text` of a Parquet file, about a block at a time; see `read_chunks`.

    Memory holds one page of the column. A page has about a megabyte, unless single texts are large.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f'{text.shown}: to read this, pip install pyarrow') from error
    n_read = 0
    try:
        size = os.path.getsize(text.path)
        # These two options make it read the pages of a column one after another. By its name, it
        # opens a file only if that is UTF-8.
        options = {'pre_buffer': False, 'buffer_size': BLOCK}
        with open(text.path, 'rb') as raw, parquet.ParquetFile(raw, **options) as f:
            check_column(f, text.shown)
            for batch in f.iter_batches(rows_per_block(f), columns=['text'], use_threads=False):
                values = batch.column(0).to_pylist()
                if None in values:
                    row = n_read + values.index(None) + 1
                    raise InputError(f'{text.shown}, row {row:,}: there is no text (null)')
                n_read += len(values)
                yield b''.join(map(to_utf8, values)), size * n_read // f.metadata.num_rows
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read {text.shown} as a Parquet file ({error})') from error


def check_column(f, shown: str) -> None:
    """Raise InputError if a Parquet file has no column of strings named `text`."""
    from pyarrow import types

    names = f.schema_arrow.names
    if 'text' not in names:
        raise InputError(f'{shown} has no column "text"; its columns: {shorten(names)}')
    kind = f.schema_arrow.field('text').type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise InputError(f'{shown}: the column "text" has type {kind}, expected strings')


def rows_per_block(f) -> int:
    """How many rows of the column `text` of a Parquet file make about a block."""
    n_bytes = 0
    for i in range(f.metadata.num_row_groups):
        group = f.metadata.row_group(i)
        columns = [group.column(j) for j in range(group.num_columns)]
        n_bytes += sum(c.total_uncompressed_size for c in columns if c.path_in_schema == 'text')
    return max(1, BLOCK * f.metadata.num_rows // max(n_bytes, BLOCK))


def to_utf8(text: str) -> bytes:
    """A text and a newline, as UTF-8."""
    try:
        return f'{text}\n'.encode()
    except UnicodeEncodeError:
        # JSON can hold half of a surrogate pair, UTF-8 cannot. U+FFFD replaces it.
        text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
        return f'{text}\n'.encode()


# ------------------------------------------------------------------------------------------- blocks


class Block(NamedTuple):
    """About a megabyte of the text of a file. It ends with a line, unless that is very long."""

    data: bytes
    shown: str  # the file, for messages
    start: int  # position of `data` in the text of the file, in bytes

    def decode(self) -> str:
        """The text, without the byte order mark that a file may begin with.

        Raises InputError if it is not UTF-8.
        """
        try:
            text = self.data.decode()
        except UnicodeDecodeError as error:
            problem = f'byte {self.start + error.start:,}: {error.reason}'
            if self.start == 0 and self.data.startswith((b'\xff\xfe', b'\xfe\xff')):
                problem = 'it is UTF-16'
            raise InputError(
                f'{self.shown} is not UTF-8 text ({problem}); save it again as UTF-8'
            ) from error
        return text.removeprefix('\ufeff') if self.start == 0 else text


def read_blocks(text: Text, progress: Callable[[int], object] | None = None) -> Iterator[Block]:
    """Cut the text of a file into blocks. If no newline ends the last line, one is added.

    The cuts depend on the text alone, not on how the file is stored. `progress` is called with
    numbers of bytes of the file, as they are read. Raises InputError.
    """
    pending = bytearray()
    start = 0
    n_read_before = 0

    def take():
        nonlocal start
        block = Block(bytes(pending[: find_cut(pending)]), text.shown, start)
        del pending[: len(block.data)]
        start += len(block.data)
        return block

    for chunk, n_read in read_chunks(text):
        if progress:
            progress(n_read - n_read_before)
        n_read_before = n_read
        pending += chunk
        while len(pending) >= BLOCK + LONGEST_LINE:  # all that `find_cut` looks at
            yield take()
    if pending and not pending.endswith(b'\n'):
        pending += b'\n'
    while pending:
        yield take()


def find_cut(data: bytearray) -> int:
    """The first place from `BLOCK` on where a text may be cut.

    This is after a newline; in a very long line, after a space; else between two characters.
    """
    if len(data) <= BLOCK:
        return len(data)
    window = data[BLOCK - 1 : BLOCK - 1 + LONGEST_LINE]
    newline = window.find(b'\n')
    if newline >= 0:
        return BLOCK + newline
    space = re.search(rb' (?=\S)', window)
    if space:
        return BLOCK + space.start()
    first_byte = re.search(rb'[^\x80-\xbf]', window[1:])
    return BLOCK + first_byte.start() if first_byte else BLOCK
