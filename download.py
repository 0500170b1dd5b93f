"""Fetch OpenAI's weights, and the data sets of the paper.

    python download.py                       # the weights and the vocabulary, into model/
    python download.py cola rte mrpc         # data sets, into data/

A download that was interrupted is resumed. Every file is checked: nothing wrong or incomplete ever
has a file's final name.
"""

import contextlib
import filecmp
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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

import gpt1.startup  # noqa: F401 (before the import of any library)

import requests
from filelock import FileLock, Timeout
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm

from gpt1.options import number
from gpt1.parsing import Parser
from utils import InputError, check_writable, exit_status

# ----------------------------------------------------------------------------- what can be fetched


class Remote(NamedTuple):
    """A file at an address.

    size    in bytes; None if it is not known
    digest  hexadecimal digits: 64 of SHA-256, or 40 of the id that git gives a file, the SHA-1 of
            b'blob <size>\\0' and the content; '' if only the server knows it
    """

    url: str
    size: int | None
    digest: str

    @property
    def name(self) -> str:
        return os.path.basename(self.url)


WEIGHTS_URL = 'https://raw.githubusercontent.com/openai/finetune-transformer-lm/master/model/'
WEIGHTS = {  # name -> git's blob id, in this order: until the last one is there, the files of
    # Hugging Face's model may be put beside them
    'vocab_40000.bpe': '0023a687b3d4d0b795a5e97cc914bdabb5a253df',
    'encoder_bpe_40000.json': '9dc3f0af5a80956e57dc8d9401e16dfadcade7c2',
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
    'params_shapes.json': '29fac299ae848d7e447be84a33345edcf1b5353c',
}
WEIGHTS_SIZE = 467_415_000  # bytes of all files, about
HUGGINGFACE = 'openai-community/openai-gpt'
HUGGINGFACE_FILES = ('vocab.json', 'merges.txt', 'model.safetensors', 'config.json')
OPENAI_MODEL = ('db275913015cdcb5', 512, 768, 12)  # fingerprint of the vocabulary, and sizes

GLUE = 'https://dl.fbaipublicfiles.com/glue/data/'
SENTEVAL = 'https://dl.fbaipublicfiles.com/senteval/senteval_data/'
DPRD = 'https://s3.amazonaws.com/datasets.huggingface.co/definite_pronoun_resolution/'

