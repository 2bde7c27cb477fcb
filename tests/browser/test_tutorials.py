"Every tutorial of recognition, opened and run from top to bottom as a new reader does; live widgets in it are used"
import re

import nbformat
import pytest

from lab import is_live
from project import root

elsewhere = 'two_streams', 'skeletons', 'sounds', 'who_does_what', 'find_moments', 'search_by_words'      # train for long; nbdev_test runs them
books = {o.stem: nbformat.read(o, as_version=4) for o in sorted((root/'nbs'/'tutorials').glob('*.ipynb')) if o.stem not in elsewhere}
live = [name for name,o in books.items() if any(map(is_live, o.cells))]


def printed(cell): return ''.join(''.join(o['text']) for o in cell.get('outputs', ()) if o['output_type'] == 'stream' and o['name'] == 'stdout').strip()
def warned(cell): return [o['text'] for o in cell.get('outputs', ()) if o['output_type'] == 'stream' and o['name'] == 'stderr']
def words(text): return re.split(r'\d', text)[0]


def last_that_counts(cells):
    "The last cell of code, but for the one that removes files"
    return [o for o in cells if o['cell_type'] == 'code' and '.cleanup()' not in o['source']][-1]


def check_as_a_reader(lab, notebook, name):
    "All cells have run, in their order; nothing is broken, in red or raw; the last one says its number as it is published"
    cells = [o for o in notebook.cells() if o['cell_type'] == 'code']
    assert notebook.errors() == []
    assert [o['execution_count'] for o in cells] == list(range(1, len(cells)+1))
    assert [o['source'] for o in cells if warned(o)] == [], [warned(o) for o in cells if warned(o)]
    said, published = printed(last_that_counts(cells)), printed(last_that_counts(books[name].cells))
    assert re.search(r'\d', said) and words(said) == words(published), f'{said!r} where the page has {published!r}'
    shown = notebook.outputs().all_inner_texts()
    assert any(said.split()[-1] in o for o in shown), f'{said!r} is not to be seen'
    assert [o for o in shown if re.match(r'\s*(\w+\(children=|<[\w.]+ object at |Error displaying widget|Loading widget)', o)] == []
    broken = 'o => o.filter(e => e.src && e.offsetParent && !e.naturalWidth).map(e => e.outerHTML.slice(0, 200))'
    lab.until(lambda: notebook.element.locator('img').evaluate_all(broken) == [], 'all pictures are seen')


def use_own_schedule(lab, notebook):
    shown = notebook.shown('ScheduleExplorer(shelf | dict(mine=mine))')
    plot = shown.area.locator('.js-plotly-plot .plot-container').first
    plot.wait_for()
    with shown.changes(plot.inner_html): shown.choose('value', 'momentum')


def use_predict_anything(lab, notebook):
    shown = notebook.shown('viewer')
    layer = shown.area.locator('.vidbook-cursor')
    layer.wait_for(); layer.scroll_into_view_if_needed(); box = layer.bounding_box()
    with shown.changes(lambda: shown.pixels('.widget-image >> nth=0')): layer.click(position=dict(x=.6*box['width'], y=.3*box['height']))


def use_results_and_cleaning(lab, notebook):
    shown = notebook.shown('ResultsExplorer(preds)')
    lab.until(lambda: len(shown.options('shown')) > 1, 'classes')
    label = shown.options('shown')[1]
    with shown.changes(lambda: shown.chosen('shown')): shown.click(label)
    assert shown.chosen('shown') == label
    cleaner = notebook.shown('cleaner')
    assert cleaner.area.locator('button').count() and cleaner.area.locator('video, img').count()


uses = {name.removeprefix('use_'): o for name,o in globals().items() if name.startswith('use_')}


def test_every_live_one_is_used(): assert live == sorted(uses)


@pytest.mark.parametrize('name', books)
def test_tutorial(lab, name):
    notebook = lab.tutorial(name)
    try:
        check_as_a_reader(lab, notebook, name)
        notebook.screenshot(f'tutorial_{name}')
        if name in uses: uses[name](lab, notebook)
    finally: notebook.close()
