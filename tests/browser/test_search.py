"SearchBox: a sentence finds clips that play, and a press on 'like' finds those that are like one of them"
import re

import pytest


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/search')
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show('SearchBox(index, learn, k=4)')


def clips(shown): return shown.area.locator('video').evaluate_all('o => o.map(v => v.src || v.querySelector("source").src)')
def said(shown): return shown.area.inner_text()


def write(shown, text):
    field = shown.row('search').locator('input')
    field.fill(text); field.press('Enter')


def test_write_a_sentence(lab, shown):
    "Other clips, which the browser plays"
    lab.until(lambda: len(clips(shown)) == 4, 'the first clips')
    with shown.changes(lambda: clips(shown), 'clips of the sentence'): write(shown, 'a red square')
    lab.until(lambda: re.search(r'1: \d\.\d\d a red square', said(shown)), 'the likeliest is red')
    state = 'v => { v.muted = true; v.play(); return v.currentTime > .1 && v.videoWidth > 0 && v.videoWidth <= 320 }'
    lab.until(lambda: shown.area.locator('video').first.evaluate(state), 'the clip plays')
    shown.screenshot('search')


def test_more_like_this(lab, shown):
    write(shown, 'a blue square')
    lab.until(lambda: 'a blue square. Of each' in said(shown), 'what is looked for')
    with shown.changes(lambda: clips(shown), 'clips like the second'): shown.click('like 2')
    lab.until(lambda: re.search(r'^like a \w+ square\. Of each', said(shown), re.M), 'which clip is looked for')
    with shown.changes(lambda: clips(shown), 'the sentence again'): write(shown, 'a green square')
    lab.until(lambda: 'a green square. Of each' in said(shown), 'what is looked for')


def test_fewer(lab, shown):
    lab.until(lambda: len(clips(shown)) == 4, 'the first clips')
    field = shown.row('clips').locator('input')
    field.fill('2'); field.press('Enter')
    lab.until(lambda: len(clips(shown)) == 2 and shown.area.get_by_role('button', name=re.compile('like')).count() == 2, 'two clips')