# The folder, which archives contain and other files are put into, and the files. Sizes and SHA-256
# are as recorded in huggingface/datasets (dataset_infos.json).
# MNLI's AX.tsv is the diagnostic set of GLUE. QNLI is version 2, the only one that is still
# offered; the paper used version 1. DPRD is for the zero-shot experiment of the paper.
# fmt: off
DATA_SETS = {
    'snli': ('snli_1.0',
        Remote('https://nlp.stanford.edu/projects/snli/snli_1.0.zip', 94_550_081,
            'afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e')),
    'mnli': ('MNLI',
        Remote(f'{GLUE}MNLI.zip', 312_783_507,
            'e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633'),
        Remote(f'{GLUE}AX.tsv', 222_257,
            '0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd')),
    'qnli': ('QNLI',
        Remote(f'{GLUE}QNLIv2.zip', 10_627_589,
            'e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5')),
    'scitail': ('SciTailV1.1',
        Remote('http://data.allenai.org.s3.amazonaws.com/downloads/SciTailV1.1.zip', 14_174_621,
            '3fccd37350a94ca280b75998568df85fc2fc62843a3198d644fcbf858e6943d5')),
    'rte': ('RTE',
        Remote(f'{GLUE}RTE.zip', 697_150,
            '6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee')),
    'race': ('RACE',
        Remote('http://www.cs.cmu.edu/~glai1/data/race/RACE.tar.gz', 25_443_609,
            'b2769cc9fdc5c546a693300eb9a966cec6870bd349fbc44ed5225f8ad33006e5')),
    'qqp': ('QQP',
        Remote(f'{GLUE}QQP-clean.zip', 41_696_084,
            '40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0')),
    'mrpc': ('MRPC',
        Remote(f'{SENTEVAL}msr_paraphrase_train.txt', 1_047_044,
            '60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89'),
        Remote(f'{SENTEVAL}msr_paraphrase_test.txt', 441_275,
            'a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784'),
        Remote(f'{GLUE}mrpc_dev_ids.tsv', 6_222,
            '971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7')),
    'stsb': ('STS-B',
        Remote(f'{GLUE}STS-B.zip', 802_872,
            'e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85')),
    'cola': ('CoLA',
        Remote(f'{GLUE}CoLA.zip', 376_971,
            'f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff')),
    'sst2': ('SST-2',
        Remote(f'{GLUE}SST-2.zip', 7_439_277,
            'd67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa')),
    'wnli': ('WNLI',
        Remote(f'{GLUE}WNLI.zip', 28_999,
            'ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46')),
    'dprd': ('DPRD',
        Remote(f'{DPRD}train.c.txt', 160_408,
            'c310158d0cbac1a556e3284e6c167f4478271d8d50b0b9d15dfe428c905a0867'),
        Remote(f'{DPRD}test.c.txt', 67_044,
            'cf1cf025e1d59a5b363e6dcfbd5a13aae8a9830831ac16fd7f865aca7a1559d8')),
}
# fmt: on
TERMS = {'race': 'http://www.cs.cmu.edu/~glai1/data/race/ (for research only; there is a form)'}
BYTES = {'unit': 'B', 'unit_scale': True, 'disable': None}  # a progress bar, on a terminal only
BY_REQUEST = {'rocstories': 'https://cs.rochester.edu/nlp/rocstories/'}


# --------------------------------------------------------------------------------------- one file


def is_right(path: str, digest: str) -> bool:
    """Return whether a file has a digest, see `Remote`; True if that is not known."""
    git = hashlib.sha1(b'blob %d\0' % os.path.getsize(path))
    with open(path, 'rb') as f:
        found = hashlib.file_digest(f, (lambda: git) if len(digest) == 40 else 'sha256')
    return digest in ('', found.hexdigest())


def is_there(path: str, remote: Remote) -> bool:
    """Return whether the file was fetched already.

    Raises InputError if another file is at its place.
    """
    if not os.path.exists(path):
        return False
    if not is_right(path, remote.digest):
        raise InputError(
            f'{path} exists, but is not the published file (its hash is not {remote.digest}); move '
            'it away, or choose another folder'
        )
    return True


