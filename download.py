"""Fetch OpenAI's weights, and the data sets of the paper.

    python download.py                       # the weights and the vocabulary, into model/
    python download.py cola rte mrpc         # data sets, into data/

A download that was interrupted is resumed. Every file is checked: nothing wrong or incomplete ever
has a file's final name.
"""

import contextlib
import functools
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)  # Python leaves it out with PYTHONSAFEPATH

import startup  # noqa: F401 (before the import of any library)

import numpy as np
import requests
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from options import Parser, number
from utils import InputError, check_writable, exit_status, whole_file

# ------------------------------------------------------------------------------------------------
# What can be fetched


class Remote(NamedTuple):
    """A file at an address.

    digest  'sha256:' or 'blob:' and hexadecimal digits. 'blob' is the id that git gives a file:
            the SHA-1 of b'blob <size>\\0' and the content
    size    in bytes; None if it is not known
    """

    url: str
    digest: str
    size: int | None = None

    @property
    def name(self) -> str:
        return os.path.basename(self.url)


class DataSet(NamedTuple):
    """A data set: its folder in data/, the files to fetch, and terms of use to be accepted.

    An archive contains the folder; other files are put into it.
    """

    folder: str
    files: tuple[Remote, ...]
    terms: str = ''


WEIGHTS_URL = 'https://raw.githubusercontent.com/openai/finetune-transformer-lm/master/model/'
WEIGHTS = {  # name -> git's blob id
    'encoder_bpe_40000.json': '9dc3f0af5a80956e57dc8d9401e16dfadcade7c2',
    'vocab_40000.bpe': '0023a687b3d4d0b795a5e97cc914bdabb5a253df',
    'params_shapes.json': '29fac299ae848d7e447be84a33345edcf1b5353c',
    'params_0.npy': '84d83ac1f1cc878f56f33b167482c184491875d2',
    'params_1.npy': '0f19f4d4cda3d8f908e3faffd2cb2a8b9a4039da',
    'params_2.npy': '25bc19c72fdff69505a828ec6d73b32063532148',
    'params_3.npy': '5b2e6958d42a930966c9d602a012eb846ca67c83',
    'params_4.npy': '87ad158987e307e6aa64952610f466d750b73bc7',
    'params_5.npy': '74f3853316bba327229605dbedfe921996f11448',
    'params_6.npy': '5ef44e40bc076d0c9686d1273d54cbc16c3f0980',
    'params_7.npy': 'd8d5c8d3bee9b20a677605ac1fe6c7af4df57c94',
    'params_8.npy': 'f980f4b393716f396ae5ae6401708dcf4f270dc9',
    'params_9.npy': 'd389eb2074dd74754444b8062aba78b49f6a9053',
}
WEIGHTS_SIZE = 467_415_000  # bytes of all files, about
HUGGINGFACE = 'openai-community/openai-gpt'
HUGGINGFACE_FILES = ('config.json', 'vocab.json', 'merges.txt', 'model.safetensors')

GLUE = 'https://dl.fbaipublicfiles.com/glue/data/'
SENTEVAL = 'https://dl.fbaipublicfiles.com/senteval/senteval_data/'
DPRD = 'https://s3.amazonaws.com/datasets.huggingface.co/definite_pronoun_resolution/'


def _sha256(url: str, size: int, digits: str) -> Remote:
    return Remote(url, f'sha256:{digits}', size)


