"""Every script says in one line that a Python is too old, and sets how threads wait."""

import ast
import glob
import os
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from gpt1 import startup


def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as f:
        return f.read()


SCRIPTS = sorted(
    name for name in glob.glob('*.py', root_dir=ROOT) if "if __name__ == '__main__':" in read(name)
)
BENCHMARKS = sorted(glob.glob('benchmarks/*.py', root_dir=ROOT))  # they measure what people run


def python(code, env=None):
    return subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=env, capture_output=True, text=True
    )


def test_one_line_under_an_old_python():
    code = 'import sys; sys.version_info = (3, 10, 4, "final", 0); from gpt1 import startup'
    process = python(code)
    assert process.returncode == 2
    assert process.stderr == 'error: this program needs Python 3.11 or newer; this is 3.10\n'


@pytest.mark.parametrize(
    'given, expected',
    [
        ({}, '1000 0'),
        ({'GOMP_SPINCOUNT': '7'}, '7 0'),
        ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'None None'),
    ],
)
def test_threads_wait_as_the_user_says(given, expected):
    names = 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'
    process = python(f'import os, gpt1.startup; print(*map(os.environ.get, {names}))', given)
    assert process.stdout == expected + '\n'


def test_pictures_stop_no_run(tmp_path):
    """Jupyter names a backend that may be missing; a container may be read-only."""
    path = str(tmp_path / 'a.png')
    code = 'import gpt1.startup, tempfile\nfrom gpt1.report import pictures\n'
    draw = f'pictures.draw({path!r}, 2, 2, id)'
    process = python(code + draw, {**os.environ, 'MPLBACKEND': 'not-there'})
    assert process.returncode == 0 and os.path.exists(path) and process.stderr == ''
    os.unlink(path)
    code += 'tempfile._candidate_tempdir_list = list\n'
    process = python(code + draw, {**os.environ, 'MPLCONFIGDIR': '/dev/null/x'})
    assert process.returncode == 0 and not os.path.exists(path)
    assert 'MPLCONFIGDIR' in process.stderr


def test_scripts_import_startup_before_libraries():
    """An old Python can parse both: else a SyntaxError would come before the line about it."""
    ast.parse(read('gpt1/startup.py'), feature_version=(3, 8))
    for script in (*SCRIPTS, *BENCHMARKS):
        tree = ast.parse(read(script), feature_version=(3, 8) if script in SCRIPTS else None)
        modules = []
        for node in tree.body:
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules.append(node.module)
        others = [name for name in modules if name.split('.')[0] not in sys.stdlib_module_names]
        assert others[0] == 'gpt1.startup', script


def test_the_oldest_python_is_the_same_everywhere():
    project = tomllib.loads(read('pyproject.toml'))['project']
    oldest = '.'.join(map(str, startup.OLDEST))
    assert project['requires-python'] == f'>={oldest}'
    assert f'Python {oldest}' in read('requirements.txt')
