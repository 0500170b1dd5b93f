"""download.py against a local server that misbehaves.

Whatever the server does, a file with its final name is complete and right.
"""

import errno
import hashlib
import http.server
import io
import os
import random
import shutil
import ssl
import subprocess
import tarfile
import threading
import zipfile

import pytest
from filelock import FileLock

import download
from datasets import NAMES
from gpt1.files import MODEL_FILES
from gpt1.settings import find_model_dir
from gpt1.tasks.readers import MRPC_SOURCE

CONTENT = random.Random(0).randbytes(200_000)
QUICK = ['--timeout', '0.5', '--retries', '2']


def git_id(content):
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, or CONTENT under any other name.

    The server's `behave(request, start, n)` chooses how its n-th request is answered.
    """

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        asked = self.headers.get('Range')
        self.server.requests.append((self.path, asked))
        start = int(asked.split('=')[1].split('-')[0]) if asked else 0
        self.server.behave(self, start, len(self.server.requests))

    def reply(self, start=0, content=None, send=None, status=None, headers=()):
        """Announce content[start:], but send only `send` bytes of it."""
        content = self.server.files.get(self.path, CONTENT) if content is None else content
        self.send_response(status or (206 if start else 200))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.send_header('Content-Length', len(content[start:]))
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content[start:] if send is None else content[start : start + send])
        self.close_connection = send is not None

    def refuse(self, status, *headers):
        self.reply(content=b'', status=status, headers=headers)


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.handle_error = lambda *_: None  # clients hang up: that is what is tested
    server.files = {}
    server.requests = []
    server.behave = lambda request, start, n: request.reply(start)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    server.url = f'http://127.0.0.1:{server.server_address[1]}/'
    monkeypatch.setenv('NO_PROXY', '*')
    monkeypatch.setattr(download.time, 'sleep', lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def files_below(folder):
    """{path: content} of all files below a folder, but the locks."""
    files = [path for path in folder.rglob('*') if path.is_file() and path.suffix != '.lock']
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def error_line(capsys):
    """The error message, which must be one line."""
    error = capsys.readouterr().err
    assert error.startswith('download.py: error: ') and error.count('\n') == 1
    return error


# ---------------------------------------------------------------------------- weights, and one file


@pytest.fixture
def model(tmp_path):
    """The folder of the weights."""
    return tmp_path / 'model'


@pytest.fixture
def get(server, model, monkeypatch):
    """Fetch params_0.npy, or all files of the weights. Returns the exit status."""
    weights = download.SOURCES['github']
    ids = dict.fromkeys(weights['digests'], git_id(CONTENT))

    def get(*options, only='params_0.npy'):
        monkeypatch.setitem(weights, 'digests', {only: ids[only]} if only else ids)
        return download.main(['--url', server.url, '--model_dir', str(model), *QUICK, *options])

    return get


def test_the_table_of_sources():
    """Every data set of train.py is there, except the two that cannot be fetched."""
    digests = download.SOURCES['github']['digests']
    assert set(digests) == set(MODEL_FILES) and list(digests)[-1] == 'params_shapes.json'
    assert set(NAMES) - set(download.SOURCES['data']) == {'rocstories', 'custom'}
    names = [os.path.basename(file['url']) for file in download.SOURCES['data']['mrpc']['files']]
    assert names == [*MRPC_SOURCE, 'mrpc_dev_ids.tsv']
    files = [file for source in download.SOURCES['data'].values() for file in source['files']]
    assert all(len(bytes.fromhex(file['digest'])) == 32 and file['size'] for file in files)


def test_all_files_of_the_weights(server, get, model, capsys):
    """Cut connections are resumed as often as each attempt brings something."""
    server.behave = lambda request, start, n: request.reply(start, send=24_100)
    assert get(only=None) == 0
    assert files_below(model) == dict.fromkeys(MODEL_FILES, CONTENT)
    assert '13 files' in capsys.readouterr().out
    starts = [int((asked or 'bytes=0-')[6:-1]) for _, asked in server.requests]
    assert len(starts) == 13 * 9
    assert all(0 <= 24_100 * n - start < 1024 * n + 1 for n, start in enumerate(starts[:9]))
    assert get(only=None) == 0
    assert len(server.requests) == 13 * 9  # nothing is fetched again


@pytest.mark.parametrize('answer', [206, 404, 416, 200])
@pytest.mark.parametrize(
    'part',
    [CONTENT[:150_000], CONTENT, b'x' * 1000, CONTENT + b'x', b'x' * len(CONTENT)],
    ids=['beginning', 'complete', 'wrong beginning', 'too long', 'wrong'],
)
def test_what_a_killed_download_left(server, get, model, part, answer):
    """It is completed or thrown away, whatever the server answers to a range."""

    def behave(request, start, n):
        if start >= len(CONTENT) and answer == 206:
            request.refuse(416)
        elif start and answer in (404, 416):
            request.refuse(answer)
        else:
            request.reply(start if answer == 206 else 0)

    server.behave = behave
    model.mkdir()
    (model / 'params_0.npy.part').write_bytes(part)
    assert get() == 0
    assert files_below(model) == {'params_0.npy': CONTENT}
    if part == CONTENT[:150_000] and answer == 206:
        assert server.requests == [('/params_0.npy', 'bytes=150000-')]


@pytest.mark.parametrize(
    'behave, said, n_requests',
    [
        (lambda request, start, n: request.refuse(404), 'answers 404', 1),
        (lambda request, start, n: request.refuse(503), 'answers 503', 3),
        (lambda request, start, n: request.refuse(302, ('Location', f'/{n}')), 'answers 302', 31),
        (lambda request, start, n: threading.Event().wait(1), 'timed out', 3),
        (lambda request, start, n: request.reply(send=500), 'the connection was cut; run', 3),
    ],
    ids=['404', '503', 'redirects', 'silence', 'cut'],
)
def test_a_server_that_fails(server, get, model, capsys, behave, said, n_requests):
    """What may pass is tried again; then one line says what failed, and what else there is."""
    server.behave = behave
    assert get() == 2
    assert set(files_below(model)) <= {'params_0.npy.part'}
    error = error_line(capsys)
    assert said in error and '--source huggingface' in error
    assert len(server.requests) == n_requests


def test_an_address_without_a_server(get, monkeypatch, capsys):
    for url in ('http://127.0.0.1:1', 'nonsense'):
        assert get('--url', url) == 2
        assert f'cannot fetch {url}' in error_line(capsys)
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:1')
    assert get('--source', 'huggingface') == 2
    error = error_line(capsys)
    assert 'http://127.0.0.1:1' in error and 'refused' in error and '--source github' in error


@pytest.mark.skipif(shutil.which('openssl') is None, reason='makes a certificate with openssl')
def test_a_certificate_that_is_not_valid_is_not_tried_again(server, get, tmp_path, capsys):
    pem = str(tmp_path / 'pem')
    command = f'openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {pem}'
    subprocess.run([*command.split(), '-out', f'{pem}.crt'], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f'{pem}.crt', pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    download.time.sleep = None  # would be an error
    assert get('--url', server.url.replace('http:', 'https:')) == 2
    error = error_line(capsys)
    assert 'self-signed certificate' in error and 'run the same command' not in error


def test_a_file_of_the_users_own_is_left_alone(get, model, capsys):
    model.mkdir()
    (model / 'params_0.npy').write_bytes(b'pre-trained for a week')
    for source in ('github', 'huggingface'):
        assert get('--source', source) == 2
        assert 'params_0.npy exists, but' in error_line(capsys)
    assert (model / 'params_0.npy').read_bytes() == b'pre-trained for a week'


# --------------------------------------------------------------------- the model on Hugging Face

HUB = list(download.SOURCES['huggingface']['digests'])


@pytest.fixture
def hub(server, model, monkeypatch):
    """A server like Hugging Face's. `hub.get()` fetches the model; `hub.wrong` is a wrong file."""
    server.wrong = None

    def behave(request, start, n):
        name = os.path.basename(request.path)
        content = b'<html></html>' if name == server.wrong else CONTENT
        if request.path.startswith('/cdn/'):
            request.reply(start, content, send=None if start else 100_000)  # the first is cut
        elif name == 'model.safetensors':
            tag = ('X-Linked-ETag', f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            request.refuse(302, ('Location', f'/cdn/{name}'), tag, ('ETag', '"0"'))
        else:
            request.reply(start, content, headers=[('ETag', f'"{git_id(CONTENT)}"')])

    server.behave = behave
    monkeypatch.setenv('HF_ENDPOINT', server.url)
    monkeypatch.chdir(model.parent)
    server.get = lambda: download.main(['--source', 'huggingface', *QUICK])
    return server


def test_the_model_on_hugging_face(hub, model, capsys):
    """The scripts find it. A second run changes nothing, and a file of the user's is left alone."""
    assert hub.get() == 0
    assert ('/cdn/model.safetensors', f'bytes={100_000 // 1024 * 1024}-') in hub.requests
    repository = download.SOURCES['huggingface']['repository']
    asked = {path for path, _ in hub.requests if '/cdn/' not in path}
    assert asked == {f'/{repository}/resolve/main/{name}' for name in HUB}
    assert files_below(model) == dict.fromkeys(HUB, CONTENT)
    assert find_model_dir() == 'model'
    before = [os.stat(model / name).st_mtime_ns for name in HUB]
    assert hub.get() == 0
    assert [os.stat(model / name).st_mtime_ns for name in HUB] == before
    (model / 'vocab.json').write_text('mine')
    assert hub.get() == 2
    assert 'vocab.json exists, but' in error_line(capsys)
    assert (model / 'vocab.json').read_text() == 'mine'


def test_wrong_bytes_from_hugging_face(hub, model, capsys):
    for hub.wrong in HUB:
        assert hub.get() == 2
        assert 'is not the published file' in error_line(capsys)
        assert set(files_below(model)) == set(HUB[: HUB.index(hub.wrong)])
    hub.wrong = None
    assert hub.get() == 0


# --------------------------------------------------------------------------------------- data sets


def zip_file(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def tar_file(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w:gz') as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


COLA = {
    'CoLA/train.tsv': b'gj04\t1\t\tThey sang.\n',
    'CoLA/original/raw/dev.tsv': random.Random(1).randbytes(300_000),
}
OTHERS = ['__MACOSX/CoLA/._train.tsv', 'CoLA/.DS_Store', 'CoLA/Icon\r', 'README.txt']


class Data:
    """`data(name, {file name: content})` offers a data set; `data.get(name)` fetches it."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.argv = [*QUICK, '--data_dir', str(folder)]
        self.sources = download.SOURCES['data']

    def __call__(self, name, files):
        self.sources[name] = {**self.sources[name], 'files': []}
        for file, content in files.items():
            self.server.files[f'/{file}'] = content
            digest = hashlib.sha256(content).hexdigest()
            remote = {'url': self.server.url + file, 'size': len(content), 'digest': digest}
            self.sources[name]['files'].append(remote)

    def get(self, *names):
        return download.main([*names, *self.argv])


@pytest.fixture
def data(server, tmp_path, monkeypatch):
    monkeypatch.setitem(download.SOURCES, 'data', dict(download.SOURCES['data']))
    return Data(server, tmp_path / 'data')


@pytest.mark.parametrize('name, make', [('CoLA.zip', zip_file), ('CoLA.tar.gz', tar_file)])
def test_a_data_set(server, data, capsys, name, make):
    data('cola', {name: make({**COLA, **dict.fromkeys(OTHERS, b'x')})})
    data('mnli', {'MNLI.zip': zip_file({'MNLI/train.tsv': b'1'}), 'AX.tsv': b'2'})
    assert data.get('cola', 'mnli') == 0
    assert files_below(data.folder) == {**COLA, 'MNLI/train.tsv': b'1', 'MNLI/AX.tsv': b'2'}
    assert f'cola: {data.folder / "CoLA"}\n' in capsys.readouterr().out
    assert data.get('cola') == 0
    assert 'exists' in capsys.readouterr().out
    assert len(server.requests) == 3


def test_one_process_fetches_at_a_time(server, data, monkeypatch):
    """Another one says that it waits."""
    data('cola', {'CoLA.zip': zip_file(COLA)})
    data.folder.mkdir()
    lock, said = FileLock(data.folder / '.CoLA.lock'), []

    def hear(text, **_):
        said.append((text, len(server.requests)))
        lock.release()

    lock.acquire()
    monkeypatch.setattr(download, 'print', hear, raising=False)
    assert data.get('cola') == 0
    assert 'waiting for another download.py' in said[0][0] and said[0][1] == 0
    assert files_below(data.folder) == COLA


def test_an_interruption_and_a_full_disk(server, data, monkeypatch, capsys):
    """One line; the same command does the rest. The archive is not fetched again, nor stays."""
    data('cola', {'CoLA.zip': zip_file(COLA)})
    full = OSError(errno.ENOSPC, 'No space left on device')
    for stop, status in ((KeyboardInterrupt, 130), (full, 2)):

        def extractall(archive, target, members, stop=stop):
            archive.extract(next(iter(members)), target)
            raise stop

        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, 'extractall', extractall)
            assert data.get('cola') == status
        assert not (data.folder / 'CoLA').exists()
    assert 'cannot write to' in error_line(capsys)
    assert data.get('cola') == 0
    assert files_below(data.folder) == COLA
    assert len(server.requests) == 1


def test_a_wrong_data_set(server, data, capsys):
    """Another file, a longer or a shorter one: nothing is unpacked."""
    right = zip_file(COLA)
    data('cola', {'CoLA.zip': right})
    wrong = [b'', right[:-1], right + b'x', right[:-1] + b'x', b'<html></html>', right * 10]
    for n, content in enumerate(wrong, 1):
        server.files['/CoLA.zip'] = content
        assert data.get('cola') == 2
        error = error_line(capsys)
        assert 'is not the published file' in error
        assert f'put it at {data.folder / "CoLA.zip"}' in error
        assert files_below(data.folder) == {}
        assert len(server.requests) == n


def test_an_archive_that_the_user_fetched(server, data, capsys):
    archive = zip_file(COLA)
    data('cola', {'CoLA.zip': archive})
    data.folder.mkdir()
    (data.folder / 'CoLA.zip').write_bytes(b'another file')
    assert data.get('cola') == 2
    assert 'CoLA.zip exists, but' in error_line(capsys)
    (data.folder / 'CoLA.zip').write_bytes(archive)
    assert data.get('cola') == 0
    assert server.requests == []
    assert files_below(data.folder) == {**COLA, 'CoLA.zip': archive}  # it is the user's


def test_what_needs_consent_or_cannot_be_fetched(server, data, capsys):
    data('race', {'RACE.tar.gz': tar_file({'RACE/dev/high/73.txt': b'{}'})})
    assert data.get('race') == 2
    error = error_line(capsys)
    assert 'http://www.cs.cmu.edu/~glai1/data/race/' in error and '--accept_terms' in error
    assert data.get('rocstories') == 2
    assert 'https://cs.rochester.edu/nlp/rocstories/' in error_line(capsys)
    with pytest.raises(SystemExit):
        data.get('imdb')
    assert 'imdb' in error_line(capsys)
    assert server.requests == []
    assert data.get('race', '--accept_terms') == 0
    assert files_below(data.folder) == {'RACE/dev/high/73.txt': b'{}'}