# Sizes and SHA-256 as recorded in huggingface/datasets (dataset_infos.json).
# QNLI is version 2, the only one that is still offered; the paper used version 1.
# fmt: off
DATA_SETS = {
    'snli': DataSet('snli_1.0', (
        _sha256('https://nlp.stanford.edu/projects/snli/snli_1.0.zip', 94_550_081,
                'afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e'),
    )),
    'mnli': DataSet('MNLI', (
        _sha256(f'{GLUE}MNLI.zip', 312_783_507,
                'e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633'),
        _sha256(f'{GLUE}AX.tsv', 222_257,  # the diagnostic set of GLUE
                '0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd'),
    )),
    'qnli': DataSet('QNLI', (
        _sha256(f'{GLUE}QNLIv2.zip', 10_627_589,
                'e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5'),
    )),
    'scitail': DataSet('SciTailV1.1', (
        _sha256('http://data.allenai.org.s3.amazonaws.com/downloads/SciTailV1.1.zip', 14_174_621,
                '3fccd37350a94ca280b75998568df85fc2fc62843a3198d644fcbf858e6943d5'),
    )),
    'rte': DataSet('RTE', (
        _sha256(f'{GLUE}RTE.zip', 697_150,
                '6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee'),
    )),
    'race': DataSet('RACE', (
        _sha256('http://www.cs.cmu.edu/~glai1/data/race/RACE.tar.gz', 25_443_609,
                'b2769cc9fdc5c546a693300eb9a966cec6870bd349fbc44ed5225f8ad33006e5'),
    ), terms='http://www.cs.cmu.edu/~glai1/data/race/ (for research only; there is a form)'),
    'qqp': DataSet('QQP', (
        _sha256(f'{GLUE}QQP-clean.zip', 41_696_084,
                '40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0'),
    )),
    'mrpc': DataSet('MRPC', (
        _sha256(f'{SENTEVAL}msr_paraphrase_train.txt', 1_047_044,
                '60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89'),
        _sha256(f'{SENTEVAL}msr_paraphrase_test.txt', 441_275,
                'a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784'),
        _sha256(f'{GLUE}mrpc_dev_ids.tsv', 6_222,
                '971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7'),
    )),
    'stsb': DataSet('STS-B', (
        _sha256(f'{GLUE}STS-B.zip', 802_872,
                'e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85'),
    )),
    'cola': DataSet('CoLA', (
        _sha256(f'{GLUE}CoLA.zip', 376_971,
                'f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff'),
    )),
    'sst2': DataSet('SST-2', (
        _sha256(f'{GLUE}SST-2.zip', 7_439_277,
                'd67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa'),
    )),
    'wnli': DataSet('WNLI', (
        _sha256(f'{GLUE}WNLI.zip', 28_999,
                'ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46'),
    )),
    'dprd': DataSet('DPRD', (  # pronouns, for the zero-shot experiment of the paper
        _sha256(f'{DPRD}train.c.txt', 160_408,
                'c310158d0cbac1a556e3284e6c167f4478271d8d50b0b9d15dfe428c905a0867'),
        _sha256(f'{DPRD}test.c.txt', 67_044,
                'cf1cf025e1d59a5b363e6dcfbd5a13aae8a9830831ac16fd7f865aca7a1559d8'),
    )),
}
# fmt: on
BY_REQUEST = {'rocstories': 'https://cs.rochester.edu/nlp/rocstories/'}

MAX_SIZE = 1 << 26  # bytes of a file whose size is not known; the largest piece has 47 MB
CHUNK = 1 << 14  # bytes written at a time

# Limits for what an archive unpacks to. Text shrinks to a tenth at the best.
MAX_RATIO = 50
MAX_UNPACKED = 8 << 30  # bytes
MAX_MEMBERS = 100_000


# ------------------------------------------------------------------------------------------------
# One file


def blob_id(content: bytes) -> str:
    """The id that git gives a file with this content."""
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


def hash_file(path: str, kind: str) -> str:
    """The hash of a file in hexadecimal digits; `kind` is 'sha256' or 'blob', see `Remote`."""
    if kind == 'blob':
        digest = hashlib.sha1(b'blob %d\0' % os.path.getsize(path))
    else:
        digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_right(path: str, remote: Remote) -> bool:
    """Whether the file at `path` is the published one."""
    if remote.size is not None and os.path.getsize(path) != remote.size:
        return False
    kind, _, digits = remote.digest.partition(':')
    return hash_file(path, kind) == digits


def is_there(path: str, remote: Remote) -> bool:
    """Whether the file was fetched already. Raises InputError if another file is at its place."""
    if not os.path.exists(path):
        return False
    if not is_right(path, remote):
        raise InputError(
            f'{path} exists, but is not the published file ({remote.digest}); move it away, or '
            'choose another folder'
        )
    return True