@dataclass
class Client:
    """Fetches files.

    retries  how often to try again after failures in a row that brought nothing new
    timeout  seconds to wait for a connection, and for the next bytes

    Libraries that fetch files do not continue what an earlier process began (pooch 1.9,
    huggingface_hub from 1.18 on), and do not know git's ids.
    """

    session: requests.Session
    retries: int
    timeout: float

    def fetch(self, remote: Remote, path: str, hint: str) -> None:
        """Fetch a file to `path`, unless it is there.

        hint  what else the user can do, for the error message

        What arrives is kept in `path`.part until it is complete. Raises InputError.
        """
        if is_there(path, remote):
            return
        part = f'{path}.part'
        is_old = _file_size(part) > 0  # of an earlier run
        digest = self._receive_all(remote, part, hint)
        if not is_right(part, digest) and is_old:
            os.unlink(part)  # once more, from the start
            digest = self._receive_all(remote, part, hint)
        if not is_right(part, digest):
            os.unlink(part)
            raise InputError(
                f'{remote.url} is not the published file: its hash is not {digest}; {hint}'
            )
        os.replace(part, path)

    def _receive_all(self, remote: Remote, part: str, hint: str) -> str:
        """Complete `part`, in several attempts if need be. Returns the digest it should have."""
        failures = 0
        while True:
            before = _file_size(part)
            try:
                return self._receive(remote, part)
            except requests.RequestException as error:
                failures = 1 if _file_size(part) > before else failures + 1
                reason, may_pass = _explain(error)
                if failures > self.retries or not may_pass:
                    again = 'run the same command again to resume, or ' if may_pass else ''
                    message = f'cannot fetch {remote.url}: {reason}; {again}{hint}'
                    raise InputError(message) from error
                time.sleep(min(0.5 * 2 ** (failures - 1), 60))

    def _receive(self, remote: Remote, part: str) -> str:
        """Append what `part` lacks of a file to it. Returns the digest that it should have.

        Raises requests.RequestException if that fails.
        """
        start = _file_size(part)
        headers = {'Accept-Encoding': 'identity'}
        if start:
            headers['Range'] = f'bytes={start}-'
        with self.session.get(
            remote.url, headers=headers, stream=True, timeout=self.timeout
        ) as response:
            digest = remote.digest or _digest_of(response)
            if start and response.status_code in (404, 416):
                return digest  # there is nothing after `start`
            response.raise_for_status()
            sent_range = response.headers.get('Content-Range', '')
            if response.status_code != 206 or not sent_range.startswith(f'bytes {start}-'):
                start = 0  # the server sends the whole file
            end = start + int(response.headers.get('Content-Length', 0))
            bar = tqdm(desc=remote.name, total=end, initial=start, leave=False, **BYTES)
            with bar, open(part, 'r+b' if start else 'wb', buffering=0) as f:
                f.seek(start)
                for chunk in response.iter_content(1024):  # what a cut connection may lose
                    f.write(chunk)
                    bar.update(len(chunk))
                    if f.tell() > (remote.size or sys.maxsize):
                        return digest  # this is another file
                if f.tell() < end:
                    raise ChunkedEncodingError
                os.fsync(f.fileno())
        return digest


def _file_size(path: str) -> int:
    """Return the size of a file; 0 if there is none."""
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
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f'its certificate is not valid: {cause.verify_message}', False
    reason = str(getattr(cause, 'strerror', None) or cause)[:150]
    return reason, isinstance(error, (requests.ConnectionError, requests.Timeout))


@contextlib.contextmanager
def only_download(folder: str, name: str) -> Iterator[str]:
    """Yield a folder for what is not complete yet, inside of `folder`, to one process at a time.

    It still holds what an interrupted run left, and is removed when all is done.
    """
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
    unfinished = os.path.join(folder, f'.{name}.download')
    try:
        os.makedirs(unfinished, exist_ok=True)
        yield unfinished
        shutil.rmtree(unfinished)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(unfinished)  # if it is empty
        lock.release()


# ----------------------------------------------------------------------------------------- weights


def fetch_weights(client: Client, args: Namespace) -> None:
    """Fetch OpenAI's model from `args.source` into `args.model_dir`. Raises InputError."""
    base = (args.url or WEIGHTS_URL).rstrip('/')
    paths = {
        os.path.join(args.model_dir, name): Remote(f'{base}/{name}', None, digest)
        for name, digest in WEIGHTS.items()
    }
    n_files = len(paths)
    with only_download(args.model_dir, 'weights') as unfinished:
        if args.source == 'github':
            for path, remote in paths.items():
                client.fetch(remote, path, 'try --source huggingface')
        elif not all(is_there(path, remote) for path, remote in paths.items()):
            fetch_huggingface(client, args.model_dir, unfinished)
            n_files = len(HUGGINGFACE_FILES)
    print(f'weights: {n_files} files in {args.model_dir}')


