"The data layer where a notebook is too small a place: worker processes, start methods"
import pickle, shutil, subprocess, sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidbook.data.cache import FrameCache
from vidbook.data.loaders import VideoDataLoaders, dl_ids, views_dl
from vidbook.io.sample import Clip
from vidbook.io.video import MediaError
from vidbook.io.write import write_video
from vidbook.utils import set_seed

# ---- loaders in several processes ---------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    "Eight videos, in frame k of video i the grey 25*i+k"
    folder = tmp_path_factory.mktemp('grey')
    for i in range(8):
        (folder/f'{i%2}').mkdir(exist_ok=True)
        write_video(folder/f'{i%2}'/f'{i}.mp4', (np.full((48, 64, 3), 25*i+k, np.uint8) for k in range(20)), crf=1)
    return folder


def loaders(folder, **kw):
    kw = dict(clip=Clip(n=4), size=40, bs=2, num_workers=2, device='cpu', valid_pct=.5) | kw
    return VideoDataLoaders.from_folder(folder, **kw)


def test_workers_keep_the_order_of_validation(videos):
    dls = loaders(videos)
    got = torch.cat([x for x, _ in dls.valid])
    assert torch.equal(got, torch.cat([x for x, _ in loaders(videos, num_workers=0).valid]))
    grey = got.as_subclass(torch.Tensor)[:, 0, 0, 0, 0]*dls.spec.std[0]+dls.spec.mean[0]
    number = [int(Path(i).stem) for i in dl_ids(dls.valid)]
    np.testing.assert_allclose(grey, [25*i+2 for i in number], atol=3)      # the middle of the first of four segments


def frames_drawn(dls, epochs=2):
    return [torch.cat([x for x, _ in dls.train]).as_subclass(torch.Tensor)[:, 0, :, 0, 0].numpy() for _ in range(epochs)]


def test_draws_differ_between_epochs_and_workers_and_repeat_with_the_seed(videos):
    def run(seed):
        set_seed(seed)
        return frames_drawn(loaders(videos, bs=1, train_tfms=()))
    a, again, other = run(1), run(1), run(2)
    assert all((x == y).all() for x, y in zip(a, again))
    assert (a[0] != a[1]).any() and (a[0] != other[0]).any()
    grey = np.round(a[0]*58.395+123.675)
    offsets = grey-grey[:, :1]
    assert len({tuple(o) for o in offsets}) > 1                                # clips draw for themselves


def test_workers_fill_one_cache(videos):
    dls = loaders(videos, cache='memory')
    plain = torch.cat([x for x, _ in loaders(videos).valid])
    for _ in range(2): assert torch.equal(torch.cat([x for x, _ in dls.valid]), plain)
    assert len(dls.cache) == len(dls.valid.items)
    for _ in dls.train: pass
    assert len(dls.cache) == 8 and dls.cache.nbytes == 8*20*46*61*3
    dls.cache.close()
    assert not dls.cache.folder.exists()
    assert torch.equal(torch.cat([x for x, _ in dls.valid]), plain)


def test_loaders_pickle(videos):
    "What a worker gets under spawn and forkserver"
    for dl in (loaders(videos, num_workers=0, cache='memory').valid, views_dl(loaders(videos, num_workers=0).valid, (2, 3))):
        assert torch.equal(next(iter(pickle.loads(pickle.dumps(dl))))[0], next(iter(dl))[0])


def test_a_broken_video_is_named_by_the_worker(videos, tmp_path):
    shutil.copytree(videos, tmp_path/'v')
    for o in (tmp_path/'v').rglob('[4-7].mp4'): o.write_bytes(o.read_bytes()[:400])
    dls = loaders(tmp_path/'v')
    with pytest.raises(MediaError, match=r'[4-7]\.mp4') as caught:
        for dl in dls.loaders:
            for _ in dl: pass
    assert len(str(caught.value).splitlines()) == 1


def test_test_rows_make_a_third_loader_and_need_labels(videos):
    df = loaders(videos).table
    df.loc[df.index[:3], 'split'] = 'test'
    df['label'] = df['label'].astype(object)
    df.loc[df.index[0], 'label'] = None
    dls = VideoDataLoaders.from_table(df, clip=Clip(n=4), size=40, bs=2, num_workers=0, device='cpu')
    assert dl_ids(dls.test) == list(df['id'][1:3]) and dls.test.one_batch()[0].shape == (2, 3, 4, 40, 40)


def test_folders_of_frames(tmp_path):
    for i in range(4):
        (tmp_path/f'v{i}').mkdir()
        for k in range(6): cv2.imwrite(str(tmp_path/f'v{i}/img_{k+1:05}.jpg'), np.full((48, 64, 3), 40*i+5*k, np.uint8))
    for name, rows in (('train', (0, 1)), ('valid', (2, 3))): (tmp_path/f'{name}.txt').write_text('\n'.join(f'v{i} 6 {i%2}' for i in rows))
    dls = VideoDataLoaders.from_lists(tmp_path/'train.txt', tmp_path/'valid.txt', vocab=['a', 'b'], frames=True, clip=Clip(n=3), size=40, bs=2,
                                      num_workers=0, device='cpu')
    grey = dls.valid.decode(dls.valid.one_batch())[0][:, 0, :, 0, 0].as_subclass(torch.Tensor).numpy()
    np.testing.assert_allclose(grey, [[80+5*k for k in (1, 3, 5)], [120+5*k for k in (1, 3, 5)]], atol=2)


# ---- the cache of a process that ends ------------------------------------------------------------------------------------------
def test_a_cache_goes_with_its_process_and_leftovers_are_swept(tmp_path):
    code = f'import os, sys; from vidbook.data.cache import FrameCache; c = FrameCache(32, folder={str(tmp_path)!r}); print(c.folder, flush=True); '
    def left(end): return Path(subprocess.run([sys.executable, '-c', code+end], capture_output=True, text=True).stdout.strip())
    assert not left('').exists()
    killed = left('os.kill(os.getpid(), 9)')
    assert killed.exists()
    FrameCache(32, folder=tmp_path).close()
    assert not killed.exists()
