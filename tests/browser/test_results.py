"ResultsExplorer: a class or a cell of the confusion matrix is pressed and its clips play; filters, pages, csv"
import re

import pytest


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/results')
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show('ResultsExplorer(preds, other=one, k=2)')


def count(shown): return int((re.search(r'(\d+) of 32 samples', shown.area.inner_text()) or [0, -1])[1])   # -1: just being drawn
def clips(shown): return shown.area.locator('video').evaluate_all('o => o.map(v => v.src || v.querySelector("source").src)')
def tab(shown, name): shown.area.locator('.lm-TabBar-tab', has_text=name).click()


def test_clips_play(lab, shown):
    "Clips are decoded by the browser"
    lab.until(lambda: clips(shown), 'clips are there')
    state = 'v => { v.muted = true; v.play(); return v.currentTime > .1 && v.videoWidth > 0 && v.videoWidth <= 320 }'
    lab.until(lambda: shown.area.locator('video').first.evaluate(state), 'the clip plays')
    shown.screenshot('results')


def test_press_a_class(lab, shown):
    with shown.changes(lambda: clips(shown)), shown.changes(lambda: shown.chosen('shown')): shown.click('up')
    assert shown.chosen('shown') == 'up'
    lab.until(lambda: count(shown) == 8, 'all clips of the class')


def test_press_a_cell(lab, shown):
    "A cell of the confusion matrix: so many clips as its number says"
    tab(shown, 'confusion')
    cell = shown.area.locator('.widget-gridbox button:visible', has_text=re.compile(r'^[1-8]$')).last
    with shown.changes(lambda: (count(shown), clips(shown))): cell.click()
    lab.until(lambda: count(shown) == int(cell.inner_text()), 'as many clips as the cell says')
    shown.screenshot('confusion')


def test_cells_of_other_classes(lab, notebook):
    "No number stays where another class has none"
    grid = notebook.show("""import pandas as pd; from vidbook.widgets.classes import ConfusionGrid
ConfusionGrid(pd.DataFrame([[1, 2, 0], [0, 3, 0], [0, 0, 4]], list('abc'), list('abc')), print, n=2).widget""")
    cells = lambda: [o.strip() for o in grid.area.locator('.widget-gridbox button').all_inner_texts()]
    lab.until(lambda: cells() == ['1', '2', '', '3'], 'a and b')
    grid.choose('around', 'c')
    lab.until(lambda: cells() == ['1', '', '', '4'], 'a and c')


def test_filters(lab, shown):
    with shown.changes(lambda: clips(shown), 'another order'): shown.choose('by', 'least sure')
    with shown.changes(lambda: clips(shown), 'the next page'):
        shown.row('page').locator('.noUi-handle').focus(); lab.page.keyboard.press('ArrowRight')
    field = shown.row('search').locator('input')
    field.fill('left_0'); field.press('Enter')
    lab.until(lambda: count(shown) <= 8, 'what is searched')


def test_csv(lab, shown, tmp_path):
    field = shown.row('csv').locator('input')
    field.fill(str(tmp_path/'found.csv')); field.press('Enter')
    shown.click('write')
    lab.until(lambda: (tmp_path/'found.csv').exists(), 'the file is written')
    assert len((tmp_path/'found.csv').read_text().splitlines()) == count(shown)+1