def fetch_huggingface(client: Client, model_dir: str, unfinished: str) -> None:
    """Fetch the model on Hugging Face, in the form that it has there. Raises InputError.

    The environment variable HF_ENDPOINT names another server.
    """
    if os.path.exists(os.path.join(model_dir, 'config.json')):  # it is put there last
        check_huggingface(model_dir)
        return
    endpoint = os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')
    hint = 'name a mirror in the environment variable HF_ENDPOINT, or try --source github'
    for name in HUGGINGFACE_FILES:
        remote = Remote(f'{endpoint}/{HUGGINGFACE}/resolve/main/{name}', None, '')
        client.fetch(remote, os.path.join(unfinished, name), hint)
    check_huggingface(unfinished)
    for name in HUGGINGFACE_FILES:
        path, final = os.path.join(unfinished, name), os.path.join(model_dir, name)
        if os.path.exists(final) and not filecmp.cmp(path, final, shallow=False):
            raise InputError(f'{final} is another file; move it away, or choose another folder')
        os.replace(path, final)


def check_huggingface(folder: str) -> None:
    """Raise InputError unless a Hugging Face folder has OpenAI's vocabulary and sizes."""
    from gpt1.weights.huggingface import HuggingFaceWeights
    from gpt1.weights.vocabulary import fingerprint_vocabulary, open_encoder

    weights = HuggingFaceWeights(folder)
    vocabulary = fingerprint_vocabulary(open_encoder(folder))
    if (vocabulary, weights.n_positions, weights.n_embd, weights.n_layer) != OPENAI_MODEL:
        raise InputError(f"{folder} is not OpenAI's model: another vocabulary, or other sizes")


# --------------------------------------------------------------------------------------- data sets


def fetch_data_set(client: Client, name: str, data_dir: str) -> None:
    """Fetch a data set into its folder, which appears complete or not at all. Raises InputError."""
    inner, *remotes = DATA_SETS[name]
    folder = os.path.join(data_dir, inner)
    with only_download(data_dir, inner) as unfinished:
        if os.path.exists(folder):
            print(f'{name}: {folder} exists; nothing was fetched')
            return
        unpacked = os.path.join(unfinished, 'unpacked')
        shutil.rmtree(unpacked, ignore_errors=True)
        os.makedirs(os.path.join(unpacked, inner))
        for remote in remotes:
            path = os.path.join(data_dir, remote.name)  # of a user who got it in another way
            if not is_there(path, remote):
                hint = f'get it in another way and put it at {path}'
                path = os.path.join(unfinished, remote.name)
                client.fetch(remote, path, hint)
            if remote.name.endswith(('.zip', '.tar.gz')):
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
    sources = ('github', 'huggingface')
    text = 'of the weights; the environment variable HF_ENDPOINT names a mirror of Hugging Face'
    add('--source', choices=sources, default='github', help=text)
    add('--model_dir', default='model/', help='folder for the weights')
    add('--data_dir', default='data/', help='folder for the data sets')
    add('--accept_terms', action='store_true', help='accept the terms of use of race')
    add('--url', help='address of a copy of the folder model/ of openai/finetune-transformer-lm')
    retries, seconds = number(int, 0, 100), number(float, 0, 3600, but=[0])
    add('--retries', type=retries, default=6, help='attempts in a row that may bring nothing')
    add('--timeout', type=seconds, default=30, help='seconds to wait for the server')
    args = parser.parse_args(argv)
    args.names = args.names or ['weights']
    for name in args.names:
        if name not in ('weights', *DATA_SETS, *BY_REQUEST):
            parser.error(f'{name[:40]}: no such data set')
    return args


def list_names() -> str:
    """Return what can be fetched, for --help."""
    sizes = {name: sum(file.size for file in files) for name, (_, *files) in DATA_SETS.items()}
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
        if name in TERMS and not accepted:
            raise InputError(
                f'{name} has terms of use: {TERMS[name]}; read them there, and give '
                '--accept_terms if you accept them'
            )


def run(args: Namespace) -> None:
    """Fetch what is not there yet. Raises InputError."""
    check_terms(args.names, args.accept_terms)
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
