"""Text files of data sets: lines, CSV and JSON, and the one reader of rows with named columns.

Nothing here knows of tasks. Every reader raises InputError with the file and the line or row.
"""

import contextlib
import csv
import io
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
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
        raise InputError(f'{path}: not UTF-8 text; save the file again as UTF-8') from error
    except (OSError, ValueError) as error:  # the latter: a NUL in the path
        reason = getattr(error, 'strerror', None) or error
        raise InputError(f'cannot read {path}: {reason}') from error


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text file, without blank lines.

    Lines end with LF or CR LF only: texts may hold the other line breaks of Unicode.
    """
    with open_text(path, newline='\n') as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip('\r\n')
            if line and not line.isspace():
                yield number, line


def read_csv(
    path: str, notes: list[str] | None = None, separator: str | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number from 1, cells) of a CSV file; the first one is the header.

    The separator is a comma, a semicolon or a tab, whichever the header has, or what a first line
    `sep=;` says. Rows of empty cells are left out. Fields with line breaks are counted in `notes`.
    Raises InputError, also if a quotation mark that is not closed joins several rows.
    """
    number, broken = 0, []
    with open_text(path, newline='') as f:
        try:
            first = next(f, '')
            said = re.fullmatch(r'sep=(.)\s*', first)
            while first and (said is not None and number == 0 or not first.strip()):
                number += 1
                first = next(f, '')
            if separator is None:
                separator = said[1] if said else max(',;\t', key=first.count)
            lines = _without_blanks(itertools.chain([first], f), separator)
            reader = csv.reader(lines, delimiter=separator, strict=True)
            n_lines = 0
            for cells in reader:
                number += 1
                if reader.line_num - n_lines > 1:
                    _check_line_breaks(f'{path}, row {number}', cells, separator)
                    broken.append(number)
                n_lines = reader.line_num
                if any(cell and not cell.isspace() for cell in cells):
                    yield number, cells
        except csv.Error as error:
            raise InputError(
                f'{path}, row {number + 1}: a quotation mark is not closed, or not at the end of '
                f'its field ({error}); write "" for a quotation mark within a quoted field'
            ) from error
    if notes is not None and broken:
        notes.append(
            f'{path}: {len(broken):,} rows hold line breaks within a quoted field, '
            f'the first is row {broken[0]}'
        )


def _without_blanks(lines: Iterable[str], separator: str) -> Iterator[str]:
    """Take away blanks before a quotation mark that opens a field, as in `bad, "Long, dull"`."""
    other = rf'[^"\r\n{re.escape(separator)}]'
    opening = re.compile(rf'(^|{re.escape(separator)}) +"(?={other})')
    return (opening.sub(r'\1"', line) if ' "' in line else line for line in lines)


def _check_line_breaks(where: str, cells: list[str], separator: str) -> None:
    """Raise InputError if a field is several rows, between two stray quotation marks.

    If both marks are in column k (from 0) of rows of n cells, the first line of the field has
    n - 1 - k separators, the last one k, and all others n - 1. A separator in running text has a
    blank after it, or is a tab, which is rare there. Cells of a row are rarely empty.
    """
    width = len(cells) - 1
    for column, cell in enumerate(cells):
        lines = re.split('\r\n|\r|\n', cell)
        rows = [width - column, *[width] * (len(lines) - 2), column]
        parts = [part for line in lines for part in line.split(separator)]
        followed = len(re.findall(rf'{re.escape(separator)}\S', cell))
        is_text = separator + ' ' in cell or followed < (1 if separator == '\t' else 3)
        is_text |= any(part == '' or part.isspace() for part in parts)
        if len(lines) > 1 and [line.count(separator) for line in lines] == rows and not is_text:
            raise InputError(
                f'{where}, column {column + 1}: the field holds whole rows; '
                'a quotation mark before them is not closed'
            )


