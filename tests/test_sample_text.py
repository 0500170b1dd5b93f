"""The made-up text to pre-train on: repeatable, and without the stories of the sample."""

import os
import sys

import pytest

DATA_DIR = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data')
sys.path.insert(0, DATA_DIR)
import sample_text
from sample_stories import sample_files


def test_a_seed_gives_the_same_lines():
    lines = list(sample_text.lines(300, 3))
    assert lines == list(sample_text.lines(300, 3))
    assert lines[:100] == list(sample_text.lines(100, 3))
    assert lines != list(sample_text.lines(300, 4))


def test_every_kind_of_line_occurs():
    text = '\n'.join(sample_text.lines(2000, 7))
    assert all(question in text for question in sample_text.GUESS + sample_text.END)
    verdicts = [verdict for phrasings in sample_text.VERDICTS.values() for verdict in phrasings]
    assert all(f'. {verdict}\n' in text for verdict in verdicts)
    assert 'very positive' in text
    assert 'very negative' in text
    assert ' because ' in text


def test_no_line_holds_a_story_of_the_sample():
    contexts = [' '.join(row[1:5]) for rows in sample_files().values() for row in rows]
    for line in sample_text.lines(2000, 2018):
        assert not line.startswith(tuple(contexts))


def test_command_line(tmp_path, capsys):
    out = tmp_path / 'text.txt'
    assert sample_text.main(['--n', '50', '--seed', '3', '--out', str(out)]) == 0
    assert out.read_text().splitlines() == list(sample_text.lines(50, 3))
    for wrong in ([], ['--n', '0', '--out', str(out)], ['--n', '1', '--out', str(tmp_path)]):
        with pytest.raises(SystemExit) as stopped:
            sample_text.main(wrong)
        assert stopped.value.code == 2
        assert 'error' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['text.txt']
