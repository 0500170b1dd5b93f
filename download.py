"""Fetch OpenAI's weights, and the data sets of the paper.

    python download.py                       # the weights and the vocabulary, into model/
    python download.py cola rte mrpc         # data sets, into data/

A download that was interrupted is resumed. Every file is checked: nothing wrong or incomplete ever
has a file's final name.
"""

import contextlib
import hashlib
import os
import re
import shutil
import ssl
import sys
import tarfile
import time
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

import gpt1.startup  # noqa: F401 (before the import of any library)

import tomllib

import requests
from filelock import FileLock, Timeout
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm

from gpt1 import ROOT
from gpt1.options import Number
from gpt1.parsing import Parser
from utils import InputError, check_writable, exit_status

with open(os.path.join(ROOT, 'gpt1', 'sources.toml'), 'rb') as f:
    SOURCES = tomllib.load(f)  # what can be fetched, and from where


# --------------------------------------------------------------------------------------- one file


def is_right(path: str, digest: str) -> bool:
    """Return whether a file has a digest of SHA-256 or of git, see `sources.toml`; '' fits all."""
    git = hashlib.sha1(b'blob %d\0' % os.path.getsize(path))
    with open(path, 'rb') as f:
        found = hashlib.file_digest(f, (lambda: git) if len(digest) == 40 else 'sha256')
    return digest in ('', found.hexdigest())


def is_there(path: str, digest: str) -> bool:
    """Return whether the file is there. Raises InputError if another file is at its place."""
    if not os.path.exists(path):
        return False
    if not is_right(path, digest):
        raise InputError(
            f'{path} exists, but is not the published file; move it away, or choose another folder'
        )
    return True


@dataclass
class Client:
    """Fetches files. Libraries do not continue what an earlier process began, or know git's ids."""

    session: requests.Session
    retries: int  # after so many failures in a row that brought nothing new, it gives up
    timeout: float  # seconds to wait for a connection, and for the next bytes

    def fetch(self, url: str, path: str, hint: str, digest: str) -> None:
        """Fetch a file to `path`, unless it is there. Raises InputError.

        hint    what else the user can do, for the error message
        digest  see `is_right`; if it is '', what the server says

        What arrives is kept in `path`.part until it is complete.
        """
        if digest and is_there(path, digest):
            return None
        part, failures = f'{path}.part', 0
        is_old = _file_size(part) > 0  # of an earlier run
        while True:
            before = _file_size(part)
            try:
                right = self._receive(url, path, digest)
            except requests.RequestException as error:
                failures = 1 if _file_size(part) > before else failures + 1
                reason, may_pass = _explain(error)
                if failures > self.retries or not may_pass:
                    again = 'run the same command again to resume, or ' if may_pass else ''
                    raise InputError(f'cannot fetch {url}: {reason}; {again}{hint}') from error
                time.sleep(min(0.5 * 2 ** (failures - 1), 60))
                continue
            if not os.path.exists(part):  # the whole file was there
                return None
            if is_right(part, right):
                return os.replace(part, path)
            os.unlink(part)
            if not is_old:
                raise InputError(f'{url} is not the published file (hash {right}); {hint}')
            is_old = False  # once more, from the start

    def _receive(self, url: str, path: str, digest: str) -> str:
        """Append what `path`.part lacks to it. Returns the digest that it should have."""
        part = f'{path}.part'
        start = _file_size(part)
        headers = {'Accept-Encoding': 'identity'}
        if start:
            headers['Range'] = f'bytes={start}-'
        options = {'headers': headers, 'stream': True, 'timeout': self.timeout}
        with self.session.get(url, **options) as response:
            digest = digest or _digest_of(response)
            if start and response.status_code in (404, 416):
                return digest  # there is nothing after `start`
            response.raise_for_status()
            if is_there(path, digest):
                return digest
            sent_range = response.headers.get('Content-Range', '')
            if response.status_code != 206 or not sent_range.startswith(f'bytes {start}-'):
                start = 0  # the server sends the whole file
            end = start + int(response.headers.get('Content-Length', 0))
            look = dict(unit='B', unit_scale=True, leave=False, disable=None)  # on a terminal only
            bar = tqdm(desc=os.path.basename(url), total=end, initial=start, **look)
            with bar, open(part, 'r+b' if start else 'wb', buffering=0) as f:
                f.seek(start)
                for chunk in response.iter_content(1024):  # what a cut connection may lose
                    f.write(chunk)
                    bar.update(len(chunk))
                if f.tell() < end:
                    raise ChunkedEncodingError
                os.fsync(f.fileno())
        return digest


