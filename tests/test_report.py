"""A report as a page, in a real browser."""

import re
import sys

import pytest
from browser import NEEDS_CHROMIUM, Browser

from gpt1.report.html import write_html
from gpt1.report.log import plain
from gpt1.report.pictures import draw
from gpt1.report.report import markdown_table

TEXTS = [  # what would be markup, or turn the line around
    '<script>document.title = "hacked"</script>',
    '<img src=http://example.com/a.png onerror=alert(1)>',
    '| a | `b` | *c* __d__ ~~e~~ [f](http://example.com) ![g](a.png) $h$ \\',
    '&amp; &lt;i&gt; "quoted" <!-- hidden -->',
    '# שלום (5)',
    'مرحبا\u202e abc',
    '😀 👩‍👩‍👧',
    'two\n\nlines',
    'x' * 300,
]
ISOLATE = re.compile('[\u2068\u2069]')


def write_page(folder):
    """A page with the texts as title, in a table and in a list, and with a wide picture."""
    shown = [plain(text) for text in TEXTS]
    lines = [f'# {shown[0]}', '', *markdown_table(['class', *shown[:3]], [[t] * 4 for t in shown])]
    lines += ['', '![A line](line.png)', '', '![Lost](lost.png)', '']
    lines += [f'1. Example {text}: right\n   - text: {text}' for text in shown]
    draw(str(folder / 'line.png'), 9, 4, lambda axes: axes.plot([1, 2]))
    (folder / 'report.md').write_text('\n'.join(lines), encoding='utf-8')
    return write_html(folder / 'report.md')


@NEEDS_CHROMIUM
def test_a_browser_shows_the_report_as_it_is(tmp_path):
    path = write_page(tmp_path)
    expected = [' '.join(text.split()) for text in TEXTS]
    with Browser(tmp_path / 'browser') as page:
        for width, scheme in [(390, 'light'), (1200, 'dark')]:
            page.open(path, width, scheme)
            rows = page.value('[...document.querySelectorAll("tbody tr")].map(r => r.innerText)')
            items = page.value('[...document.querySelectorAll("li li")].map(i => i.innerText)')
            for text, row, item in zip(expected, rows, items, strict=True):
                text = ISOLATE.sub('', text)
                assert ISOLATE.sub('', row) == '\t'.join([text] * 4)
                assert ISOLATE.sub('', item) == f'text: {text}'
            assert page.value('document.title') == expected[0]
            assert page.value('[...document.images].map(i => i.naturalWidth)') == [1080]
            assert page.value('document.scrollingElement.scrollWidth') <= width
        dark = page.value('getComputedStyle(document.body).backgroundColor')
        assert max(map(int, re.findall(r'\d+', dark))) < 50
    told = {event['method'] for event in page.events}
    assert not told & {'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'}
    requests = [e for e in page.events if e['method'] == 'Network.requestWillBeSent']
    addresses = {e['params']['request']['url'].split(':')[0] for e in requests}
    assert addresses == {'file', 'data'}


@pytest.mark.parametrize('missing', ['folder', 'library'])
def test_a_page_that_cannot_be_written_is_a_warning(tmp_path, capsys, monkeypatch, missing):
    (tmp_path / 'report.md').write_text('# A\n')
    if missing == 'folder':
        (tmp_path / 'report.html').mkdir()
    else:
        monkeypatch.setitem(sys.modules, 'markdown_it', None)
    assert write_html(tmp_path / 'report.md') is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: {tmp_path / "report.html"} was not made: ')
