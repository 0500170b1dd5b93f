"""The notebook runs from top to bottom and is committed without outputs."""

import json
import os
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOTEBOOK = os.path.join(ROOT, 'docs', 'tour.ipynb')
TIME_LIMIT = 300  # seconds


def test_no_outputs_are_committed():
    with open(NOTEBOOK, encoding='utf-8') as f:
        cells = json.load(f)['cells']
    for cell in cells:
        if cell['cell_type'] == 'code':
            assert cell['outputs'] == [], cell['source']
            assert cell['execution_count'] is None, cell['source']


def test_it_runs_within_five_minutes():
    if 'CI' not in os.environ:  # there, a missing package must not go unnoticed
        pytest.importorskip('nbclient')
        pytest.importorskip('ipykernel')
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIME_LIMIT,  # of each cell
        kernel_name='python3',
        resources={'metadata': {'path': ROOT}},  # the kernel's working folder
    )
    start = time.monotonic()
    client.execute()
    assert time.monotonic() - start < TIME_LIMIT
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get('outputs', [])
        if 'image/png' in output.get('data', {})
    ]
    assert len(pictures) == 2
