"DatasetBrowser: an overview, clips that play, quarantine, leaks, filters"
import pytest


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/dataset')
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show('DatasetBrowser(whole, index, hashes, k=2)')


def said(shown): return shown.area.inner_text()
def kinds(shown): return set(shown.area.locator('td').all_inner_texts()) & {'source', 'bytes', 'looks'}


def test_views(lab, shown):
    "The overview has pictures, the clips play, quarantine and leaks are told of"
    lab.until(lambda: shown.area.locator('img').count() == 2, 'the overview')
    shown.screenshot('dataset')
    shown.choose('show', 'clips')
    lab.until(lambda: shown.area.locator('video').count() == 2, 'clips')
    lab.until(lambda: shown.area.locator('video').first.evaluate('v => { v.muted = true; v.play(); return v.currentTime > .1 }'), 'the clip plays')
    shown.choose('show', 'quarantine'); lab.until(lambda: '1 of' in said(shown) and 'are in quarantine' in said(shown), 'the file that is cut short')
    shown.choose('show', 'leaks'); lab.until(lambda: 'are in two splits at once' in said(shown) and shown.area.locator('video').count(), 'the copy')


def test_pictures_are_compared(lab, shown):
    shown.choose('show', 'leaks'); lab.until(lambda: 'pairs of clips' in said(shown), 'leaks')
    assert 'looks' not in kinds(shown)
    shown.click('compare pictures'); lab.until(lambda: 'looks' in kinds(shown), 'clips that look alike')


def test_filters(lab, shown):
    shown.choose('show', 'clips'); lab.until(lambda: 'from 1 to 2' in said(shown), 'clips')
    label = shown.options('class')[1]
    with shown.changes(lambda: shown.area.locator('video').first.get_attribute('src') if shown.area.locator('video').count() else said(shown)):
        shown.row('from clip').locator('input').fill('3'); lab.page.keyboard.press('Enter')
    with shown.changes(lambda: said(shown)): shown.choose('class', label)
