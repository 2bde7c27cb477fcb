"Pages without a kernel: `jupyter nbconvert --to html` shows the static picture of every widget"
import re, subprocess, sys
from pathlib import Path

import pytest

from project import notebooks, root

books = [o for o in notebooks() if o.parent.name == 'widgets']
pictured = '.picture(', 'Image('


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    dest = tmp_path_factory.mktemp('html')
    words = [sys.executable, '-m', 'nbconvert', '--to', 'html', '--output-dir', str(dest), *map(str, books)]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return dest


@pytest.fixture(scope='module')
def page(browser):
    context = browser.new_context(offline=True)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize('book', books, ids=[o.stem for o in books])
def test_pictures(book, pages, page, artifacts):
    html = pages/f'{book.stem}.html'
    assert html.stat().st_size < 15_000_000
    page.goto(html.as_uri(), wait_until='domcontentloaded')
    shown = page.locator('.jp-Cell').evaluate_all('''(o, words) => o.filter(e => words.some(w => e.querySelector('.jp-InputArea')?.textContent.includes(w)))
        .flatMap(e => [...e.querySelectorAll('.jp-OutputArea img')].map(i => i.naturalWidth))''', list(pictured))
    assert any(shown) and all(shown), f'{book.name}: widths of the pictures {shown}'
    page.screenshot(path=artifacts/f'static_{book.stem}.png', full_page=True)


@pytest.mark.parametrize('book', books, ids=[o.stem for o in books])
def test_screenshot(book):
    "What the widget looks like in JupyterLab stands in its notebook; `--docs` makes these pictures"
    names = re.findall(r'!\[[^]]+\]\(\.\./images/(\w+\.png)\)', book.read_text(encoding='utf-8'))
    assert names and all(10_000 < (root/'nbs'/'images'/o).stat().st_size < 150_000 for o in names)


def test_every_widget_is_used():
    "A notebook of widgets has its tests in a browser; classes are pressed in those of the results"
    used = {o.stem.removeprefix('test_') for o in Path(__file__).parent.glob('test_*.py')} | {'classes'}
    assert {o.stem for o in books} <= used