def _file_size(path: str) -> int:
    """The size of a file; 0 if there is none."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def _reason(error: requests.RequestException) -> str:
    """What failed, in a few words, from the nested message of an exception of requests."""
    if error.response is not None:
        return f'the server answers {error.response.status_code} {error.response.reason}'
    return re.sub('[()"]', '', str(error).split(': ')[-1])[:150]


@dataclass
class Client:
    """Fetches files.

    retry    how often to try again, and the pauses between. It counts the failures in a row that
             brought nothing new
    timeout  seconds to wait for a connection, and for the next bytes
    """

    session: requests.Session
    retry: Retry
    timeout: float

    def fetch(self, remote: Remote, path: str, hint: str) -> bool:
        """Fetch a file to `path`, unless it is there. Returns whether it was fetched.

        hint  what else the user can do, for the error message

        What arrives is kept in `path`.part until it is complete. Raises InputError.
        """
        if is_there(path, remote):
            return False
        part = f'{path}.part'
        for _ in range(2):  # once more from the start if what an earlier run left was wrong
            self._receive_all(remote, part, hint)
            if is_right(part, remote):
                break
            os.unlink(part)
        else:
            raise InputError(
                f'{remote.url} is not the published file: expected {remote.digest}; {hint}'
            )
        with open(part, 'rb') as f:
            os.fsync(f.fileno())
        os.replace(part, path)
        return True

    def _receive_all(self, remote: Remote, part: str, hint: str) -> None:
        """Append what `part` lacks of a file to it. Tries again where that makes sense."""
        left = self.retry
        with _progress_bar(remote.name) as bar:
            while True:
                size_before = _file_size(part)
                try:
                    return self._receive(remote, part, bar)
                except requests.RequestException as error:
                    if not self._may_pass(error):
                        raise InputError(
                            f'cannot fetch {remote.url}: {_reason(error)}; {hint}'
                        ) from error
                    if _file_size(part) > size_before:
                        left = self.retry
                    try:
                        left = left.increment('GET', remote.url, error=error)
                    except MaxRetryError:
                        raise InputError(
                            f'cannot fetch {remote.url}: {_reason(error)}; run the same command '
                            f'again to resume, or {hint}'
                        ) from error
                    left.sleep()

    def _receive(self, remote: Remote, part: str, bar: tqdm) -> None:
        """The same in one request. Raises requests.RequestException if the connection fails."""
        start = _file_size(part)
        headers = {'Accept-Encoding': 'identity'}
        if start:
            headers['Range'] = f'bytes={start}-'
        with self.session.get(
            remote.url, headers=headers, stream=True, timeout=self.timeout
        ) as response:
            if response.status_code == 416 and start:
                return  # there is nothing after `start`
            response.raise_for_status()
            sent_range = response.headers.get('Content-Range', '')
            if response.status_code != 206 or not sent_range.startswith(f'bytes {start}-'):
                start = 0  # the server sends the whole file
            end = start + int(response.headers.get('Content-Length', 0))
            bar.reset(total=end)
            bar.update(start)
            with open(part, 'r+b' if start else 'wb') as f:
                f.seek(start)
                for chunk in response.iter_content(CHUNK):
                    f.write(chunk)
                    f.flush()  # what has arrived stays, whatever happens
                    bar.update(len(chunk))
                    if f.tell() > (remote.size or MAX_SIZE):
                        return  # this is another file
                if f.tell() < end:
                    raise requests.ConnectionError('the connection was cut')

    def _may_pass(self, error: requests.RequestException) -> bool:
        """Whether the same request may succeed later."""
        if error.response is not None:
            return self.retry.is_retry('GET', error.response.status_code)
        return not isinstance(error, (requests.TooManyRedirects, ValueError))


def _progress_bar(name: str) -> tqdm:
    return tqdm(
        desc=name,
        unit='B',
        unit_scale=True,
        unit_divisor=1024,
        dynamic_ncols=True,
        leave=False,
        disable=None,  # only on a terminal
    )


# ------------------------------------------------------------------------------------------------
# Weights


def fetch_weights(client: Client, args: Namespace) -> None:
    """Fetch OpenAI's 13 files from `args.source` into `args.model_dir`. Raises InputError."""
    os.makedirs(args.model_dir, exist_ok=True)
    base = (args.url or WEIGHTS_URL).rstrip('/')
    remotes = {name: Remote(f'{base}/{name}', f'blob:{id}') for name, id in WEIGHTS.items()}
    paths = {name: os.path.join(args.model_dir, name) for name in WEIGHTS}
    different = []
    if args.source == 'github':
        for name, remote in remotes.items():
            client.fetch(remote, paths[name], 'try --source huggingface')
    else:
        missing = [name for name in WEIGHTS if not is_there(paths[name], remotes[name])]
        if missing:
            different = convert_huggingface(fetch_huggingface(client.timeout), args.model_dir)
    print(f'weights: {len(WEIGHTS)} files in {args.model_dir}')
    if different:
        print(
            'note: the vocabulary and all shapes are right, but these files are not byte for byte '
            f'those that OpenAI published: {", ".join(different)}'
        )
        print(f'note: SHA-256 of all numbers in their order: {hash_numbers(args.model_dir)}')


