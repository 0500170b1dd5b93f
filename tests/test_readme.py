"""README's Python examples run as they stand."""

import os
import re

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def examples():
    """(name, code) of each ```python block of the READMEs."""
    for name in ('README.md', 'README.zh-CN.md'):
        path = os.path.join(ROOT, name)
        if os.path.exists(path):
            with open(path, encoding='utf-8') as f:
                for match in re.finditer(
                    r'^```python\n(.*?)^```', text := f.read(), re.MULTILINE | re.DOTALL
                ):
                    yield pytest.param(
                        match[1], id=f'{name}, line {text.count(chr(10), 0, match.start()) + 1}'
                    )


@pytest.mark.parametrize('code', list(examples()))
def test_example(code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, 'README', 'exec'), {'__name__': 'readme'})
    assert capsys.readouterr().out or 'print' not in code
