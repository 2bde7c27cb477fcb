"What notebooks cannot hold: every kind of source, a web server, half an hour of a stream, windows of any length, files that break while a window slides"
import http.server, os, resource, threading
from functools import partial
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.spec import ClipSpec
from vidbook.data.squares import make_squares
from vidbook.inference.predict import Predictor
from vidbook.inference.stream import watch
from vidbook.inference.windows import file_windows, slide, stream_windows, window_times
from vidbook.io.packets import MediaError
from vidbook.io.reader import ArrayReader
from vidbook.io.sample import Clip, Sampling
from vidbook.io.source import VideoFile
from vidbook.io.video import open_video
from vidbook.io.write import numbered_frame, write_video
from vidbook.learner.classify import video_learner
from vidbook.models.tsm import tsm_slim
from vidbook.utils import set_seed


@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    table = make_squares(tmp_path_factory.mktemp('squares'), n_train=2, n_valid=1)
    set_seed(0)
    return video_learner(VideoDataLoaders.from_table(table, size=32, bs=4, num_workers=0), tsm_slim)


@pytest.fixture(scope='module')
def predict(learn): return Predictor(learn)


@pytest.fixture(scope='module')
def video(learn): return learn.dls.valid.items[0].video.path


@pytest.fixture(scope='module')
def frames(video):
    with open_video(video) as reader: return reader.frames(range(len(reader)))


@pytest.fixture()
def address(video, tmp_path, monkeypatch):
    "The video on a web server of this machine"
    monkeypatch.setenv('VIDBOOK_CACHE', str(tmp_path/'cache'))
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(Path(video).parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/{Path(video).name}'
    server.shutdown(); server.server_close()


def test_every_source_says_the_same(predict, video, frames, address, tmp_path):
    for i,frame in enumerate(frames): cv2.imwrite(str(tmp_path/f'img_{i+1:05}.png'), frame[..., ::-1])
    pictures = VideoFile(tmp_path, template='img_{:05}.png')
    sources = [video, Path(video), VideoFile(video), address, pictures, frames, torch.from_numpy(frames)]
    said = [predict(o).probs for o in sources]
    for probs in said[1:]: assert np.array_equal(probs, said[0])
    assert [p.label for p in predict.many(sources, progress=False)] == [predict(video).label]*len(sources)


def test_an_address_that_is_not_there(predict, address):
    with pytest.raises(Exception, match='404'): predict(address+'.avi')
    with pytest.warns(UserWarning, match='1 of 2 videos were left out'): assert len(predict.many([address+'.avi', address], 'skip', progress=False)) == 1


def test_an_error_leaves_no_threads_behind(predict, video, tmp_path):
    "Its traceback may be kept for long, as notebooks do; what reads ahead must not live as long"
    (tmp_path/'broken.mp4').write_bytes(b'no video')
    before = set(threading.enumerate())
    with pytest.raises(Exception, match='broken.mp4') as kept: predict.many([video, tmp_path/'broken.mp4', *[video]*8], workers=2, progress=False)
    assert kept.value is not None and set(threading.enumerate()) <= before


def resident():
    "MB of memory that this process has"
    try: return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6
    except OSError: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6      # macOS: bytes, the most so far


def test_half_an_hour_of_a_stream_needs_no_more_memory_than_a_minute(predict, frames):
    moments = slide(predict, repeat(frames[0], 30*60*25), length=10, step=10)
    for _ in range(16): next(moments)
    after_minutes, n = resident(), 16
    for _ in moments: n += 1
    assert n == 180 and resident() < after_minutes+15


@pytest.mark.parametrize('seed', range(6))
def test_windows_of_any_length(seed):
    "A stream, an array and a cut file give the same clips; no second of the video is left out unless steps are longer than windows"
    rng = np.random.default_rng(seed)
    fps, n = float(rng.choice([10, 12.5, 24, 25, 29.97, 30])), int(rng.integers(1, 120))
    length, step = rng.uniform(.1, 5, 2)
    pipeline = ClipSpec(Sampling(Clip(int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 5)))), size=16, short_side=16).test_pipeline((1, 3))
    video = rng.integers(0, 256, (n, 16, 20, 3), dtype=np.uint8)
    times = window_times(n/fps, length, step)
    reader = ArrayReader(video, fps)
    whole, came = list(file_windows(pipeline, reader, times)), list(stream_windows(pipeline, iter(video), length, step, fps))
    assert [o[:2] for o in whole] == [o[:2] for o in came] == times
    for (start,end,a),(_,_,b) in zip(whole, came):
        first, last = (int(np.ceil(o*fps-1e-6*fps)) for o in (start, end))
        own = pipeline(video[first:max(last, first+1)])
        assert torch.equal(a, b) and torch.equal(a, own if own.ndim == 5 else own[None])
    seen = np.zeros(n, bool)
    for start,end in times: seen |= (np.arange(n)/fps >= start-1e-6) & (np.arange(n)/fps < end-1e-6)
    assert seen[-1] and (seen.all() or step > length)


def test_windows_of_a_file_whose_rate_varies(predict, tmp_path):
    "Two frames a second with a gap of four seconds: a window in the gap shows what is still seen"
    times = [0, .5, 1, 5, 5.5, 6]
    file = write_video(tmp_path/'gap.mp4', [numbered_frame(i) for i in range(6)], 25, times=times)
    moments = list(slide(predict, file, length=1, step=1))
    assert [m.start for m in moments][:6] == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(moments[2].prediction.probs, moments[3].prediction.probs)
    for m in (moments[0], moments[5]): np.testing.assert_allclose(m.prediction.probs, predict(VideoFile(file, m.start, m.end)).probs, atol=1e-6)


def test_a_file_that_breaks_while_the_window_slides(learn, tmp_path):
    whole = write_video(tmp_path/'whole.mkv', [numbered_frame(i % 24) for i in range(240)], 24, gop=12)
    cut = tmp_path/'cut.mkv'
    cut.write_bytes(whole.read_bytes()[:whole.stat().st_size*6//10])
    with pytest.raises(MediaError, match='cut.mkv'): list(slide(Predictor(learn), cut, 1, 1))
    saved, all_of_it = (list(slide(Predictor(learn, on_error='salvage'), o, 1, 1)) for o in (cut, whole))
    assert 3 <= len(saved) < len(all_of_it) == 10
    for a,b in zip(saved[:-1], all_of_it): np.testing.assert_allclose(a.prediction.probs, b.prediction.probs, atol=1e-6)


def test_a_camera_that_is_unplugged(predict, frames):
    def camera():
        yield from frames[:5]
        raise MediaError('camera 0', 'it gives no more frames', 'look at its cable')
    with pytest.raises(MediaError, match='its cable'): list(watch(predict, camera(), .1, .1))
    assert not [t for t in threading.enumerate() if t.name.endswith('(_read)')]
