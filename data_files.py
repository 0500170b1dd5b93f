"""Text files of data sets: lines, CSV and JSON. Nothing here knows of tasks.

Every reader raises InputError with the file and the line or row.
"""

import contextlib
import csv
import io
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import IO

from utils import InputError

csv.field_size_limit(2**31 - 1)  # Python's default refuses fields of more than 131,072 characters


@contextlib.contextmanager
def open_text(path: str, newline: str) -> Iterator[IO[str]]:
    """Open a UTF-8 file, or UTF-16 with its mark. Raises InputError, also while it is read."""
    try:
        with open(path, 'rb') as binary:
            start = binary.peek(2)[:2]
            encoding = 'utf-16' if start in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
            with io.TextIOWrapper(binary, encoding, newline=newline) as text:
                yield text
    except UnicodeError as error:
        line = _undecodable_line(path)
        where = f'{path}, line {line}' if line else path
        raise InputError(f'{where}: not UTF-8 text; save the file again as UTF-8') from error
    except OSError as error:
        raise InputError(f'cannot read {path}: {error.strerror or error}') from error
    except ValueError as error:  # a NUL in the path
        raise InputError(f'cannot read {path!r}: {error}') from error


def _undecodable_line(path: str) -> int | None:
    """Number of the first line that is not UTF-8; None if that cannot be said (a pipe, UTF-16)."""
    if not os.path.isfile(path):
        return None
    with open(path, 'rb') as f:
        for number, line in enumerate(f, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file, without blank lines.

    Lines end with LF or CR LF only: texts may hold the other line breaks of Unicode.
    Raises InputError.
    """
    with open_text(path, newline='\n') as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip('\r\n')
            if line and not line.isspace():
                yield number, line


def read_csv(path: str, notes: list[str] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number from 1, cells) of a CSV file; the first one is the header.

    The separator is a comma, a semicolon or a tab, whichever the header has, or what a first line
    `sep=;` says. Rows of empty cells are left out. Fields with line breaks are counted in `notes`.
    Raises InputError, also if a quotation mark that is not closed joins several rows.
    """
    number, n_broken = 0, 0
    with open_text(path, newline='') as f:
        try:
            first = next(f, '')
            said = re.fullmatch(r'sep=(.)\s*', first)
            while first and (said is not None and number == 0 or not first.strip()):
                number += 1
                first = next(f, '')
            separator = said[1] if said else max(',;\t', key=first.count)
            reader = csv.reader(itertools.chain([first], f), delimiter=separator, strict=True)
            n_lines = 0
            for cells in reader:
                number += 1
                if reader.line_num - n_lines > 1:
                    _check_line_breaks(f'{path}, row {number}', cells, separator)
                    n_broken += 1
                n_lines = reader.line_num
                if any(cell and not cell.isspace() for cell in cells):
                    yield number, cells
        except csv.Error as error:
            raise InputError(
                f'{path}, row {number + 1}: a quotation mark is not closed, or not at the end of '
                f'its field ({error}); write "" for a quotation mark within a quoted field'
            ) from error
    if notes is not None and n_broken:
        notes.append(f'{path}: {n_broken:,} rows hold line breaks within a quoted field')


def _check_line_breaks(where: str, cells: list[str], separator: str) -> None:
    """Raise InputError if a field looks like several rows, between two stray quotation marks.

    If the second mark is in column k of a later row, the last line of the field has k separators.
    Three or more in a line of text are very unlikely.
    """
    for column, cell in enumerate(cells):
        for line in cell.splitlines()[1:]:
            if line.count(separator) >= max(column, 3):
                raise InputError(
                    f'{where}, column {column + 1}: the field holds whole rows; '
                    'a quotation mark before them is not closed'
                )


def parse_json(text: str, path: str, number: int | None = None) -> dict:
    """A JSON object. `number` is the line of the file, for messages."""
    try:
        record = json.loads(text)
        if '\\u' in text:  # there may be halves of surrogate pairs, which UTF-8 cannot write
            plain = json.dumps(record, ensure_ascii=False).encode('utf-16', 'surrogatepass')
            record = json.loads(plain.decode('utf-16', 'replace'))
    except (ValueError, RecursionError) as error:
        raise InputError(f'{_where(path, number)}: not JSON ({str(error)[:80]})') from error
    if not isinstance(record, dict):
        raise InputError(f'{_where(path, number)}: expected a JSON object')
    return record


def _where(path: str, number: int | None) -> str:
    return path if number is None else f'{path}, line {number}'


def json_text(value, where: str, key: str) -> str:
    """The value of `key` in a JSON object, if it is a string. Raises InputError."""
    if not isinstance(value, str):
        raise InputError(f'{where}: {key} is missing or not a string')
    return value


def whole_number(word: str) -> str:
    """'1.0', as pandas and Excel write whole numbers in a column with gaps, to '1'."""
    match = re.fullmatch(r'(-?[0-9]+)\.0+', word)
    return match[1] if match else word


def parse_number(word: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(word.replace('_', 'x'))  # Python reads 1_000 as a number
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check_folder(data_dir: str) -> None:
    """Raise InputError if there is no such folder."""
    if not os.path.isdir(data_dir):
        raise InputError(f'no such folder: {data_dir} (--data_dir names the folder of the data)')


def list_folder(folder: str) -> list[str]:
    """Names in a folder, sorted, without hidden ones (macOS leaves some in archives)."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError as error:
        raise InputError(f'cannot read {folder}: {error.strerror}') from error


def first_file(folder: str, names: Iterable[str]) -> str | None:
    """Path of the first of some files that is in a folder; None if none is."""
    paths = (os.path.join(folder, name) for name in names)
    return next(filter(os.path.isfile, paths), None)


def quoted(names: Iterable[str]) -> str:
    """Names in quotation marks, as messages list them."""
    return ', '.join(f'"{name}"' for name in names)


def cells_under(where: str, cells: list[str], header: list[str]) -> list[str]:
    """The cells under a header. Raises InputError for cells beyond it that are not empty."""
    n = len(header)
    if any(cell.strip() for cell in cells[n:]):
        raise InputError(f'{where}: {len(cells)} columns, expected {n}')
    return cells[:n] + [''] * (n - len(cells))
