"The scrubber: drag, step, play"
import pytest

from lab import Lab, Server
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


def test_a_kernel_that_hangs_is_ended_and_says_where(browser, artifacts, tmp_path):
    "Nobody waits for ever, as the tests did for a thread that never came"
    server = Server(tmp_path)
    try:
        lab = Lab(server, browser, artifacts)
        lab.notebook('hang', 'import time\ndef for_long(): time.sleep(600)')
        last = "jupyterapp.shell.currentWidget.content.model.sharedModel.cells[0]"
        hang = f"name => {{ {last}.setSource({last}.source+'\\nfor_long()'); return jupyterapp.commands.execute(`notebook:${{name}}`) }}"
        with pytest.raises(TimeoutError, match='(?s)run-all-cells: not within 5 s.*for_long'): lab.work(hang, 'run-all-cells', 5)
    finally: server.close()
