"VideoCleaner: mark, undo, restart the kernel and find the marks"
import re

import pytest

table = '''import tempfile; from pathlib import Path; from vidbook.data.squares import make_squares
from vidbook.widgets.clean import VideoCleaner
folder = Path({folder!r}); squares = make_squares(folder, n_train=2, n_valid=1, n_frames=12)'''


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.notebook('clean', table.format(folder='squares'))
    yield opened
    opened.close()


@pytest.fixture
def shown(lab, notebook): return notebook.show('VideoCleaner(squares)')


def marked(shown): return int(re.search(r'(\d+) clips are marked', shown.area.inner_text())[1])


def test_step(shown):
    "The next clip, and the frames of a clip"
    with shown.changes(shown.pixels, 'another clip'): shown.click('next')
    with shown.changes(shown.pixels, 'another frame'): shown.drag(.9, slider=1)
    shown.screenshot('clean')


def test_marks_outlive_the_kernel(lab, notebook, shown):
    "Marks and their undoing are shown, and found again by another kernel"
    start = marked(shown)
    shown.click('drop'); lab.until(lambda: marked(shown) == start+1, 'dropped')
    shown.click('keep'); lab.until(lambda: marked(shown) == start+2, 'kept')
    shown.click('undo'); lab.until(lambda: marked(shown) == start+1, 'undone')
    shown.choose('label', 'down'); lab.until(lambda: marked(shown) == start+2, 'relabelled')
    notebook.restart()
    again = notebook.show('VideoCleaner(squares)')
    lab.until(lambda: marked(again) == start+2, 'marks are there after a restart')
    again.choose('show', 'marked')
    lab.until(lambda: 'dropped' in again.area.inner_text() or 'label down' in again.area.inner_text(), 'the marks themselves')


def test_files_are_asked_for_twice(lab, shown):
    if not marked(shown): shown.click('drop')
    shown.click('remove files')
    lab.until(lambda: shown.area.get_by_role('button', name=re.compile('really remove')).count(), 'asked again')