def _file_size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _digest_of(response: requests.Response) -> str:
    """Return the digest of a file that a server such as Hugging Face's tells; '' if none."""
    for answer in [*response.history, response]:
        tag = answer.headers.get('X-Linked-ETag') or answer.headers.get('ETag', '')
        if re.fullmatch('"([0-9a-f]{64}|[0-9a-f]{40})"', tag):
            return tag[1:-1]
    return ''


def _explain(error: requests.RequestException) -> tuple[str, bool]:
    """Return what failed, in a few words, and whether the same request may succeed later."""
    if error.response is not None:
        status = error.response.status_code
        reason = f'the server answers {status} {error.response.reason}'
        return reason, status in (429, 500, 502, 503, 504)
    if isinstance(error, ChunkedEncodingError):
        return 'the connection was cut', True
    cause = error
    while cause.__context__ is not None:
        cause = cause.__context__
    reason = str(getattr(cause, 'strerror', None) or cause)[:150]
    is_final = isinstance(cause, ssl.SSLCertVerificationError)
    return reason, isinstance(error, (requests.ConnectionError, requests.Timeout)) and not is_final


@contextlib.contextmanager
def only_download(folder: str, name: str) -> Iterator[str]:
    """Yield a folder for what is not complete yet, inside of `folder`, to one process at a time."""
    unfinished = os.path.join(folder, f'.{name}.download')
    os.makedirs(folder, exist_ok=True)
    # FileLock's fallback, a file that exists, would stay behind when a process dies.
    lock = FileLock(os.path.join(folder, f'.{name}.lock'), fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f'waiting for another download.py, which fetches the same into {folder}', flush=True)
        lock.acquire()
    except (OSError, NotImplementedError):
        print(f'warning: {folder} has no locks: start no second download there', file=sys.stderr)
    try:
        os.makedirs(unfinished, exist_ok=True)
        yield unfinished
        shutil.rmtree(unfinished)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(unfinished)  # if it is empty
        lock.release()


# ------------------------------------------------------------------------------ weights, data sets


def fetch_weights(client: Client, args: Namespace) -> None:
    """Fetch OpenAI's model into `args.model_dir`, in the form of `args.source`."""
    github, digests = SOURCES['github'], SOURCES[args.source]['digests']
    base, hint = args.url or github['url'], 'try --source huggingface'
    if args.source == 'huggingface':
        endpoint = os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')
        base = f'{endpoint}/{SOURCES["huggingface"]["repository"]}/resolve/main'
        hint = 'name a mirror in the environment variable HF_ENDPOINT, or try --source github'
    with only_download(args.model_dir, 'weights'):
        folder = args.model_dir
        if not all(is_there(os.path.join(folder, n), d) for n, d in github['digests'].items()):
            for name, digest in digests.items():
                url, path = f'{base.rstrip("/")}/{name}', os.path.join(folder, name)
                client.fetch(url, path, hint, digest)
    print(f'weights: {len(digests)} files in {args.model_dir}')


