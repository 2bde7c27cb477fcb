"The scrubber: drag, step, play"
import pytest

from vidbook.io.write import frame_number


@pytest.fixture(scope='module')
def notebook(jupyter):
    opened = jupyter.book('widgets/core')
    yield opened
    opened.close()


@pytest.fixture
def scrubber(lab, notebook): return notebook.show('Scrubber(20, numbered_frame, lambda i: f"{i/25:.2f} s")')


def test_drag(lab, scrubber):
    assert frame_number(scrubber.pixels()) == 0
    scrubber.drag(.5)
    lab.until(lambda: 6 < frame_number(scrubber.pixels()) < 14, 'half of the way')
    lab.until(lambda: f'{frame_number(scrubber.pixels())/25:.2f} s' in scrubber.area.inner_text(), 'picture and text agree when the hand rests')
    scrubber.screenshot('scrubber')


def test_keys(lab, scrubber):
    scrubber.area.locator('.noUi-handle').focus()
    for key, expected in (('ArrowRight', 1), ('ArrowRight', 2), ('ArrowLeft', 1)):
        lab.page.keyboard.press(key)
        lab.until(lambda: frame_number(scrubber.pixels()) == expected, f'{key} shows frame {expected}')


def test_play(lab, scrubber):
    play = scrubber.area.locator('.widget-play button').first
    play.focus(); lab.page.keyboard.press('Space')
    lab.until(lambda: frame_number(scrubber.pixels()) >= 3, 'space plays')
    lab.page.keyboard.press('Space')
