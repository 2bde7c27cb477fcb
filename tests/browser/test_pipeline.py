"PipelineBrowser: pick a clip, scrub it through the stages, draw again"
import re

import pytest


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/pipeline')
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show('PipelineBrowser(dls, 3)')


def ruler(shown): return shown.pixels('.widget-image >> nth=0')
def ring(shown): return shown.area.locator('.vidbook-ring').get_attribute('style')
def picture(shown): return shown.pixels('.widget-image >> nth=1')


def test_scrub(shown):
    "Another frame, and the ruler's ring on it"
    with shown.changes(lambda: picture(shown)), shown.changes(lambda: ring(shown), 'the ring moves'): shown.drag(.7)
    assert re.search(r'frame \d+ of the video, [\d.]+ s', shown.area.inner_text())
    shown.screenshot('pipeline')


def test_stage(shown):
    "Another stage is another picture; two stages lie side by side"
    stages = shown.options('stage')
    assert 'SampleFrames' in ' '.join(stages) and all(' ms' in o for o in stages)
    with shown.changes(lambda: picture(shown)): shown.choose('stage', stages[0])
    before = picture(shown).shape
    with shown.changes(lambda: picture(shown)): shown.choose('beside', stages[-1])
    assert picture(shown).shape[1] > before[1]


def test_draw_again(shown):
    "Other random numbers: other frames, which the ruler shows, too"
    with shown.changes(lambda: ruler(shown)): shown.click('draw again')


def test_pick(lab, shown):
    "A clip by its name; split, class and text narrow the clips down"
    with shown.changes(lambda: picture(shown)): shown.choose('clip', shown.options('clip')[5])
    label = shown.options('class')[2]
    with shown.changes(lambda: picture(shown)): shown.choose('class', label)
    lab.until(lambda: all(o.endswith(label) for o in shown.options('clip')), 'only clips of the class')
    with shown.changes(lambda: shown.options('clip')): shown.choose('split', 'validation')
    field = shown.row('search').locator('input')
    field.fill('no such clip'); field.press('Enter')
    lab.until(lambda: shown.options('clip') == ['nothing found'], 'nothing is found')
