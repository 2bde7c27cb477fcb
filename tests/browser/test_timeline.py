"Timeline: a press on the curves seeks, the player moves the cursor, threshold and smoothing change the segments"
import re

import pytest


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/timeline')
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show('Timeline(tables, long, truth=truth)')


def frame(shown): return shown.pixels('.widget-image >> nth=0')
def curves(shown): return shown.pixels('.widget-image >> nth=1')
def second(shown): return float(re.search(r'([\d.]+) s: ', shown.area.inner_text())[1])
def cursor(shown): return shown.area.locator('.vidbook-cursor > div').evaluate('o => parseFloat(o.style.left)')


def test_press(lab, shown):
    "The player seeks to what is pressed, and the cursor stands there"
    layer = shown.area.locator('.vidbook-cursor')
    box = layer.bounding_box()
    with shown.changes(lambda: frame(shown)): layer.click(position=dict(x=.6*box['width'], y=.3*box['height']))
    lab.until(lambda: 58 < cursor(shown) < 62, 'the cursor stands where it was pressed')
    assert 1.5 < second(shown) < 3.2
    shown.screenshot('timeline')


def test_play(lab, shown):
    "The cursor goes along with the player"
    with shown.changes(lambda: cursor(shown)), shown.changes(lambda: frame(shown)):
        shown.area.locator('.widget-play button').first.focus(); lab.page.keyboard.press('Space')
    lab.page.keyboard.press('Space')


def test_segments(lab, notebook, shown):
    "The threshold draws other segments; a segment that is chosen is gone to"
    listed = shown.area.locator('select[size]')
    with shown.changes(lambda: frame(shown)): listed.select_option(index=2)
    with shown.changes(lambda: curves(shown)), shown.changes(lambda: listed.locator('option').all_text_contents()):
        shown.row('threshold').locator('.noUi-handle').focus()
        lab.page.keyboard.press('End')