def fetch_huggingface(timeout: float) -> str:
    """Fetch the model from Hugging Face. Returns its folder, in the cache of `huggingface_hub`.

    The environment variable HF_ENDPOINT names another server. Raises InputError.
    """
    from huggingface_hub import constants, hf_hub_download

    endpoint = os.environ.get('HF_ENDPOINT', constants.ENDPOINT).rstrip('/')
    try:
        paths = [
            hf_hub_download(HUGGINGFACE, name, endpoint=endpoint, token=False, etag_timeout=timeout)
            for name in HUGGINGFACE_FILES
        ]
    except Exception as error:  # of many kinds: the library also passes on those of others
        reason = ' '.join(str(error.__cause__ or error).split())[:200]
        raise InputError(
            f'cannot fetch {HUGGINGFACE} from {endpoint}: {reason}; run the same command again to '
            'resume, name a mirror in the environment variable HF_ENDPOINT, or try --source github'
        ) from error
    return os.path.dirname(paths[0])


def convert_huggingface(folder: str, model_dir: str) -> list[str]:
    """Write the model in a Hugging Face folder as the files that OpenAI published.

    Returns the names of the pieces that are not byte for byte OpenAI's. Raises InputError if the
    vocabulary or a shape is not OpenAI's.
    """
    from huggingface import HuggingFaceWeights
    from vocabulary import read_vocabulary_of

    symbols, merges = read_vocabulary_of(folder)
    # In OpenAI's file the symbols stand in the order of their ids, but <unk>, 0, is the last.
    symbols = dict(sorted(symbols.items(), key=lambda item: (item[1] == 0, item[1])))
    merges = ''.join(f'{left} {right}\n' for left, right in sorted(merges, key=merges.get))
    weights = HuggingFaceWeights(folder)
    arrays = list(weights.read(0, 2 + 12 * weights.n_layer))
    texts = {
        'encoder_bpe_40000.json': json.dumps(symbols).encode(),
        'vocab_40000.bpe': f'#version: 0.2\n{merges}'.encode(),
        'params_shapes.json': json.dumps([array.shape for array in arrays]).encode(),
    }
    for name, content in texts.items():
        if blob_id(content) != WEIGHTS[name]:
            raise InputError(
                f"{folder} is not OpenAI's model: its {name} would not be the published file"
            )
    different = []
    for name, content in make_pieces(arrays):
        if blob_id(content) != WEIGHTS[name]:
            different.append(name)
        _write(os.path.join(model_dir, name), content)
    for name, content in texts.items():
        _write(os.path.join(model_dir, name), content)
    return different


def _write(path: str, content: bytes) -> None:
    with whole_file(path, 'wb') as f:
        f.write(content)


def make_pieces(arrays: list[np.ndarray]) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of the ten .npy files with all numbers of `arrays`, float32.

    NumPy pads the header of a file to a multiple of 64 bytes, and before its version 1.14 (2018) to
    16. A piece has the header with which it is OpenAI's, or today's if it is not with either.
    """
    floats = np.concatenate([array.ravel() for array in arrays])
    for i, piece in enumerate(np.array_split(floats, 10)):
        name = f'params_{i}.npy'
        content = npy_file(piece, 64)
        old = npy_file(piece, 16)
        yield name, old if blob_id(old) == WEIGHTS[name] else content


def npy_file(floats: np.ndarray, align: int) -> bytes:
    """The .npy file of a flat float32 array, with its header padded to a multiple of `align`."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(floats)},), }}"
    magic = b'\x93NUMPY\x01\x00'
    padding = -(len(magic) + 2 + len(header) + 1) % align
    header += ' ' * padding + '\n'
    return magic + struct.pack('<H', len(header)) + header.encode() + floats.tobytes()


def hash_numbers(model_dir: str) -> str:
    """The SHA-256 of the numbers in the ten pieces, in their order: headers do not count."""
    digest = hashlib.sha256()
    for i in range(10):
        digest.update(np.load(os.path.join(model_dir, f'params_{i}.npy'), mmap_mode='r'))
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------
# Data sets