def fetch_data_set(client: Client, name: str, data_dir: str) -> None:
    """Fetch a data set into its folder, which appears complete or not at all. Raises InputError."""
    inner = SOURCES['data'][name]['folder']
    folder = os.path.join(data_dir, inner)
    with only_download(data_dir, inner) as unfinished:
        if os.path.exists(folder):
            print(f'{name}: {folder} exists; nothing was fetched')
            return
        unpacked = os.path.join(unfinished, 'unpacked')
        shutil.rmtree(unpacked, ignore_errors=True)
        os.makedirs(os.path.join(unpacked, inner))
        for file in SOURCES['data'][name]['files']:
            base = os.path.basename(file['url'])
            path = os.path.join(data_dir, base)  # of a user who got it in another way
            if not is_there(path, file['digest']):
                hint = f'get it in another way and put it at {path}'
                path = os.path.join(unfinished, base)
                client.fetch(file['url'], path, hint, file['digest'])
            if base.endswith(('.zip', '.tar.gz')):
                unpack(path, inner, unpacked)
            else:
                shutil.copy(path, os.path.join(unpacked, inner))
        os.rename(os.path.join(unpacked, inner), folder)
    print(f'{name}: {folder}')


def unpack(path: str, folder: str, target: str) -> None:
    """Unpack the folder `folder` of an archive whose hash is right into the folder `target`."""

    def is_wanted(name):  # macOS adds others to archives
        hidden = any(part.startswith('.') or part == 'Icon\r' for part in name.split('/'))
        return name.startswith(f'{folder}/') and not hidden

    if path.endswith('.zip'):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target, filter(is_wanted, archive.namelist()))
    else:
        with tarfile.open(path) as archive:
            archive.extraction_filter = getattr(tarfile, 'data_filter', None)  # Python 3.11.4
            archive.extractall(target, filter(lambda entry: is_wanted(entry.name), archive))


# ------------------------------------------------------------------------------------ command line


def parse_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line. Ends the process if something is wrong."""
    parser = Parser(
        prog='download.py',
        usage='python download.py [NAME ...] [options]',
        description=__doc__,
        epilog=list_names(),
    )
    add = parser.add_argument
    add('names', nargs='*', metavar='NAME', help='what to fetch, see below (default: weights)')
    text = 'of the weights; the environment variable HF_ENDPOINT names a mirror of Hugging Face'
    add('--source', choices=('github', 'huggingface'), default='github', help=text)
    add('--model_dir', default='model/', help='folder for the weights')
    add('--data_dir', default='data/', help='folder for the data sets')
    add('--accept_terms', action='store_true', help='accept the terms of use of race')
    add('--url', help='address of a copy of the folder model/ of openai/finetune-transformer-lm')
    retries, seconds = Number(int, 0, 100), Number(float, 0, 3600, but=[0])
    add('--retries', type=retries, default=6, help='attempts in a row that may bring nothing')
    add('--timeout', type=seconds, default=30, help='seconds to wait for the server')
    args = parser.parse_args(argv)
    args.names = args.names or ['weights']
    for name in args.names:
        if name not in ('weights', *SOURCES['data'], *SOURCES['by_request']):
            parser.error(f'{name[:40]}: no such data set')
    return args


def list_names() -> str:
    """Return what can be fetched, for --help."""
    sizes = {'weights': SOURCES['github']['size']}
    for name, source in SOURCES['data'].items():
        sizes[name] = sum(file['size'] for file in source['files'])
    lines = [f'  {name:<12}{size / 1e6:>7.2f} MB' for name, size in sizes.items()]
    by_request = [f'  {name:<12}by request: {url}' for name, url in SOURCES['by_request'].items()]
    return '\n'.join(['NAME can be:', '', *lines, '', *by_request])


def check_terms(name: str, accepted: bool) -> None:
    """Raise InputError if a data set cannot be fetched without the user's consent, or at all."""
    terms, address = SOURCES['terms'].get(name), SOURCES['by_request'].get(name)
    if address:
        how = f'fill in the form at {address} and put its two CSV files into data/'
        raise InputError(f'{name} is sent by its authors on request: {how}')
    if terms and not accepted:
        how = 'read them there, and give --accept_terms if you accept them'
        raise InputError(f'{name} has terms of use: {terms}; {how}')


def run(args: Namespace) -> None:
    """Fetch what is not there yet. Raises InputError."""
    for name in args.names:
        check_terms(name, args.accept_terms)
    with requests.Session() as session:
        client = Client(session, args.retries, args.timeout)
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
    """Run the command. Returns the exit status."""
    return exit_status('download.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
