"What notebooks cannot hold: any window and threshold, every moment in one segment, films that are odd, presses anywhere, files that cannot be written"
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vidbook.inference.windows import window_times
from vidbook.interpret.segments import find_segments, labels_at, load_segments, save_segments, smoothed, window_edges
from vidbook.io.source import VideoFile
from vidbook.io.write import frame_number, numbered_frame, write_video
from vidbook.utils import VidbookError
from vidbook.widgets.timeline import FilmFrames, Timeline, TimelineState


def told(duration, length, step, classes=3, seed=0):
    "A timeline of chance"
    times = window_times(duration, length, step)
    probs = np.random.default_rng(seed).dirichlet(np.ones(classes), len(times))
    return pd.DataFrame(probs, pd.MultiIndex.from_tuples(times, names=['start', 'end']), [f'c{i}' for i in range(classes)])


@pytest.fixture(scope='module')
def film(tmp_path_factory): return write_video(tmp_path_factory.mktemp('film')/'film.mp4', [numbered_frame(i) for i in range(250)], 25)


@pytest.fixture
def viewer(film):
    made = Timeline(told(10, 2, .5), film)
    yield made
    made.film.close()


windows = [(10, 2, .5), (10, 2, 1), (10.3, 2, .7), (1.5, 2, 1), (10, 1, 4), (30, 2.5, .1)]


@pytest.mark.parametrize('duration, length, step', windows)
def test_each_moment_belongs_to_one_window(duration, length, step):
    table = told(duration, length, step)
    edges = window_edges(table)
    assert len(edges) == len(table)+1 and (np.diff(edges) > 0).all() and edges[0] == 0 and edges[-1] == pytest.approx(duration)
    middles = np.array([(a+b)/2 for a,b in table.index])
    for t in np.random.default_rng(0).uniform(0, duration, 50):
        nearest = np.abs(middles-t).argmin()
        assert edges[nearest]-1e-9 <= t <= edges[nearest+1]+1e-9


@pytest.mark.parametrize('duration, length, step', windows)
@pytest.mark.parametrize('threshold', [0, .3, .5, .9])
def test_segments_are_where_the_curve_is_high(duration, length, step, threshold):
    table = told(duration, length, step, seed=int(duration))
    found = find_segments(table, threshold, smooth=step)
    flat, edges = smoothed(table, step), window_edges(table)
    for label in table:
        own = found[found['label'] == label]
        for i,value in enumerate(flat[label]):
            t = (edges[i]+edges[i+1])/2
            assert ((own['start'] <= t) & (t < own['end'])).sum() == (value >= threshold)
        assert (own['start'].to_numpy()[1:] > own['end'].to_numpy()[:-1]).all()                # no two touch


def test_smoothing_is_the_mean_of_near_windows():
    table, seconds = told(20, 2, .5), 3
    middles = np.array([(a+b)/2 for a,b in table.index])
    naive = np.array([table.to_numpy()[np.abs(middles-m) <= seconds/2+1e-6].mean(0) for m in middles])
    assert np.allclose(smoothed(table, seconds), naive)


def test_labels_of_segments_that_overlap_are_those_of_the_later():
    segments = pd.DataFrame(dict(label=['a', 'b'], start=[0, 1], end=[3, 2]))
    assert labels_at(segments, [.5, 1.5, 2.5, 3]).tolist() == ['a', 'b', 'a', None]


def test_names_with_commas_and_numbers_come_back(tmp_path):
    segments = pd.DataFrame(dict(label=['a, "b"', '7'], start=[0., 1.], end=[1., 2.], prob=[.5, .6]))
    for name in ('a.csv', 'a.json'):
        assert load_segments(save_segments(segments, tmp_path/name))['label'].tolist() == ['a, "b"', '7']
    (tmp_path/'b.csv').write_text('label,start,end\na,zero,1\n')
    with pytest.raises(VidbookError, match="b.csv, row 1: from zero to 1 is no time"): load_segments(tmp_path/'b.csv')
    with pytest.raises(VidbookError, match='none.csv cannot be read'): load_segments(tmp_path/'none.csv')


def test_frames_by_time(film):
    part = FilmFrames(VideoFile(film, 2, 4), rate=4)
    assert [frame_number(part(k)) for k in range(len(part))] == [50, 56, 62, 68, 75, 81, 87, 93]
    part.close()
    array = FilmFrames(np.stack([numbered_frame(i) for i in range(10)]), fps=10, rate=10, short_side=1000)   # never enlarged
    assert [frame_number(array(k)) for k in range(len(array))] == list(range(10)) and array(0).shape == (96, 128, 3)
    assert [array.step_of(o) for o in (-5, .34, 99)] == [0, 3, 9]


def test_presses_seek(viewer):
    for second in (0, 3.3, 9.9, 3.3):
        viewer.layer.pressed.value = viewer.state.share_of(second)
        assert viewer.player.slider.value == viewer.film.step_of(second)
        assert f'{viewer.player.slider.value/8:.2f} s' in viewer.player.text.value
    for share, step in ((0, 0), (1, 79), (.05, 0)):                                            # on the margins, too
        viewer.layer.pressed.value = share
        assert viewer.player.slider.value == step


def test_a_press_after_a_drag_is_heard(viewer):
    share = viewer.state.share_of(5)
    viewer.layer.pressed.value = share
    viewer.player.slider.value = 0
    viewer.layer.pressed.value = share
    assert viewer.player.slider.value == 40


def test_the_picture_is_sent_once(viewer):
    curves = viewer.layer.image.value
    for k in range(5, 10): viewer.player.slider.value = k
    assert viewer.layer.image.value is curves


def test_a_class_a_threshold_and_a_file(viewer, tmp_path):
    viewer.controls['label'].value, viewer.controls['threshold'].value = 'c1', .2
    assert set(viewer.state.segments()['label']) == {'c1'}
    assert [o[1] for o in viewer.list.options] == [None, *range(len(viewer.state.segments()))]
    viewer.path.value = str(tmp_path/'no folder'/'x.csv')
    viewer.write()
    if not Path(viewer.path.value).exists(): assert 'x.csv' in viewer.status.value and 'segments are in' not in viewer.status.value
    viewer.controls['threshold'].value = 1
    assert viewer.list.options == (('none', None),)


def test_models_with_other_windows_and_classes(film):
    a, b = told(10, 2, .5), told(10, 1, 1, classes=5)
    state = TimelineState(dict(a=a, b=b))
    assert state.vocab == ['c0', 'c1', 'c2', 'c3', 'c4'] and len(state.facts()) == 1
    state.label = 'c4'
    assert set(state.segments()['model']) <= {'b'}
    state.figure()


def test_few_files_stay_open(film):
    before = len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
    for _ in range(3): Timeline(told(10, 2, 1), film).film.close()
    if before: assert len(os.listdir('/proc/self/fd')) <= before