def fetch_data_set(client: Client, name: str, data_dir: str) -> None:
    """Fetch a data set into its folder, which appears complete or not at all. Raises InputError."""
    data_set = DATA_SETS[name]
    folder = os.path.join(data_dir, data_set.folder)
    if os.path.exists(folder):
        print(f'{name}: {folder} exists; nothing was fetched')
        return
    os.makedirs(data_dir, exist_ok=True)
    fetched = []
    for remote in data_set.files:
        path = os.path.join(data_dir, remote.name)
        if client.fetch(remote, path, f'get it in another way and put it at {path}'):
            fetched.append(path)
    unfinished = f'{folder}.part'
    shutil.rmtree(unfinished, ignore_errors=True)
    os.mkdir(unfinished)
    for remote in data_set.files:
        path = os.path.join(data_dir, remote.name)
        if remote.name.endswith(ARCHIVES):
            unpack(path, data_set.folder, unfinished)
        else:
            shutil.copyfile(path, os.path.join(unfinished, remote.name))
    if name == 'mrpc':
        split_mrpc(unfinished)
    os.rename(unfinished, folder)
    for path in fetched:
        os.unlink(path)
    print(f'{name}: {folder}')


ARCHIVES = ('.zip', '.tar.gz')


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    is_file: bool  # false for a link or a device
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def open_archive(path: str) -> Iterator[Iterator[Member]]:
    """A context with the members of a .zip or .tar.gz archive, without its folders."""
    if path.endswith('.zip'):
        with zipfile.ZipFile(path) as archive:
            yield (
                Member(
                    entry.filename,
                    entry.file_size,
                    stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG),
                    functools.partial(archive.open, entry),
                )
                for entry in archive.infolist()
                if not entry.is_dir()
            )
    else:
        with tarfile.open(path, 'r:gz') as archive:
            yield (
                Member(
                    entry.name,
                    entry.size,
                    entry.isreg(),
                    functools.partial(archive.extractfile, entry),
                )
                for entry in archive
                if not entry.isdir()
            )


def unpack(path: str, folder: str, target: str) -> None:
    """Unpack what lies in `folder` of an archive into the folder `target`.

    Raises InputError if the archive is damaged, or has a link, a path that leaves it, or much more
    content than an archive of text of its size.
    """
    limit = min(MAX_RATIO * os.path.getsize(path), MAX_UNPACKED)
    unpacked = 0
    n_members = 0
    try:
        with open_archive(path) as members:
            for member in members:
                n_members += 1
                unpacked += member.size
                if unpacked > limit or n_members > MAX_MEMBERS:
                    raise InputError(
                        f'{path} would unpack to more than {limit:,} bytes or {MAX_MEMBERS:,} '
                        'files: it is not the data set'
                    )
                parts = split_path(member.name)
                if parts is None or not member.is_file:
                    raise InputError(
                        f'{path}: {member.name[:80]!r} is a link, or lies outside the archive; '
                        'nothing was unpacked'
                    )
                if parts[0] != folder or is_leftover(parts):
                    continue
                place = os.path.join(target, *parts[1:])
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with member.open() as source, open(place, 'xb') as f:
                    shutil.copyfileobj(source, f, 1 << 20)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f'{path} is damaged ({error}); delete it and fetch it again') from error
    if not os.listdir(target):
        raise InputError(f'{path} has no folder {folder}')


def split_path(name: str) -> list[str] | None:
    """The parts of a path in an archive; None if it may lead to a place outside."""
    parts = [part for part in name.split('/') if part not in ('', '.')]
    unsafe = name.startswith('/') or '..' in parts or '\\' in name or ':' in name or '\0' in name
    return None if unsafe or not parts else parts


def is_leftover(parts: list[str]) -> bool:
    """Whether a path is one of the files that macOS adds to archives."""
    return any(part.startswith('.') or part in ('__MACOSX', 'Icon\r') for part in parts)


def split_mrpc(folder: str) -> None:
    """Write train.tsv, dev.tsv and test.tsv of MRPC from the source files, as GLUE's script does.

    The byte order mark at the beginning of the source is kept in train.tsv and dev.tsv.
    """
    with open(os.path.join(folder, 'mrpc_dev_ids.tsv'), encoding='utf-8') as f:
        dev_ids = {tuple(line.split()) for line in f}
    header, *rows = _mrpc_rows(folder, 'msr_paraphrase_train.txt')
    splits = {
        'train.tsv': [header] + [row for row in rows if tuple(row[1:3]) not in dev_ids],
        'dev.tsv': [header] + [row for row in rows if tuple(row[1:3]) in dev_ids],
    }
    header, *rows = _mrpc_rows(folder, 'msr_paraphrase_test.txt')
    test = [[str(i), *row[1:]] for i, row in enumerate(rows)]
    splits['test.tsv'] = [['index', *header[1:]], *test]
    for name, rows in splits.items():
        with open(os.path.join(folder, name), 'w', encoding='utf-8', newline='') as f:
            f.writelines('\t'.join(row) + '\n' for row in rows)


