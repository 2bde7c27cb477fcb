"Puppets: what twins share, what survives a bad end, what workers import"
import csv, io, multiprocessing, os, signal, subprocess, sys, time
from functools import partial

import av
import cv2
import numpy as np
import pytest

from vidbook.data import puppets
from vidbook.data.puppet_draw import draw_stage
from vidbook.data.puppet_scene import clip_scenes
from vidbook.data.puppets import PuppetSize, make_puppets, puppet_jobs, puppet_parts
from vidbook.utils import VidbookError

mini = PuppetSize((24, 12), (0, 0), (0, 0))
make = partial(make_puppets, size=mini, parts=('clips',), video_size=(64, 48), progress=False)


def everything(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('puppets')/'whole'
    make(folder, n_workers=0)
    return everything(folder)


def test_workers_import_no_torch():
    code = 'import sys, vidbook.data.puppets; print([m for m in ("torch", "fastai", "matplotlib", "IPython") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_spawned_workers_make_the_same(tmp_path, whole, monkeypatch):
    spawn = partial(puppets.ProcessPoolExecutor, mp_context=multiprocessing.get_context('spawn'))
    monkeypatch.setattr(puppets, 'ProcessPoolExecutor', spawn)
    make(tmp_path/'a', n_workers=2)
    assert everything(tmp_path/'a') == whole


def test_threads_of_opencv_in_the_parent_stop_no_worker(tmp_path):
    "A forked process has none of its parent's threads, and OpenCV would wait for them"
    code = ('import cv2, numpy as np; cv2.setNumThreads(4); picture = np.zeros((4000, 4000, 3), np.uint8)\n'
            'for _ in range(20): cv2.GaussianBlur(cv2.resize(picture, (3000, 3000)), (9, 9), 0)\n'
            'from vidbook.data.puppets import make_puppets\n'
            f"make_puppets({str(tmp_path/'here')!r}, 'tiny', n_workers=2, progress=False)")
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


def test_a_killed_start_goes_on(tmp_path, whole):
    code = f'''from vidbook.data.puppets import PuppetSize, make_puppets
make_puppets({str(tmp_path/"a")!r}, size=PuppetSize((24, 12), (0, 0), (0, 0)), parts=('clips',), video_size=(64, 48), n_workers=0, progress=False)'''
    process = subprocess.Popen([sys.executable, '-c', code])
    deadline = time.time()+60
    while len(list(tmp_path.rglob('[!.]*.mp4'))) < 4 and time.time() < deadline: time.sleep(.02)
    process.send_signal(signal.SIGKILL); process.wait()
    assert not (tmp_path/'a/puppets.csv').exists()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('[!.]*.mp4')}
    make(tmp_path/'a', n_workers=2)
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    assert everything(tmp_path/'a') == whole


@pytest.mark.parametrize('method', sorted({'fork', 'spawn'} & set(multiprocessing.get_all_start_methods())))
def test_a_killed_start_leaves_no_worker(tmp_path, method):
    code = f'''import multiprocessing
from vidbook.data.puppets import make_puppets
if __name__ == '__main__':
    multiprocessing.set_start_method({method!r})
    make_puppets({str(tmp_path/"a")!r}, parts=('clips',), n_workers=2, progress=False)'''
    (tmp_path/'start.py').write_text(code)
    process = subprocess.Popen([sys.executable, tmp_path/'start.py'])
    deadline = time.time()+60
    while not list(tmp_path.rglob('[!.]*.mp4')) and time.time() < deadline: time.sleep(.02)
    process.kill(); process.wait()
    def count(): return len(list(tmp_path.rglob('*.mp4'))) + sum(p.stat().st_size for p in tmp_path.rglob('*.mp4') if p.exists())
    time.sleep(1); before = count(); time.sleep(.5)
    assert count() == before   # nobody writes any more


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path, whole, monkeypatch):
    real, calls = puppets.write_video, []
    def full(path, frames, *args, **kw):
        calls.append(path)
        def broken():
            for i, frame in enumerate(frames):
                if i == 9 and len(calls) == 5: raise OSError(28, 'No space left on device', str(path))
                yield frame
        return real(path, broken(), *args, **kw)
    monkeypatch.setattr(puppets, 'write_video', full)
    with pytest.raises(VidbookError, match='No space left on device.*start again'): make(tmp_path/'a', n_workers=0)
    assert len(list(tmp_path.rglob('*.mp4'))) == 4 and not list(tmp_path.rglob('*.part*'))
    monkeypatch.undo()
    make(tmp_path/'a', n_workers=0)
    assert everything(tmp_path/'a') == whole


def test_a_dead_worker_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(puppets, 'make_scene', _dies)
    with pytest.raises(VidbookError, match='was ended; start again'): make(tmp_path/'a', n_workers=2)


def _dies(job, **kw): os._exit(9)


def test_counts_of_all_sizes():
    for name, size in puppets.puppet_sizes.items():
        for part in puppet_parts: assert len(puppet_jobs(name, part)) > 0
        for n in size.clips: assert len([label for i in range(puppets._n_scenes('clips', n)) for label in list(puppets.puppet_motions.values())[i % 7]]) == n


def small_clips(split, n):
    "Time-free statistics of `n` scenes of each pair: (scene, twin, feature)"
    found = []
    for index in range(7*n):
        if index % 7 > 4: continue
        pair = [np.stack(list(draw_stage(s.stage))[::2]) for s in clip_scenes(5, split, index, (64, 48))]
        found.append([cv2.resize(np.concatenate([f.mean(0), f.std(0)], -1), (16, 12), interpolation=cv2.INTER_AREA).ravel() for f in pair])
    return np.array(found)


def test_frames_without_their_order_say_nothing_within_pairs():
    "A linear classifier of mean and deviation over time, trained on half of the scenes, guesses which twin is which"
    train, test = small_clips(0, 9), small_clips(1, 7)
    right = []
    for motion in range(5):
        a, b = train[motion::5], test[motion::5]
        mean = a.mean((0, 1)); x = (a-mean).reshape(-1, a.shape[-1]); y = np.tile([1., -1], len(a))
        weight = np.linalg.solve(x@x.T + 10*len(x)*np.eye(len(x)), y)@x
        right += list((((b-mean)@weight)*[1, -1] > 0).ravel())
    assert .35 < np.mean(right) < .65, np.mean(right)


def picture_bytes(data):
    "Bytes of the video stream; the sound of a class is its own and may take more or less room"
    with av.open(io.BytesIO(data)) as f: return sum(packet.size for packet in f.demux(video=0))


def test_length_and_picture_bytes_say_nothing_within_pairs(whole):
    "Twins are equally long, and it is a coin's throw which of the two takes more bytes"
    rows, pairs = csv.DictReader(whole['puppets.csv'].decode().splitlines()), {}
    for r in rows: pairs.setdefault(r['source'], []).append((int(r['n_frames']), picture_bytes(whole[r['video']])))
    twins = [p for p in pairs.values() if len(p) == 2]
    assert len(twins) == 15 and all(a[0] == b[0] for a, b in twins)
    assert 3 <= sum(a[1] > b[1] for a, b in twins) <= 12
