"""The notebook runs from any folder, and is stored with the outputs of the present code.

    python tests/test_notebook.py

runs it and stores its outputs, and the address of the repository that Colab clones.
"""

import json
import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOTEBOOK = os.path.join(ROOT, 'docs', 'tour.ipynb')
NUMBER = r'-?\d+(?:\.\d+)?'


def executed(notebook):
    """Run a notebook in the folder docs/."""
    from nbclient import NotebookClient

    folder = {'metadata': {'path': os.path.dirname(NOTEBOOK)}}
    client = NotebookClient(notebook, timeout=300, resources=folder, record_timing=False)
    return client.execute()


def outputs(notebook):
    """The texts of each cell's outputs, and the number of its pictures."""
    cells = []
    for cell in notebook['cells']:
        data = [output.get('data', output) for output in cell.get('outputs', [])]
        texts = [''.join(some.get('text/plain', some.get('text', ''))) for some in data]
        n_pictures = sum('image/png' in some for some in data)
        cells.append(('' if n_pictures else '\n'.join(texts), n_pictures))
    return cells


def test_the_stored_outputs_are_those_of_the_present_code():
    """Numbers within rounding, which training makes larger; and the pictures are there."""
    if 'CI' not in os.environ:  # there, a missing package must not go unnoticed
        pytest.importorskip('nbclient')
        pytest.importorskip('ipykernel')
    import nbformat

    stored = nbformat.read(NOTEBOOK, as_version=4)
    wanted = outputs(stored)
    assert sum(n for _, n in wanted) == 2
    for (before, n), (now, n_now) in zip(wanted, outputs(executed(nbformat.from_dict(stored)))):
        assert n == n_now
        assert re.sub(rf'\s*{NUMBER}', ' #', before) == re.sub(rf'\s*{NUMBER}', ' #', now)
        tolerance = 10 if '%' in now else 0.005  # percentages are those of the trained model
        numbers, old = (list(map(float, re.findall(NUMBER, text))) for text in (now, before))
        assert numbers == pytest.approx(old, abs=tolerance)


def test_alone_it_fetches_the_repository(tmp_path, monkeypatch):
    """On Colab. In any folder of a clone it finds the root."""
    with open(NOTEBOOK, encoding='utf-8') as f:
        cells = json.load(f)['cells']
    code, _, _ = ''.join(cells[1]['source']).partition('import gpt1.startup')
    commands = []
    monkeypatch.setattr(subprocess, 'run', lambda words, check: commands.append(words))
    monkeypatch.setattr(os, 'chdir', commands.append)
    monkeypatch.setattr(sys, 'path', [])
    for folder in (os.path.join(ROOT, 'gpt1', 'ops'), tmp_path):
        monkeypatch.setattr('pathlib.Path.cwd', lambda folder=folder: type(tmp_path)(folder))
        exec(code, {})
    root, clone, install, new_root = commands
    assert str(root) == ROOT and new_root == tmp_path / 'gpt1'
    assert clone[:2] == ['git', 'clone'] and clone[-1] == str(new_root)
    assert str(new_root / 'requirements.txt') in install


def store():
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    command = ['git', 'remote', 'get-url', 'origin']
    address = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    first = notebook.cells[1]
    if address.startswith('https://'):
        first.source = re.sub("REPOSITORY = '.*?'", f"REPOSITORY = '{address}'", first.source)
    nbformat.write(executed(notebook), NOTEBOOK)


if __name__ == '__main__':
    store()
