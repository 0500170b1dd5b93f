"""What the documents say runs, and what they name exists."""

import glob
import os
import re
import shlex
import subprocess

import pytest
from conftest import run

from datasets import TASKS
from gpt1.options import ALL, options_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READMES = ('README.md', 'docs/README.zh-CN.md')
DOCUMENTS = sorted(
    name
    for name in glob.glob('**/*.md', root_dir=ROOT, recursive=True)
    if name.split(os.sep)[0] in ('README.md', 'docs', 'data', 'model', 'tests')
)


def read(name):
    with open(os.path.join(ROOT, name), encoding='utf-8') as f:
        return f.read()


def blocks(text, language):
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.MULTILINE | re.DOTALL)


def commands(text):
    """Return the indented command lines of a document, each as a list of words."""
    text = text.replace('\\\n', ' ')
    lines = re.findall(r'^ {4}((?:python|torchrun) .*)$', text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_your_own_data_and_the_library_example(tmp_path, monkeypatch, capsys):
    (tmp_path / 'my').mkdir()
    [table] = blocks(read('README.md'), 'csv')
    (tmp_path / 'my' / 'train.csv').write_text(table, encoding='utf-8')
    own = {'custom', 'I fell asleep.'}
    train, predict = (words for words in commands(read('README.md')) if own & set(words))
    run(tmp_path, 'train', *train[2:], '--n_iter', '1', '--device', 'cpu')
    assert (tmp_path / 'analysis' / 'custom' / 'report.md').exists()
    lines = run(tmp_path, 'predict', *predict[2:]).splitlines()[-2:]  # after a warning
    assert [line.split()[0] in ('good', 'bad') for line in lines] == [True, True]
    [code] = blocks(read('docs/library.md'), 'python')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, 'library.md', 'exec'), {'__name__': 'library'})
    word, classes = capsys.readouterr().out.splitlines()
    assert word.strip() and "'good': 0." in classes


@pytest.mark.parametrize('name', DOCUMENTS)
def test_commands_use_options_that_exist(name):
    for words in commands(read(name)):
        for script in (word for word in words if word.endswith('.py')):
            assert os.path.exists(os.path.join(ROOT, script)), script
        for script in {'train.py', 'pretrain.py'} & set(words):
            known = {f'--{option.name}' for option in options_of(script)}
            used = words[words.index(script) :]
            assert {word for word in used if word.startswith('--')} <= known


@pytest.mark.skipif(not os.path.exists(os.path.join(ROOT, '.git')), reason='not a clone')
def test_git_ignores_what_the_documents_tell_people_to_write():
    """Else `git add .` would commit weights and data."""
    paths = [f'model/{name}' for name in ('params_0.npy', 'model.safetensors', '.weights.lock')]
    for words in [words for name in DOCUMENTS for words in commands(read(name))]:
        places = ('--out', '--text', '--data_dir', '>')
        paths += [path for option, path in zip(words, words[1:]) if option in places]
        paths += words[3:] if words[1] == 'convert.py' else []
    assert {'my/', 'books/', 'predictions.csv', 'openai-gpt/', 'model/mine'} < set(paths)
    ignored = subprocess.run(
        ['git', 'check-ignore', *paths], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    assert set(paths) == set(ignored)


@pytest.mark.parametrize('name', DOCUMENTS)
def test_options_tests_and_links_in_the_text_exist(name):
    text = read(name)
    known = {option.name for option in ALL}
    known |= {'help', 'source', 'accept_terms', 'params', 'max-restarts', 'list', 'variants'}
    known |= {'train_options', 'datasets', 'template', 'answers', 'compare'}
    assert set(re.findall(r'`--([a-z_-]+)', text)) <= known
    for file, test in re.findall(r'`(test_\w+\.py)::(test_\w+)`', text):
        assert f'\ndef {test}(' in read(f'tests/{file}'), f'{file}::{test}'
    folder = os.path.join(ROOT, os.path.dirname(name))
    for link in re.findall(r'\]\(([^)]+)\)', text):
        path = link.split('#')[0]
        assert '://' in link or os.path.exists(os.path.join(folder, path)), link


@pytest.mark.parametrize('name', READMES)
def test_modules_and_tasks_that_are_listed_exist(name):
    files = re.findall(r'`((?:gpt1/)?[\w/]+(?:\.py|/))`', read(name))
    assert len(files) > 10
    written = ('analysis/rocstories/', 'data/', 'model/')
    for file in set(files) - set(written):
        assert os.path.exists(os.path.join(ROOT, file)), file
    listed = re.findall(r'^\| `(\w+)` \|', read(name), re.MULTILINE)
    assert len(listed) > 10 and set(listed) <= set(TASKS)


def test_the_readmes_have_the_same_commands_and_data():
    """But for their comments. README is short."""
    english, chinese = map(read, READMES)
    assert len(english.split()) <= 1300
    assert commands(english) == commands(chinese)
    assert blocks(english, 'csv') == blocks(chinese, 'csv')