def _mrpc_rows(folder: str, name: str) -> Iterator[list[str]]:
    """The rows of a source file: label, two ids and two sentences."""
    path = os.path.join(folder, name)
    with open(path, encoding='utf-8') as f:
        for n, line in enumerate(f, 1):
            row = line.strip().split('\t')
            if len(row) != 5:
                raise InputError(f'{path}, row {n}: {len(row)} fields, expected 5')
            yield row


# ------------------------------------------------------------------------------------------------
# Command line


def parse_args(argv: list[str] | None = None) -> Namespace:
    parser = Parser(
        prog='download.py',
        usage='python download.py [NAME ...] [options]',
        description=__doc__,
        epilog=describe_names(),
    )
    parser.add_argument(
        'names', nargs='*', metavar='NAME', help='what to fetch, see below (default: weights)'
    )
    parser.add_argument(
        '--source',
        choices=('github', 'huggingface'),
        default='github',
        help="of the weights: OpenAI's files on GitHub, or the model on Hugging Face, converted. "
        'The environment variable HF_ENDPOINT names a mirror of Hugging Face',
    )
    parser.add_argument('--model_dir', default='model/', help='folder for the weights')
    parser.add_argument('--data_dir', default='data/', help='folder for the data sets')
    parser.add_argument(
        '--accept_terms', action='store_true', help='say that you accept the terms of use of race'
    )
    parser.add_argument(
        '--url',
        help='address of a copy of the folder model/ of openai/finetune-transformer-lm '
        '(default: on GitHub)',
    )
    parser.add_argument(
        '--retries',
        type=number(int, 0, 100),
        default=6,
        help='attempts after one that brought nothing; the pauses double',
    )
    parser.add_argument(
        '--timeout',
        type=number(float, 0, 3600, but=[0]),
        default=30,
        help='seconds to wait for the server',
    )
    args = parser.parse_args(argv)
    args.names = args.names or ['weights']
    for name in args.names:
        if name not in ('weights', *DATA_SETS, *BY_REQUEST):
            parser.error(f'{name[:40]}: no such data set')
    return args


def describe_names() -> str:
    """What can be fetched, for --help."""
    sizes = {name: sum(file.size for file in row.files) for name, row in DATA_SETS.items()}
    lines = ['NAME can be:', '']
    for name, size in {'weights': WEIGHTS_SIZE, **sizes}.items():
        lines.append(f'  {name:<12}{size / 1e6:>7.2f} MB')
    lines += ['', *(f'  {name:<12}by request: {url}' for name, url in BY_REQUEST.items())]
    return '\n'.join(lines)


def check_terms(names: Iterable[str], accepted: bool) -> None:
    """Raise InputError if a data set cannot be fetched without the user's consent, or at all."""
    for name in names:
        if name in BY_REQUEST:
            raise InputError(
                f'{name} is sent by its authors on request: fill in the form at '
                f'{BY_REQUEST[name]} and put its two CSV files into data/'
            )
        if name in DATA_SETS and DATA_SETS[name].terms and not accepted:
            raise InputError(
                f'{name} has terms of use: {DATA_SETS[name].terms}; read them there, and give '
                '--accept_terms if you accept them'
            )


def run(args: Namespace) -> None:
    """Fetch what is not there yet. Raises InputError."""
    check_terms(args.names, args.accept_terms)
    retry = Retry(
        total=args.retries, backoff_factor=0.5, status_forcelist=[429, 500, 502, 503, 504]
    )
    with requests.Session() as session:
        client = Client(session, retry, args.timeout)
        for name in args.names:
            folder = args.model_dir if name == 'weights' else args.data_dir
            check_writable(folder)
            try:
                if name == 'weights':
                    fetch_weights(client, args)
                else:
                    fetch_data_set(client, name, args.data_dir)
            except OSError as error:
                raise InputError(f'cannot write to {folder}: {error.strerror or error}') from error


def main(argv: list[str] | None = None) -> int:
    return exit_status('download.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
