"""A report in Markdown as one HTML file, which a browser opens by double click."""

import base64
import html
import os
import string

from gpt1.report.pictures import optional
from utils import whole_file

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'page.html')
WITH_DIRECTION = ('heading_open', 'paragraph_open', 'list_item_open', 'th_open', 'td_open')


def write_html(markdown_path: str | os.PathLike) -> None:
    """Write an .html file beside a report in Markdown, which begins with its title.

    The pictures are inside; texts are shown as they are. The file asks for and runs nothing.
    """
    path = os.path.splitext(markdown_path)[0] + '.html'
    with optional(path):
        with open(markdown_path, encoding='utf-8') as f:
            page = render(f.read(), os.path.dirname(markdown_path))
        with whole_file(path) as f:
            f.write(page)


def render(text: str, folder: str) -> str:
    """The page of a report in Markdown, with the pictures of a folder inside."""
    from markdown_it import MarkdownIt  # not needed for anything else

    markdown = MarkdownIt('commonmark', {'html': False}).enable('table')
    tokens = markdown.parse(text)
    title = ''.join(part.content for part in tokens[1].children)
    for token in tokens:
        if token.type in WITH_DIRECTION:
            token.attrSet('dir', 'auto')  # right to left where the text is
        for part in token.children or ():
            if part.type == 'image':
                put_inside(part, folder)
    body = markdown.renderer.render(tokens, markdown.options, {})
    # Texts cannot contain these: their < is &lt;
    body = body.replace('<table>', '<div class="wide" tabindex="0"><table>')
    body = body.replace('</table>', '</table></div>')
    with open(PAGE, encoding='utf-8') as f:
        return string.Template(f.read()).substitute(title=html.escape(title), body=body)


def put_inside(image, folder: str) -> None:
    """Put the picture itself in the place of its name; where there is none, what it would show."""
    try:
        with open(os.path.join(folder, image.attrGet('src')), 'rb') as f:
            content = f.read()
        image.attrSet('src', f'data:image/png;base64,{base64.b64encode(content).decode()}')
        if int.from_bytes(content[16:20]) > 800:  # the width of a PNG file; it scrolls on a phone
            image.attrSet('class', 'large')
    except OSError:
        image.type, image.content = 'text', f'{image.content}: not drawn'
