"""Fetch OpenAI's weights and vocabulary, 13 files of 467 MB, from GitHub into model/.

    python download.py

A broken download goes on where it stopped. A file counts as there only when its content is OpenAI's: its git blob id is checked.
"""

import hashlib
import os
import re
import sys

import requests
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from utils import InputError, Parser, check_writable, exit_status, number

URL = 'https://raw.githubusercontent.com/openai/finetune-transformer-lm/master/model/'
FILES = {  # name -> git blob id: the SHA-1 of `blob <bytes>\0` and the content
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
LARGEST = 1 << 26  # bytes; the largest of the files has 47 MB
CHUNK = 1 << 14  # bytes; a piece that breaks off is asked for again


class WrongBytes(Exception):
    """What was received is not the file."""


def git_blob_id(path):
    """The id git gives a file's content, as 40 hexadecimal digits."""
    digest = hashlib.sha1(b'blob %d\0' % os.path.getsize(path))
    with open(path, 'rb') as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def receive(session, url, part, timeout, bar):
    """Receive what `part` still lacks of the file at `url`, and append it. Raises requests' exceptions where the connection fails."""
    there = os.path.getsize(part) if os.path.exists(part) else 0
    headers = {'Accept-Encoding': 'identity', **({'Range': f'bytes={there}-'} if there else {})}
    with session.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if (
            response.status_code == 416 and there
        ):  # nothing after `there`: the file is whole, or not this one
            return
        response.raise_for_status()
        if response.status_code != 206 or not response.headers.get('Content-Range', '').startswith(
            f'bytes {there}-'
        ):
            there = 0  # the server sends the whole file
        bar.reset(total=there + int(response.headers.get('Content-Length', 0)) or None)
        bar.update(there)
        with open(part, 'r+b' if there else 'wb') as f:
            f.seek(there)
            for chunk in response.iter_content(CHUNK):
                f.write(chunk)
                f.flush()  # what has arrived stays, whatever comes
                bar.update(len(chunk))
                if f.tell() > LARGEST:
                    raise WrongBytes


def fetch(session, url, path, blob_id, retry, timeout=30):
    """Fetch one file to `path`, by way of `path`.part. Raises InputError when it cannot be had.

    retry    `urllib3.util.Retry`: how often to try again, and the pauses between. It counts the failures in a row that brought nothing new
    timeout  seconds to wait for a connection, and for the next bytes
    """
    part, left, restarted = path + '.part', retry, False
    with tqdm(
        desc=os.path.basename(path),
        unit='B',
        unit_scale=True,
        unit_divisor=1024,
        dynamic_ncols=True,
        leave=False,
        disable=None,
    ) as bar:
        while True:
            before = os.path.getsize(part) if os.path.exists(part) else 0
            try:
                receive(session, url, part, timeout, bar)
                if git_blob_id(part) == blob_id:
                    break
                raise WrongBytes
            except WrongBytes:
                os.unlink(part)
                if restarted:
                    raise InputError(
                        f'{url} is not the file OpenAI published: its git blob id is not {blob_id}; is --url right?'
                    ) from None
                restarted = True  # once: a piece from an earlier attempt may have been at fault
            except requests.RequestException as error:
                status = getattr(error.response, 'status_code', None)
                if (
                    status
                    and not retry.is_retry('GET', status)
                    or isinstance(error, (requests.TooManyRedirects, ValueError))
                ):
                    raise InputError(
                        f'cannot fetch {url}: {reason(error)}; is --url right?'
                    ) from error
                if os.path.exists(part) and os.path.getsize(part) > before:
                    left = retry
                try:
                    left = left.increment('GET', url, error=error)
                except MaxRetryError:
                    raise InputError(
                        f'cannot fetch {url}: {reason(error)}; what has arrived is kept: run this again to go on'
                    ) from error
                left.sleep()
    with open(part, 'rb') as f:
        os.fsync(f.fileno())
    os.replace(part, path)


def reason(error):
    """What failed, in a few words, from the nested message of a `requests.RequestException`."""
    if error.response is not None:
        return f'the server answers {error.response.status_code} {error.response.reason}'
    return re.sub('[()"]', '', str(error).split(': ')[-1])[:150]


def parse_args(argv=None):
    parser = Parser(usage='python download.py [options]', description=__doc__)
    parser.add_argument('--model_dir', default='model/', help='where to put the files')
    parser.add_argument(
        '--url',
        help="the address that the files' names are appended to (default: model/ of openai/finetune-transformer-lm on GitHub)",
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
    return parser.parse_args(argv)


def run(args):
    """Fetch what is not there yet. Raises InputError."""
    check_writable(args.model_dir)
    os.makedirs(args.model_dir, exist_ok=True)
    retry = Retry(
        total=args.retries, backoff_factor=0.5, status_forcelist=[429, 500, 502, 503, 504]
    )
    try:
        with requests.Session() as session:
            for name, blob_id in tqdm(
                FILES.items(),
                bar_format='{n_fmt} of {total_fmt} files {bar}',
                dynamic_ncols=True,
                disable=None,
            ):
                path = os.path.join(args.model_dir, name)
                if not os.path.exists(path):
                    fetch(
                        session,
                        (args.url or URL).rstrip('/') + '/' + name,
                        path,
                        blob_id,
                        retry,
                        args.timeout,
                    )
                elif git_blob_id(path) != blob_id:
                    raise InputError(
                        f'{path} is there, but is not the file OpenAI published; move it away, or give another --model_dir'
                    )
    except OSError as error:
        raise InputError(f'cannot write to {args.model_dir}: {error.strerror or error}') from error
    print(f'{len(FILES)} files in {args.model_dir}, all as OpenAI published them')


def main(argv=None):
    return exit_status('download.py', run, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
