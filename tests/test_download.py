"""download.py against a local server that misbehaves.

Whatever the server does, a file with its final name is complete and right.
"""

import hashlib
import http.server
import io
import json
import os
import random
import stat
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

import download
from options import DATASETS
from utils import InputError

CONTENT = random.Random(0).randbytes(200_000)
COMMIT = '0123456789' * 4  # of a repository on the hub


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.contents`, or CONTENT under any other name.

    The server's `behave` chooses how each request is answered.
    """

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    @property
    def content(self):
        return self.server.contents.get(self.path, CONTENT)

    def do_GET(self):
        asked = self.headers.get('Range')
        self.server.requests.append((self.path, asked))
        start = int(asked.split('=')[1].split('-')[0]) if asked else 0
        self.server.behave(self, start, len(self.server.requests))

    def do_HEAD(self):
        self.reply()

    def reply(self, start=0, content=None, send=None, status=None):
        """Announce content[start:], but send only `send` bytes of it."""
        content = self.content if content is None else content
        self.send_response(status or (206 if start else 200))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.send_header('Content-Length', len(content) - start)
        # What the hub of Hugging Face sends too.
        self.send_header('ETag', f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header('X-Repo-Commit', COMMIT)
        self.end_headers()
        if self.command == 'HEAD':
            return
        self.wfile.write(content[start:] if send is None else content[start : start + send])
        if send is not None:
            self.wfile.flush()
            self.close_connection = True

    def redirect(self, address):
        self.send_response(302)
        self.send_header('Location', address)
        self.send_header('Content-Length', 0)
        self.end_headers()


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.handle_error = lambda *_: None  # clients hang up: that is what is tested
    server.contents = {}
    server.requests = []
    server.behave = lambda request, start, n: request.reply(start)
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True
    ).start()
    server.url = f'http://127.0.0.1:{server.server_address[1]}/'
    monkeypatch.setenv('NO_PROXY', '*')
    monkeypatch.setattr('urllib3.util.Retry.sleep', lambda self, response=None: None)
    yield server
    server.shutdown()
    server.server_close()


def files_below(folder):
    """{path: content} of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def error_line(capsys):
    """The error message, which must be one line."""
    error = capsys.readouterr().err
    assert error.startswith('download.py: error: ')
    assert error.count('\n') == 1
    return error


# ------------------------------------------------------------------------------------------------
# Weights from GitHub


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Fetch the 13 files of the weights, or one, from the server. Returns the exit status."""
    ids = dict.fromkeys(download.WEIGHTS, download.blob_id(CONTENT))

    def get(*options, only=None):
        monkeypatch.setattr(download, 'WEIGHTS', {only: ids[only]} if only else ids)
        model_dir = str(tmp_path / 'model')
        options = ['--timeout', '0.3', '--retries', '2', '--model_dir', model_dir, *options]
        return download.main(['--url', server.url, *options])

    return get


@pytest.fixture
def model(tmp_path):
    """The folder of the weights."""
    return tmp_path / 'model'


def test_the_ids_of_the_weights():
    assert len(download.WEIGHTS) == len(set(download.WEIGHTS.values())) == 13
    assert all(len(bytes.fromhex(blob_id)) == 20 for blob_id in download.WEIGHTS.values())


def test_blob_id(tmp_path):
    """As `git hash-object` prints it."""
    (tmp_path / 'hello').write_bytes(b'hello\n')
    expected = 'ce013625030ba8dba906f756967f9e9ca394464a'
    assert download.blob_id(b'hello\n') == expected
    assert download.hash_file(tmp_path / 'hello', 'blob') == expected


def test_all_files_of_the_weights(server, get, model, capsys):
    assert get() == 0
    assert files_below(model) == dict.fromkeys(download.WEIGHTS, CONTENT)
    assert len(server.requests) == 13
    assert '13 files' in capsys.readouterr().out
    assert get() == 0  # nothing is fetched again
    assert len(server.requests) == 13


def test_cut_connections_are_resumed(server, get, model):
    """As often as each attempt brings something: here more often than --retries says."""
    server.behave = lambda request, start, n: request.reply(start, send=None if n == 8 else 24_000)
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}
    starts = [int((asked or 'bytes=0-')[6:-1]) for _, asked in server.requests]
    assert len(starts) == 8
    assert starts[0] == 0
    assert all(a < b for a, b in zip(starts, starts[1:]))


def test_a_killed_download_is_resumed(server, get, model):
    model.mkdir()
    (model / 'params_0.npy.part').write_bytes(CONTENT[:150_000])
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}
    assert server.requests == [('/params_0.npy', 'bytes=150000-')]


@pytest.mark.parametrize('part', [b'x' * 1000, CONTENT + b'x', b'x' * len(CONTENT)])
def test_a_wrong_beginning_is_thrown_away(server, get, model, part):
    def behave(request, start, n):
        if start >= len(CONTENT):
            request.reply(content=b'', status=416)
        else:
            request.reply(start)

    server.behave = behave
    model.mkdir()
    (model / 'params_0.npy.part').write_bytes(part)
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}


def test_a_complete_part_needs_no_bytes(server, get, model):
    server.behave = lambda request, start, n: request.reply(content=b'', status=416)
    model.mkdir()
    (model / 'params_0.npy.part').write_bytes(CONTENT)
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}


def test_a_server_that_ignores_range(server, get, model):
    server.behave = lambda request, start, n: request.reply(0, send=120_000 if n == 1 else None)
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}


@pytest.mark.parametrize(
    'content', [CONTENT[:-1] + b'?', b'', b'<html>Sign in to the hotel</html>', CONTENT * 2]
)
def test_wrong_bytes_never_become_a_file(server, get, model, capsys, content):
    server.behave = lambda request, start, n: request.reply(start, content=content)
    assert get(only='params_0.npy') == 2
    assert files_below(model) == {}
    assert 'params_0.npy is not the published file' in error_line(capsys)
    assert len(server.requests) == 2


def test_endless_bytes_end(server, get, model, monkeypatch):
    monkeypatch.setattr(download, 'MAX_SIZE', 300_000)
    server.behave = lambda request, start, n: request.reply(start, content=CONTENT * 10)
    assert get(only='params_0.npy') == 2
    assert files_below(model) == {}


def test_redirects(server, get, model):
    """The rest of a cut file is asked for after the redirect, too."""

    def behave(request, start, n):
        if request.path.startswith('/moved/'):
            request.reply(start, send=70_000 if n == 2 else None)
        else:
            request.redirect('/moved' + request.path)

    server.behave = behave
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}
    arrived = 70_000 // download.CHUNK * download.CHUNK
    assert server.requests[-1] == ('/moved/params_0.npy', f'bytes={arrived}-')


def test_endless_redirects(server, get, capsys):
    server.behave = lambda request, start, n: request.redirect(f'/{n}')
    assert get(only='params_0.npy') == 2
    assert '302' in error_line(capsys)


def test_a_stall(server, get, model):
    """The server sends some bytes and then nothing: after --timeout the rest is asked for."""

    def behave(request, start, n):
        request.reply(start, send=60_000 if n == 1 else None)
        if n == 1:
            time.sleep(1)  # the connection stays open

    server.behave = behave
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}
    arrived = 60_000 // download.CHUNK * download.CHUNK
    assert server.requests[1][1] == f'bytes={arrived}-'


def test_a_server_that_never_answers(server, get, capsys):
    server.behave = lambda request, start, n: time.sleep(0.5)
    assert get(only='params_0.npy') == 2
    assert len(server.requests) == 3  # once, and --retries
    error = error_line(capsys)
    assert 'timed out' in error
    assert '--source huggingface' in error


def test_a_busy_server(server, get, model, capsys):
    server.behave = lambda request, start, n: request.reply(start, status=503 if n < 3 else None)
    assert get(only='params_0.npy') == 0
    assert files_below(model) == {'params_0.npy': CONTENT}
    server.behave = lambda request, start, n: request.reply(start, status=503)
    assert get(only='params_1.npy') == 2
    assert '503' in error_line(capsys)


@pytest.mark.parametrize('status', [403, 404])
def test_not_found(server, get, model, capsys, status):
    server.behave = lambda request, start, n: request.reply(content=b'no', status=status)
    assert get(only='params_0.npy') == 2
    assert len(server.requests) == 1
    assert files_below(model) == {}
    assert str(status) in error_line(capsys)


@pytest.mark.parametrize('url', ['http://127.0.0.1:1/', 'file:///etc/', 'nonsense', 'http:///a'])
def test_an_unreachable_source_names_the_other(get, capsys, url):
    assert get('--url', url, only='params_0.npy') == 2
    error = error_line(capsys)
    assert f'cannot fetch {url}' in error
    assert '--source huggingface' in error


def test_a_file_of_the_users_own_is_left_alone(get, model, capsys):
    model.mkdir()
    (model / 'params_0.npy').write_bytes(b'pre-trained for a week')
    for source in ('github', 'huggingface'):
        assert get('--source', source) == 2
        assert (model / 'params_0.npy').read_bytes() == b'pre-trained for a week'
        assert 'params_0.npy exists, but' in error_line(capsys)


def test_no_place_to_write(get, model, capsys):
    model.write_bytes(b'a file')
    assert get() == 2
    assert 'cannot write' in error_line(capsys)


# ------------------------------------------------------------------------------------------------
# Weights from Hugging Face

VOCABULARY = {'a': 1, 'b': 2, 'c': 3, 'a</w>': 4, 'b</w>': 5, 'ab': 6, 'é</w>': 7, '<unk>': 0}
MERGES = [('a', 'b'), ('b', 'a</w>')]
SHAPES = [[12, 8], [8, 8], [1, 8, 24], [24], [1, 8, 8], [8], [8], [8], [1, 8, 32], [32]]
SHAPES += [[1, 32, 8], [8], [8], [8]]


def small_arrays():
    """The arrays of a model with one layer, as OpenAI stores them."""
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, dtype=np.float32) for shape in SHAPES]


def openai_files(arrays):
    """{name: content} of the files as OpenAI publishes them."""
    files = {
        'encoder_bpe_40000.json': json.dumps(VOCABULARY).encode(),
        'vocab_40000.bpe': b'#version: 0.2\na b\nb a</w>\n',
        'params_shapes.json': json.dumps(SHAPES).encode(),
    }
    floats = np.concatenate([array.ravel() for array in arrays])
    for i, piece in enumerate(np.array_split(floats, 10)):
        file = io.BytesIO()
        np.save(file, piece)
        files[f'params_{i}.npy'] = file.getvalue()
    return files


def huggingface_files(arrays):
    """{name: content} of the same model on the hub."""
    names = ['positions_embed.weight', 'tokens_embed.weight']
    for part in ('attn.c_attn', 'attn.c_proj', 'ln_1', 'mlp.c_fc', 'mlp.c_proj', 'ln_2'):
        names += [f'h.0.{part}.weight', f'h.0.{part}.bias']
    tensors = {name: array[0] if array.ndim == 3 else array for name, array in zip(names, arrays)}
    config = {'vocab_size': 8, 'n_positions': 12, 'n_embd': 8, 'n_head': 2, 'n_layer': 1}
    vocabulary = dict(sorted(VOCABULARY.items()))
    return {
        'config.json': json.dumps({'model_type': 'openai-gpt', 'afn': 'gelu', **config}).encode(),
        'vocab.json': json.dumps(vocabulary, ensure_ascii=False).encode(),
        'merges.txt': b'#version: 0.2\na b\nb a</w>\n\n',
        'model.safetensors': save(tensors),
    }


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """A server like Hugging Face's, with a small model in place of OpenAI's.

    `hub.get()` fetches it and returns the exit status.
    """
    monkeypatch.setenv('HF_ENDPOINT', server.url)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)

    def publish(files):
        for name, content in files.items():
            server.contents[f'/{download.HUGGINGFACE}/resolve/main/{name}'] = content

    def expect(files):
        ids = {name: download.blob_id(content) for name, content in files.items()}
        monkeypatch.setattr(download, 'WEIGHTS', ids)

    def get():
        model_dir = str(tmp_path / 'model')
        return download.main(['--source', 'huggingface', '--model_dir', model_dir])

    server.publish = publish
    server.expect = expect
    server.get = get
    publish(huggingface_files(small_arrays()))
    expect(openai_files(small_arrays()))
    return server


def test_huggingface_gives_openais_files(hub, model, capsys):
    assert hub.get() == 0
    assert files_below(model) == openai_files(small_arrays())
    assert 'note' not in capsys.readouterr().out
    n_requests = len(hub.requests)
    assert hub.get() == 0  # nothing is fetched again
    assert len(hub.requests) == n_requests


def test_huggingface_gives_the_headers_of_old_versions_of_numpy(hub, model, capsys):
    expected = openai_files(small_arrays())
    for name, content in expected.items():
        if name.endswith('.npy'):
            floats = np.load(io.BytesIO(content))
            expected[name] = download.npy_file(floats, 16)
            assert len(expected[name]) < len(content)
            assert np.array_equal(np.load(io.BytesIO(expected[name])), floats)
            assert download.npy_file(floats, 64) == content
    hub.expect(expected)
    assert hub.get() == 0
    assert files_below(model) == expected
    assert 'note' not in capsys.readouterr().out


def test_huggingface_with_other_numbers_is_said(hub, model, capsys):
    arrays = small_arrays()
    arrays[0][0, 0] += 1
    hub.publish(huggingface_files(arrays))
    assert hub.get() == 0
    assert files_below(model) == openai_files(arrays)
    output = capsys.readouterr().out
    assert 'not byte for byte' in output
    assert 'params_0.npy\n' in output
    numbers = b''.join(array.tobytes() for array in arrays)
    assert hashlib.sha256(numbers).hexdigest() in output


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('vocab.json', json.dumps({**VOCABULARY, 'x': 3, 'c': 8}).encode()),
        ('merges.txt', b'#version: 0.2\nb a</w>\na b\n'),
        ('config.json', b'{"model_type": "openai-gpt"}'),
        ('model.safetensors', b'no tensors'),
    ],
)
def test_huggingface_with_another_model(hub, model, capsys, name, content):
    hub.publish({name: content})
    assert hub.get() == 2
    assert files_below(model) == {}
    error_line(capsys)


def test_huggingface_resumes(hub, model, monkeypatch):
    """In the same command, or with versions of `huggingface_hub` before 2 in the next."""
    monkeypatch.setattr('huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE', 1000)

    def behave(request, start, n):
        weights = request.path.endswith('model.safetensors')
        request.reply(start, send=2000 if weights and not start else None)

    hub.behave = behave
    statuses = [hub.get(), hub.get()]
    assert statuses[-1] == 0
    assert files_below(model) == openai_files(small_arrays())
    assert 'bytes=2000-' in [asked for _, asked in hub.requests]


def test_huggingface_cannot_be_reached(hub, model, monkeypatch, capsys):
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:1')
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)  # between the library's attempts
    assert hub.get() == 2
    assert files_below(model) == {}
    error = error_line(capsys)
    assert 'http://127.0.0.1:1' in error
    assert '--source github' in error


# ------------------------------------------------------------------------------------------------
# Data sets


def zip_file(members, **options):
    """A zip archive of {name or ZipInfo: content}."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content, **options)
    return file.getvalue()


def tar_file(members):
    """A .tar.gz archive of {name or TarInfo: content}."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w:gz') as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name) if isinstance(name, str) else name
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


COLA = {
    'CoLA/': b'',
    'CoLA/train.tsv': b'gj04\t1\t\tThey sang.\n',
    'CoLA/original/raw/in_domain_dev.tsv': b'gj04\t0\t*\tThey sang it him.\n',
}
LEFTOVERS = {
    '__MACOSX/CoLA/._train.tsv': b'mac',
    'CoLA/.DS_Store': b'mac',
    'CoLA/Icon\r': b'mac',
    'README.txt': b'beside the folder',
}


@pytest.fixture
def data(server, tmp_path, monkeypatch):
    """`data(name, {file name: content})` offers a data set; `data.get(name)` fetches it."""

    class Data:
        folder = tmp_path / 'data'

        def __call__(self, name, files):
            remotes = []
            for file, content in files.items():
                server.contents[f'/{file}'] = content
                digest = f'sha256:{hashlib.sha256(content).hexdigest()}'
                remotes.append(download.Remote(server.url + file, digest, len(content)))
            data_set = download.DATA_SETS[name]._replace(files=tuple(remotes))
            monkeypatch.setitem(download.DATA_SETS, name, data_set)

        def get(self, *names):
            options = ['--timeout', '0.3', '--retries', '2', '--data_dir', str(self.folder)]
            return download.main([*names, *options])

        @property
        def files(self):
            return files_below(self.folder)

    return Data()


def test_the_table_of_data_sets():
    """It has every data set of train.py, except the two that cannot be fetched."""
    assert set(DATASETS) - set(download.DATA_SETS) == {'rocstories', 'custom'}
    remotes = [remote for data_set in download.DATA_SETS.values() for remote in data_set.files]
    assert len({remote.url for remote in remotes}) == len(remotes)
    for remote in remotes:
        kind, digits = remote.digest.split(':')
        assert kind == 'sha256'
        assert len(bytes.fromhex(digits)) == 32
        assert remote.size > 0


@pytest.mark.parametrize(
    ('name', 'make'), [('CoLA.zip', zip_file), ('CoLA.tar.gz', tar_file)], ids=['zip', 'tar']
)
def test_a_data_set(server, data, capsys, name, make):
    members = {member: content for member, content in COLA.items() if content}
    data('cola', {name: make({**members, **LEFTOVERS})})
    assert data.get('cola') == 0
    assert data.files == members
    assert str(data.folder / 'CoLA') in capsys.readouterr().out
    assert data.get('cola') == 0
    assert 'exists' in capsys.readouterr().out
    assert len(server.requests) == 1


def test_two_data_sets(data):
    data('cola', {'CoLA.zip': zip_file(COLA)})
    data('mnli', {'MNLI.zip': zip_file({'MNLI/train.tsv': b'1'}), 'AX.tsv': b'2'})
    assert data.get('cola', 'mnli') == 0
    assert {'CoLA/train.tsv', 'MNLI/train.tsv', 'MNLI/AX.tsv'} < set(data.files)


def test_a_cut_data_set_is_resumed(server, data):
    content = zip_file({'CoLA/train.tsv': random.Random(1).randbytes(100_000).hex()})
    data('cola', {'CoLA.zip': content})
    server.behave = lambda request, start, n: request.reply(start, send=None if n == 3 else 40_000)
    assert data.get('cola') == 0
    assert list(data.files) == ['CoLA/train.tsv']
    assert [asked is None for _, asked in server.requests] == [True, False, False]


def test_a_stalled_data_set(server, data, capsys):
    data('cola', {'CoLA.zip': zip_file(COLA)})
    server.behave = lambda request, start, n: time.sleep(0.5)
    assert data.get('cola') == 2
    assert data.files == {}
    assert f'put it at {data.folder / "CoLA.zip"}' in error_line(capsys)


def test_a_redirected_data_set(server, data):
    data('cola', {'CoLA.zip': zip_file(COLA)})
    server.contents['/moved'] = server.contents['/CoLA.zip']

    def behave(request, start, n):
        if request.path == '/moved':
            request.reply(start)
        else:
            request.redirect('/moved')

    server.behave = behave
    assert data.get('cola') == 0
    assert 'CoLA/train.tsv' in data.files


def test_a_wrong_data_set(server, data, capsys):
    """Another file, a longer or a shorter one: nothing is unpacked."""
    right = zip_file(COLA)
    data('cola', {'CoLA.zip': right})
    for wrong in (right[:-1], right + b'x', right[:-1] + b'x', b'<html></html>', right * 10):
        server.contents['/CoLA.zip'] = wrong
        assert data.get('cola') == 2
        assert 'is not the published file' in error_line(capsys)
        assert data.files == {}


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
    assert data.files['CoLA.zip'] == archive  # it is the user's


def test_a_killed_unpacking_is_repeated(data):
    data('cola', {'CoLA.zip': zip_file(COLA)})
    unfinished = data.folder / 'CoLA.part'
    unfinished.mkdir(parents=True)
    (unfinished / 'train.tsv').write_bytes(b'the first ha')
    assert data.get('cola') == 0
    assert data.files == {name: content for name, content in COLA.items() if content}


def test_mrpc_as_glue_puts_it_together(data):
    header = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n'
    rows = ['1\t11\t12\tHe said " no .\tHe said no .\n', '0\t21\t22\té\tb\n', '1\t31\t32\tc\td\n']
    test_rows = ['1\t41\t42\te\t"f\n', '0\t51\t52\tg\th\n']
    sources = {
        'msr_paraphrase_train.txt': ''.join([header, *rows]).encode(),
        'msr_paraphrase_test.txt': ''.join([header, *test_rows]).replace('\n', '\r\n').encode(),
        'mrpc_dev_ids.tsv': b'21\t22\n',
    }
    data('mrpc', sources)
    assert data.get('mrpc') == 0
    test = 'index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t41\t42\te\t"f\n1\t51\t52\tg\th\n'
    expected = {
        **sources,
        'train.tsv': (header + rows[0] + rows[2]).encode(),
        'dev.tsv': (header + rows[1]).encode(),
        'test.tsv': test.encode(),
    }
    assert data.files == {f'MRPC/{name}': content for name, content in expected.items()}


def test_terms_must_be_accepted(server, data, capsys):
    data('race', {'RACE.tar.gz': tar_file({'RACE/dev/high/73.txt': b'{}'})})
    assert data.get('race') == 2
    error = error_line(capsys)
    assert 'http://www.cs.cmu.edu/~glai1/data/race/' in error
    assert '--accept_terms' in error
    assert server.requests == []
    assert data.get('race', '--accept_terms') == 0
    assert data.files == {'RACE/dev/high/73.txt': b'{}'}


def test_rocstories_comes_by_request(data, capsys):
    assert data.get('rocstories') == 2
    assert 'https://cs.rochester.edu/nlp/rocstories/' in error_line(capsys)


def test_an_unknown_data_set(data, capsys):
    with pytest.raises(SystemExit) as exit_:
        data.get('imdb')
    assert exit_.value.code == 2
    assert 'imdb' in error_line(capsys)


def test_help_lists_all(capsys):
    with pytest.raises(SystemExit):
        download.main(['--help'])
    output = capsys.readouterr().out
    for name in (*DATASETS, *download.DATA_SETS, 'weights'):
        assert name == 'custom' or f'  {name} ' in output


# ------------------------------------------------------------------------------------------------
# Archives


@pytest.fixture
def unpack(tmp_path):
    """Unpack an archive into a folder. Returns its files."""

    def unpack(content, name='CoLA.zip'):
        (tmp_path / name).write_bytes(content)
        (tmp_path / 'outer' / 'inner').mkdir(parents=True)
        download.unpack(str(tmp_path / name), 'CoLA', str(tmp_path / 'outer' / 'inner'))
        return files_below(tmp_path / 'outer' / 'inner')

    yield unpack
    assert set(os.listdir(tmp_path)) <= {'outer', 'CoLA.zip', 'CoLA.tar.gz'}
    assert os.listdir(tmp_path / 'outer') == ['inner']


UNSAFE = ['../x', 'CoLA/../../x', '/tmp/x', 'CoLA/a/../../../x', 'CoLA\\..\\..\\x', 'C:/x', '..']


@pytest.mark.parametrize('name', UNSAFE)
def test_a_path_that_leaves_the_archive(unpack, name):
    with pytest.raises(InputError, match='outside'):
        unpack(zip_file({'CoLA/a': b'1', name: b'2'}))


@pytest.mark.parametrize('name', UNSAFE)
def test_a_path_that_leaves_a_tar_archive(unpack, name):
    with pytest.raises(InputError, match='outside'):
        unpack(tar_file({'CoLA/a': b'1', name: b'2'}), 'CoLA.tar.gz')


def test_a_link_in_a_zip_archive(unpack):
    link = zipfile.ZipInfo('CoLA/link')
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InputError, match='is a link'):
        unpack(zip_file({link: b'/etc/passwd'}))


@pytest.mark.parametrize(
    'kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_link_or_a_device_in_a_tar_archive(unpack, kind):
    link = tarfile.TarInfo('CoLA/link')
    link.type = kind
    link.linkname = '/etc/passwd'
    with pytest.raises(InputError, match='is a link'):
        unpack(tar_file({link: b''}), 'CoLA.tar.gz')


def test_bombs(unpack):
    with pytest.raises(InputError, match='would unpack to more than'):
        unpack(zip_file({'CoLA/a': b'0' * 10_000_000}))


def test_a_bomb_of_tar(unpack):
    with pytest.raises(InputError, match='would unpack to more than'):
        unpack(tar_file({'CoLA/a': b'0' * 10_000_000}), 'CoLA.tar.gz')


def test_a_bomb_that_lies_about_its_size(unpack):
    """The size in the directory of the archive is made smaller than the content."""
    archive = zip_file({'CoLA/a': b'0' * 10_000_000})
    lie = archive.replace((10_000_000).to_bytes(4, 'little'), (100).to_bytes(4, 'little'))
    with pytest.raises(InputError, match='damaged'):
        unpack(lie)


def test_too_many_files(unpack, monkeypatch):
    monkeypatch.setattr(download, 'MAX_MEMBERS', 10)
    with pytest.raises(InputError, match='10 files'):
        unpack(zip_file({f'CoLA/{i}': b'' for i in range(11)}))


@pytest.mark.parametrize(('name', 'make'), [('CoLA.zip', zip_file), ('CoLA.tar.gz', tar_file)])
@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive(unpack, name, make, share):
    archive = make({f'CoLA/{i}': random.Random(i).randbytes(1000) for i in range(50)})
    with pytest.raises(InputError, match='damaged'):
        unpack(archive[: int(share * len(archive))], name)


def test_an_archive_without_the_folder(unpack):
    with pytest.raises(InputError, match='no folder CoLA'):
        unpack(zip_file({'SST-2/train.tsv': b'1'}))
