"Workers that die, hang or meet broken files; start methods; memory; what was left out is counted and the order stays"
import ctypes, multiprocessing, os, re, signal, subprocess, sys, time

import numpy as np
import pandas as pd
import pytest

from vidbook.data import transforms
from vidbook.data.loaders import VideoDataLoaders, dl_ids, views_dl
from vidbook.data.table import TableError
from vidbook.io.sample import Clip
from vidbook.io.video import MediaError
from vidbook.io.write import write_video

fork = pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='this system cannot fork')
real_open = transforms.open_video


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Twelve small videos, one of them cut off and one of them text"
    folder = tmp_path_factory.mktemp('videos')
    for i in range(12): write_video(folder/f'{i:02}.mp4', [np.full((32, 64, 3), 20*i, np.uint8)]*12, 12)
    whole = (folder/'04.mp4').read_bytes()
    (folder/'04.mp4').write_bytes(whole[:-40])
    (folder/'09.mp4').write_text('sorry')
    return folder


def table(folder, broken=True):
    names = [f'{i:02}.mp4' for i in range(12) if broken or i not in (4, 9)]
    return pd.DataFrame(dict(id=[n[:2] for n in names], video=[str(folder/n) for n in names], label=['a', 'b']*(len(names)//2),
                             split=['train']*2 + ['valid']*(len(names)-2)))


def loaders(folder, broken=True, **kw):
    return VideoDataLoaders.from_table(table(folder, broken), Clip(n=2), 32, bs=2, device='cpu', **{'num_workers': 2, **kw})


def brightness(dl): return [round(float(v)) for x, _ in dl for v in dl.after_batch.decode(x).float().mean((1, 2, 3, 4))]


# ---- broken files -----------------------------------------------------------------------------------------------------------
def test_a_broken_file_stops_by_default(folder):
    with pytest.raises(MediaError, match='0[49].mp4'): list(loaders(folder).valid)


@pytest.mark.parametrize('num_workers', [0, 1, 2, 3])
def test_left_out_clips_are_listed_and_the_others_keep_their_order(folder, num_workers):
    dls = loaders(folder, on_error='skip', num_workers=num_workers)
    with pytest.warns(UserWarning, match='2 videos were left out, first .*0[49].mp4'): seen = brightness(dls.valid)
    assert dl_ids(dls.valid) == [o for o in table(folder)['id'][2:] if o not in ('04', '09')]
    assert np.abs(np.array(seen) - [20*int(o) for o in dl_ids(dls.valid)]).max() <= 3
    bad = dls.bad_videos()
    assert sorted(o[-6:] for o in bad['video']) == ['04.mp4', '09.mp4'] and set(bad['done']) == {'left out'} and set(bad['times']) == {1}
    assert 'text' in bad.set_index(bad['video'].str[-6:])['why']['09.mp4']


def test_a_batch_that_loses_all_its_clips_does_not_shift_the_others(folder):
    dls = loaders(folder, on_error='skip')
    dl = views_dl(dls.valid, (2, 1))                                       # two views: one clip a batch, so that whole batches are lost
    assert dl.bs == 1
    with pytest.warns(UserWarning, match='left out'): labels = [int(y) for _, y in dl]
    vocab = list(dls.vocab)
    assert labels == [vocab.index(dls.table.set_index('id')['label'][o]) for o in dl_ids(dl)] and len(labels) == 8


def test_missing_and_empty_files_stop_early_or_are_left_out_too(folder):
    df = table(folder, False)
    df.loc[3, 'video'], df.loc[5, 'video'] = str(folder/'gone.mp4'), str(folder/'none.mp4')
    (folder/'none.mp4').touch()
    with pytest.raises(TableError, match='gone.mp4'): VideoDataLoaders.from_table(df, Clip(n=2), 32, bs=2, num_workers=0, device='cpu')
    dls = VideoDataLoaders.from_table(df, Clip(n=2), 32, bs=2, num_workers=2, device='cpu', on_error='skip')
    with pytest.warns(UserWarning, match='2 videos were left out'): assert sum(len(y) for _, y in dls.valid) == 6
    assert len(dl_ids(dls.valid)) == 6
    (folder/'none.mp4').unlink()


def test_salvaged_clips_are_listed(folder, tmp_path):
    for i in range(12): write_video(tmp_path/f'{i:02}.mp4', [np.full((32, 48, 3), 20*i, np.uint8)]*12, 12)
    data = (tmp_path/'04.mp4').read_bytes()
    (tmp_path/'04.mp4').write_bytes(data[:-len(data)//40])
    dls = loaders(tmp_path, on_error='salvage')
    with pytest.warns(UserWarning, match='1 videos were salvaged'): seen = brightness(dls.valid)
    assert len(seen) == 10 and dl_ids(dls.valid) == list(table(tmp_path)['id'][2:])
    assert dls.bad_videos()['done'].tolist() == ['salvaged']


# ---- workers that are lost --------------------------------------------------------------------------------------------------
def lost(folder, monkeypatch, name, how, **kw):
    "The error of a pass in which the worker that opens `name` is lost"
    def open_or_die(video, *args, **kw):
        if name in str(video): how()
        return real_open(video, *args, **kw)
    monkeypatch.setattr(transforms, 'open_video', open_or_die)
    with pytest.raises(MediaError) as error: list(loaders(folder, False, start='fork', **kw).valid)
    return error.value


def kill(): os.kill(os.getpid(), signal.SIGKILL)
def crash(): ctypes.string_at(0)
def hang(): ctypes.PyDLL(None).sleep(600)                                  # PyDLL keeps Python's lock: no signal and no thread helps


@fork
@pytest.mark.parametrize('how, why', [(kill, 'died.*Killed'), (crash, 'died.*Segmentation fault')])
def test_a_worker_that_dies_names_its_video(folder, monkeypatch, how, why):
    error = lost(folder, monkeypatch, '07.mp4', how)
    assert error.path.endswith('07.mp4') and re.search(why, str(error))


@fork
def test_a_worker_that_hangs_names_its_video(folder, monkeypatch):
    start = time.monotonic()
    error = lost(folder, monkeypatch, '07.mp4', hang, timeout=2)
    assert error.path.endswith('07.mp4') and 'without an end' in str(error) and time.monotonic() - start < 30
    assert not multiprocessing.active_children()                           # nobody is left behind


@fork
def test_a_worker_that_dies_while_the_parent_computes_is_named_too(folder, monkeypatch):
    def open_or_die(video, *args, **kw):
        if '07.mp4' in str(video): kill()
        return real_open(video, *args, **kw)
    monkeypatch.setattr(transforms, 'open_video', open_or_die)
    with pytest.raises(MediaError, match='07.mp4'):
        for _ in loaders(folder, False, start='fork').valid: time.sleep(1)


# ---- start methods and memory -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize('start', multiprocessing.get_all_start_methods())
def test_workers_of_every_start_method_give_the_same(folder, start):
    dls = loaders(folder, False, start=start)
    assert brightness(dls.valid) == brightness(loaders(folder, False, num_workers=0).valid)
    if start == 'forkserver': assert brightness(dls.valid) == brightness(dls.valid)      # the second pass forks a server that has imported


def test_the_parent_opens_no_video(folder, monkeypatch):
    def never(*args, **kw): raise AssertionError('a reader in the parent')
    parent = os.getpid()
    def open_elsewhere(*args, **kw): return never() if os.getpid() == parent else real_open(*args, **kw)
    monkeypatch.setattr(transforms, 'open_video', open_elsewhere)
    monkeypatch.setattr('vidbook.io.video.open_video', open_elsewhere)
    assert len(list(loaders(folder, False, start='fork').valid)) == 4


@fork
@pytest.mark.parametrize('reader', ['pyav', 'decord', 'opencv'])
def test_a_decoder_that_ran_in_the_parent_does_not_hang_the_workers(folder, reader):
    dls = loaders(folder, False, reader=reader, timeout=60, start='fork')
    dls.one_batch()
    assert len(list(dls.valid)) == 4


# ---- passes ----------------------------------------------------------------------------------------------------------------
def training_batches(dls): return [(x.float().mean((1, 2, 3, 4)).tolist(), y.tolist()) for x,y in dls.train]


def training(folder, num_workers):
    df = table(folder, False).assign(split=['train']*8 + ['valid']*2)
    return VideoDataLoaders.from_table(df, Clip(n=2), 32, bs=2, device='cpu', num_workers=num_workers)


def test_clips_of_training_do_not_depend_on_the_workers(folder):
    made = []
    for num_workers in (0, 1, 3):
        dls = training(folder, num_workers)
        dls.train.resume(dict(seed=5, passes=2, done=0))
        made.append((training_batches(dls), training_batches(dls)))
    assert made[0] == made[1] == made[2]
    assert made[0][0] != made[0][1]


def test_a_pass_is_taken_up_in_the_middle_with_other_workers(folder):
    first, second = training(folder, 2), training(folder, 0)
    first.train.seed = 7
    whole = training_batches(first)
    second.train.resume(dict(seed=7, passes=0, done=1))
    assert len(whole) == 4 and training_batches(second) == whole[1:]
    assert first.train.position() == second.train.position() == dict(seed=7, passes=1, done=0)


def test_processes_that_begin_together_do_not_sweep_each_other_away(tmp_path):
    "A folder was there before its lock; two processes lost 4 of 600 folders in that time"
    code = 'import sys; from vidbook.data.scratch import Scratch; kept = [Scratch("race", sys.argv[1]) for _ in range(300)]; print(sum(o.folder.exists() for o in kept))'
    started = [subprocess.Popen([sys.executable, '-c', code, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [int(o.communicate(timeout=300)[0]) for o in started] == [300, 300]
    assert not list(tmp_path.iterdir())