def by_column(
    path: str,
    rows: Iterator[tuple[int, list[str]]],
    word: str = 'row',
    needed: Sequence[str] = (),
    optional: Sequence[str] = (),
    bare: Sequence[str] = (),
    ragged: str = 'fill',
    last: str = '',
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yield (number, cells by column) of the rows below a header.

    rows      (number, cells) of the file; `word` is what messages call a row
    needed    columns that must be there; no row may end before them or the `optional` ones
    bare      the columns of a file without a header: then its first row lacks a needed one
    ragged    rows of another length than the header: 'fill', missing cells are '', those beyond the
              header must be empty; 'accept', they need not be; 'refuse'; 'drop', they are None
    last      a column that is a row's last one, however long the row is, if it is the header's
    """
    first = next(rows, None)
    if first is None:
        raise InputError(f'{path} is empty: expected a header and rows')
    header = [name.strip() for name in first[1]]
    missing = [name for name in needed if name not in header]
    names = [*needed, *optional] if needed else filter(None, header)
    twice = [name for name in names if header.count(name) > 1]
    if missing and bare:
        header = list(bare)
        rows = itertools.chain([first], rows)
    elif missing:
        raise InputError(
            f'{path}, {word} {first[0]}: no column {missing[0]!r}; expected a header with '
            f'{", ".join(needed)}' + (', separated by tabs' if word == 'line' else '')
        )
    elif twice:
        raise InputError(f'{path}, {word} {first[0]}: the column {twice[0]!r} is there twice')
    width = len(header)
    reached = needed if ragged == 'fill' else (*needed, *optional)
    reach = max((header.index(name) + 1 for name in reached if name in header), default=0)
    for number, cells in rows:
        where = f'{path}, {word} {number}'
        plain = [cell.strip(' \ufeff') for cell in cells] if cells[0].endswith(header[0]) else []
        if width > 1 and plain == header:
            raise InputError(
                f'{where}: the header again, as if two files were joined: delete this row'
            )
        if len(cells) != width and ragged == 'drop':
            yield number, None
            continue
        is_rest = ragged == 'fill' and any(cell.strip() for cell in cells[width:])
        if len(cells) != width and (ragged == 'refuse' or len(cells) < reach or is_rest):
            raise InputError(f'{where}: {len(cells)} columns, expected {width}')
        values = dict(zip(header, cells + [''] * (width - len(cells))))
        if ragged == 'accept' and last == header[-1]:
            values[last] = cells[-1]
        yield number, values


def json_records(path: str, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, dict]]:
    for number, line in lines:
        yield number, parse_json(line, f'{path}, line {number}')


def read_tabs(path: str, notes: list[str] | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number from 1, cells) of a tab-separated file of your own.

    A quotation mark is a character, except in a file that is quoted as CSV throughout.
    """
    if _has_csv_quoting(path):
        if notes is not None:
            notes.append(f'{path}: read with the quotation marks of CSV, as pandas writes them')
        return read_csv(path, notes, '\t')
    return ((number, line.split('\t')) for number, line in read_lines(path))


def _has_csv_quoting(path: str) -> bool:
    """Whether all cells are quoted, or not, as pandas or a spreadsheet would write them."""
    with open_text(path, newline='') as f:
        text = f.read().replace('\r\n', '\n').rstrip('\n')
    # What makes pandas and Excel quote a cell, beside a quotation mark
    cells = [
        rf'(?:[^"{special}]*|"(?="|[^"]*?(?:""|[{special}]))[^"]*(?:""[^"]*)*")'
        for special in (r'\t\r\n', r'\t\r\n,')
    ]
    has_marks = re.search(r'(?:^|\t)"', text, re.MULTILINE)
    if not has_marks or not any(re.fullmatch(rf'{c}(?:[\t\n]{c})*', text) for c in cells):
        return False
    widths = {0}  # of the rows; that of an empty line
    try:
        for row in csv.reader(io.StringIO(text, newline=''), delimiter='\t', strict=True):
            _check_line_breaks(path, row, '\t')
            widths.add(len(row))
    except (csv.Error, InputError):
        return False
    return len(widths) == 2


def parse_json(text: str, where: str) -> dict:
    try:
        record = _DECODER.decode(text)
        if '\\u' in text:  # there may be halves of surrogate pairs, which UTF-8 cannot write
            plain = json.dumps(record, ensure_ascii=False).encode('utf-16', 'surrogatepass')
            record = json.loads(plain.decode('utf-16', 'replace'))
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where}: not JSON ({str(error)[:80]})') from error
    if not isinstance(record, dict):
        raise InputError(f'{where}: expected a JSON object')
    return record


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError('a name is there twice')
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct)


def json_text(value, where: str, key: str) -> str:
    if not isinstance(value, str):
        raise InputError(f'{where}: {key} is missing or not a string')
    return value


def refuse(message: str, warnings: list[str] | None = None) -> None:
    """Raise InputError; or add the message to a list of `warnings`, if there is one."""
    if warnings is None:
        raise InputError(message)
    warnings.append(message)


def label_word(value, where: str) -> str:
    """A label as it is written, in its normal form: without superfluous spaces, '1' for '1.0'.

    '' where there is none: null and NaN too. Raises InputError for what is no label.
    """
    if isinstance(value, str) and value.isidentifier() and value.lower() != 'nan':  # the usual case
        return value
    if value is None:
        return ''
    if isinstance(value, (list, dict)) or value in (math.inf, -math.inf):
        label = json.dumps(value)[:40]
        raise InputError(f'{where}: the label is {label}, expected a word or a number')
    word = value if isinstance(value, str) else json.dumps(value)
    word = ' '.join(word.split())
    # pandas and Excel write whole numbers like this in a column with gaps
    match = re.fullmatch(r'(-?[0-9]+)\.0+', word)
    if match:
        return match[1]
    return '' if word.lower() == 'nan' else word


def parse_number(word: str) -> float | None:
    try:
        value = float(word.replace('_', 'x'))  # Python reads 1_000 as a number
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check_folder(data_dir: str) -> None:
    if not os.path.isdir(data_dir):
        raise InputError(f'no such folder: {data_dir} (--data_dir names the folder of the data)')


def list_folder(folder: str) -> list[str]:
    """Names in a folder, sorted, without hidden ones (macOS leaves some in archives)."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError as error:
        raise InputError(f'cannot read {folder}: {error.strerror}') from error


def first_file(folder: str, names: Iterable[str]) -> str | None:
    """Path of the first of some names that is in a folder; None if none is."""
    paths = (os.path.join(folder, name) for name in names)
    return next(filter(os.path.exists, paths), None)


def quoted(names: Iterable[str]) -> str:
    return ', '.join(f'"{name}"' for name in names)
