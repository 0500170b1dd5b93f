"""download.py against a local server that misbehaves: what ends up in the folder is OpenAI's, whole, or not there."""

import http.server
import os
import random
import threading
import time

import pytest

import download

CONTENT = random.Random(0).randbytes(200_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT under every name, in the way that the server's `behave` chooses for each request."""

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get('Range')))
        start = (
            int(self.headers['Range'].split('=')[1].rstrip('-')) if 'Range' in self.headers else 0
        )
        self.server.behave(self, start, len(self.server.requests))

    def reply(self, start=0, content=CONTENT, send=None, status=None):
        """Announce content[start:], but send only `send` bytes of it."""
        self.send_response(status or (206 if start else 200))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.send_header('Content-Length', len(content) - start)
        self.end_headers()
        self.wfile.write(content[start:] if send is None else content[start : start + send])
        if send is not None:
            self.wfile.flush()
            self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.handle_error = lambda *_: None  # clients go away; that is what is tested
    server.requests = []
    server.behave = lambda request, start, n: request.reply(start)
    server.daemon_threads = True
    threading.Thread(
        target=server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True
    ).start()
    server.url = f'http://127.0.0.1:{server.server_address[1]}/'
    monkeypatch.setenv('NO_PROXY', '*')
    monkeypatch.setattr(
        'urllib3.util.Retry.sleep', lambda self, response=None: None
    )  # the pauses are urllib3's
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Fetch 13 files of CONTENT, or one, from the server. Returns the exit status."""
    whole = tmp_path / 'content'
    whole.write_bytes(CONTENT)
    files = dict.fromkeys(download.FILES, download.git_blob_id(whole))

    def get(*options, only=None):
        monkeypatch.setattr(download, 'FILES', {only: files[only]} if only else files)
        return download.main(
            [
                '--url',
                server.url,
                '--model_dir',
                str(tmp_path / 'model'),
                '--timeout',
                '0.3',
                '--retries',
                '2',
                *options,
            ]
        )

    return get


def there(tmp_path):
    return {
        name: (tmp_path / 'model' / name).read_bytes() for name in os.listdir(tmp_path / 'model')
    }


def test_published_files():
    """13 names, 13 different SHA-1 ids."""
    assert len(download.FILES) == len(set(download.FILES.values())) == 13
    assert all(len(bytes.fromhex(blob_id)) == 20 for blob_id in download.FILES.values())


def test_git_blob_id(tmp_path):
    (tmp_path / 'hello').write_bytes(b'hello\n')
    assert (
        download.git_blob_id(tmp_path / 'hello') == 'ce013625030ba8dba906f756967f9e9ca394464a'
    )  # git hash-object


def test_all_files(server, get, tmp_path, capsys):
    assert get() is None
    assert there(tmp_path) == dict.fromkeys(download.FILES, CONTENT)
    assert len(server.requests) == 13
    assert '13 files' in capsys.readouterr().out
    assert get() is None  # nothing is fetched again
    assert len(server.requests) == 13


def test_cut_connections_are_resumed(server, get, tmp_path):
    server.behave = lambda request, start, n: request.reply(start, send=None if n == 8 else 24_000)
    assert get(only='params_0.npy') is None  # more cuts than --retries: each brought something
    assert there(tmp_path) == {'params_0.npy': CONTENT}
    starts = [int((wanted or 'bytes=0-')[6:-1]) for _, wanted in server.requests]
    assert len(starts) == 8 and starts[0] == 0 and all(a < b for a, b in zip(starts, starts[1:]))


def test_a_killed_download_goes_on(server, get, tmp_path):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'params_0.npy.part').write_bytes(CONTENT[:150_000])
    assert get(only='params_0.npy') is None
    assert there(tmp_path) == {'params_0.npy': CONTENT}
    assert server.requests == [('/params_0.npy', 'bytes=150000-')]


@pytest.mark.parametrize('part', [b'x' * 1000, CONTENT + b'x', b'x' * len(CONTENT)])
def test_a_wrong_beginning_is_thrown_away(server, get, tmp_path, part):
    def behave(request, start, n):
        if start >= len(CONTENT):
            request.reply(content=b'', status=416)
        else:
            request.reply(start)

    server.behave = behave
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'params_0.npy.part').write_bytes(part)
    assert get(only='params_0.npy') is None
    assert there(tmp_path) == {'params_0.npy': CONTENT}


def test_a_whole_part_needs_no_bytes(server, get, tmp_path):
    server.behave = lambda request, start, n: request.reply(content=b'', status=416)
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'params_0.npy.part').write_bytes(CONTENT)
    assert get(only='params_0.npy') is None
    assert there(tmp_path) == {'params_0.npy': CONTENT}


def test_a_server_that_ignores_range(server, get, tmp_path):
    server.behave = lambda request, start, n: request.reply(0, send=120_000 if n == 1 else None)
    assert get(only='params_0.npy') is None
    assert there(tmp_path) == {'params_0.npy': CONTENT}


@pytest.mark.parametrize(
    'content', [CONTENT[:-1] + b'?', b'', b'<html>Sign in to the hotel</html>', CONTENT * 2]
)
def test_wrong_bytes_are_never_a_file(server, get, tmp_path, capsys, content):
    server.behave = lambda request, start, n: request.reply(start, content=content)
    assert get(only='params_0.npy') == 2
    assert there(tmp_path) == {}
    error = capsys.readouterr().err
    assert (
        error.startswith('download.py: error: ')
        and 'params_0.npy' in error
        and error.count('\n') == 1
    )
    assert len(server.requests) == 2


def test_endless_bytes_end(server, get, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, 'LARGEST', 300_000)
    server.behave = lambda request, start, n: request.reply(start, content=CONTENT * 10)
    assert get(only='params_0.npy') == 2
    assert there(tmp_path) == {}


def test_redirects(server, get, tmp_path):
    def behave(request, start, n):
        if not request.path.startswith('/moved/'):
            request.send_response(302)
            request.send_header('Location', '/moved' + request.path)
            request.send_header('Content-Length', 0)
            request.end_headers()
        else:
            request.reply(start, send=70_000 if n == 2 else None)

    server.behave = behave
    assert get(only='params_0.npy') is None
    assert there(tmp_path) == {'params_0.npy': CONTENT}
    assert server.requests[-1] == (
        '/moved/params_0.npy',
        f'bytes={70_000 // download.CHUNK * download.CHUNK}-',
    )  # asked for the rest after the redirect, too


def test_endless_redirects(server, get, capsys):
    def behave(request, start, n):
        request.send_response(302)
        request.send_header('Location', f'/{n}')
        request.send_header('Content-Length', 0)
        request.end_headers()

    server.behave = behave
    assert get(only='params_0.npy') == 2
    assert '302' in capsys.readouterr().err


def test_a_stall(server, get, tmp_path):
    """The server sends some bytes and then nothing: after --timeout, the rest is asked for."""

    def behave(request, start, n):
        request.reply(start, send=60_000 if n == 1 else None)
        if n == 1:
            time.sleep(1)  # the connection stays open

    server.behave = behave
    assert get(only='params_0.npy') is None
    assert there(tmp_path) == {'params_0.npy': CONTENT}
    assert server.requests[1][1] == f'bytes={60_000 // download.CHUNK * download.CHUNK}-'


def test_a_stall_for_good(server, get, capsys):
    server.behave = lambda request, start, n: time.sleep(0.5)
    assert get(only='params_0.npy') == 2
    assert len(server.requests) == 3  # once and --retries
    assert 'timed out' in capsys.readouterr().err


def test_a_busy_server(server, get, tmp_path, capsys):
    server.behave = lambda request, start, n: request.reply(start, status=503 if n < 3 else None)
    assert get(only='params_0.npy') is None
    assert there(tmp_path) == {'params_0.npy': CONTENT}
    server.behave = lambda request, start, n: request.reply(start, status=503)
    assert get(only='params_1.npy') == 2
    assert '503' in capsys.readouterr().err


@pytest.mark.parametrize('status', [403, 404])
def test_not_found(server, get, tmp_path, capsys, status):
    server.behave = lambda request, start, n: request.reply(
        content=b'404: Not Found', status=status
    )
    assert get(only='params_0.npy') == 2
    assert len(server.requests) == 1 and there(tmp_path) == {}
    error = capsys.readouterr().err
    assert str(status) in error and error.count('\n') == 1


@pytest.mark.parametrize('url', ['http://127.0.0.1:1/', 'file:///etc/', 'nonsense', 'http:///a'])
def test_no_server(get, capsys, url):
    assert get('--url', url, only='params_0.npy') == 2
    error = capsys.readouterr().err
    assert error.startswith(f'download.py: error: cannot fetch {url}') and error.count('\n') == 1, (
        error
    )


def test_a_file_of_the_users_own_is_left_alone(server, get, tmp_path, capsys):
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'params_0.npy').write_bytes(b'pre-trained for a week')
    assert get() == 2
    assert there(tmp_path)['params_0.npy'] == b'pre-trained for a week'
    assert 'params_0.npy is there, but' in capsys.readouterr().err


def test_no_place_to_write(get, tmp_path, capsys):
    (tmp_path / 'model').write_bytes(b'a file')
    assert get() == 2
    assert 'cannot write' in capsys.readouterr().err
