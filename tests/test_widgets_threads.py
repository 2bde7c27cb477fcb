"A kernel with subshells handles cells and controls in threads of their own: a widget is drawn by one of them after the other"
from collections import Counter
from threading import Thread, get_ident
from time import sleep

import numpy as np
import pandas as pd
import pytest

from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.squares import make_squares
from vidbook.io.sample import Clip
from vidbook.io.write import encode_jpeg
from vidbook.presets.recognition import recognition_presets
from vidbook.widgets.classes import ClassBars, ConfusionGrid
from vidbook.widgets.clean import VideoCleaner
from vidbook.widgets.pipeline import PipelineBrowser
from vidbook.widgets.timeline import Timeline
from vidbook.widgets.zoo import ZooExplorer


class Watch:
    "How many threads are at work on a thing at the same time, at most"
    def __init__(self, thing, *names):
        self.at_work, self.most = Counter(), 0
        for name in names: setattr(thing, name, self.slow(getattr(thing, name)))

    def slow(self, work):
        def _work(*args, **kw):
            self.at_work[get_ident()] += 1
            self.most = max(self.most, sum(o > 0 for o in self.at_work.values()))
            sleep(.05)
            try: return work(*args, **kw)
            finally: self.at_work[get_ident()] -= 1
        return _work


def at_once(*controls):
    "Controls that are set by a thread each: (control, value)"
    errors = []
    def run(control, value):
        try: control.value = value
        except Exception as e: errors.append(e)
    threads = [Thread(target=run, args=o) for o in controls]
    for o in threads: o.start(); sleep(.02)
    for o in threads: o.join()
    assert not errors, errors


@pytest.fixture(scope='module')
def videos(tmp_path_factory): return make_squares(tmp_path_factory.mktemp('squares'), n_train=2, n_valid=1, n_frames=12, side=32)


def test_pipeline(videos):
    browser = PipelineBrowser(VideoDataLoaders.from_table(videos, clip=Clip(6), size=32, bs=2, num_workers=0, index=None))
    watch = Watch(browser, 'picture_at', '_offer_stages')
    browser._show()                                                      # the scrubber takes what is watched
    at_once((browser.choice['clip'], 3), (browser.scrubber.slider, 2), (browser.stage, 1))
    assert watch.most == 1
    assert browser.scrubber.image.value == encode_jpeg(browser.picture_at(browser.scrubber.slider.value)) and browser.clip.i == 3


def test_cleaner(videos, tmp_path):
    cleaner = VideoCleaner(videos, journal=tmp_path/'marks.jsonl')
    watch = Watch(cleaner, 'picture_at', '_open', 'say')
    cleaner.show()
    at_once((cleaner.place, 3), (cleaner.scrubber.slider, 2), (cleaner.filters['split'], 'valid'), (cleaner.split, 'test'))
    assert watch.most == 1 and set(cleaner.rows['split']) == {'valid'} and cleaner.id in cleaner.text.value
    assert cleaner.scrubber.image.value == encode_jpeg(cleaner.picture_at(cleaner.scrubber.slider.value))


def test_timeline():
    rng = np.random.default_rng(0)
    told = pd.DataFrame(rng.dirichlet(np.ones(2), 4), pd.MultiIndex.from_tuples([(i, i+1) for i in range(4)], names=['start', 'end']), ['a', 'b'])
    viewer = Timeline(told, rng.integers(0, 255, (100, 32, 48, 3), np.uint8))
    watch = Watch(viewer.player, 'picture')
    for name in ('show', 'move'): setattr(viewer.layer, name, watch.slow(getattr(viewer.layer, name)))
    at_once((viewer.controls['threshold'], .9), (viewer.player.slider, 9), (viewer.controls['label'], 'a'), (viewer.layer.pressed, .5))
    assert watch.most == 1 and (viewer.state.threshold, viewer.state.label) == (.9, 'a')


def test_zoo():
    "Also the menu of networks is filled by one after the other"
    explorer = ZooExplorer(recognition_presets[:4])
    watch = Watch(explorer, 'rows')
    at_once((explorer.controls['search'], 'dense'), (explorer.controls['price'], 'params'))
    assert watch.most == 1 and list(explorer.controls['chosen'].options) == explorer.rows().index.tolist()


def test_classes():
    "The matrix is also marked by the viewer around it"
    names = [f'c{i}' for i in range(20)]
    table = pd.DataFrame(dict(recall=np.linspace(0, 1, 20), precision=1., f1=1., support=9.), names)
    bars = ClassBars(table, print)
    watch = Watch(bars, 'shown')
    at_once((bars.first, 3), (bars.by, 'class'), (bars.ascending, False))
    assert watch.most == 1 and bars.buttons[0].description == bars.shown().index[0] == 'c6'
    grid = ConfusionGrid(pd.DataFrame(np.eye(20, dtype=int), names, names), print)
    watch = Watch(grid, 'shown')
    setter = Thread(target=lambda: setattr(grid.around, 'value', 'c7'))
    setter.start(); sleep(.02); grid.mark('c7', 'c7'); setter.join()
    assert watch.most == 1 and 'c7' in grid.shown().index
