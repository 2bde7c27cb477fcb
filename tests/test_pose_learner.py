"A learner that sees skeletons, through the same calls as for videos"
import numpy as np
import pandas as pd
import pytest

from vidbook.callbacks.multiview import MultiView
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.skeleton import PoseSpec
from vidbook.inference.predict import Predictor
from vidbook.io.sample import Clip, Sampling
from vidbook.io.skeleton import Skeleton, save_skeleton
from vidbook.layers.graph import layout_of
from vidbook.learner.classify import video_learner
from vidbook.models.posec3d import posec3d_slim
from vidbook.models.stgcn import stgcn_slim
from vidbook.utils import set_seed


@pytest.fixture(scope='module')
def acts(tmp_path_factory):
    "Skeletons that raise the left hand or the right one"
    root, rng, rows = tmp_path_factory.mktemp('acts'), np.random.default_rng(0), []
    y = rng.uniform(0, 40, 17)
    body = np.stack([np.full(17, 20.), (y+y[list(layout_of('coco').mirror)])/2], 1)     # its own mirror image, where only the joint tells the class
    for i in range(24):
        points = body+rng.normal(0, 3, (1, 30, 17, 2))+rng.uniform(90, 100, 2)
        points[0, :, 9+i % 2, 1] -= np.linspace(0, 60, 30)
        save_skeleton(root/f'{i}.npz', Skeleton(points.astype(np.float32), np.ones((1, 30, 17), np.float32), (240, 240)))
        rows.append(dict(id=i, video=f'{i}.npz', label=('left hand', 'right hand')[i % 2], split='valid' if i > 15 else 'train', n_frames=30))
    df = pd.DataFrame(rows); df.attrs = dict(root=str(root), vocab=['left hand', 'right hand'])
    return df


def test_a_learner_that_sees_skeletons(acts, tmp_path):
    "The same calls as for videos: loaders, training, several views, export, prediction"
    set_seed(0)
    dls = VideoDataLoaders.from_table(acts, spec=PoseSpec(Sampling(Clip(8), 'whole')), bs=8, num_workers=0, device='cpu')
    learn = video_learner(dls, stgcn_slim, arch_kw=dict(width=16, n_blocks=3, grows=(2,)))
    with learn.no_bar(), learn.no_logging(): learn.fit(60, 1e-2)
    with learn.no_bar(): probs, labels = learn.get_preds(cbs=MultiView(clips=3))
    assert (probs.argmax(1) == labels).float().mean() > .8
    learn.export(tmp_path/'net')
    for source in (learn, tmp_path/'net'):
        said = [Predictor(source, views=(2, 1))(acts.attrs['root']+f'/{i}.npz') for i in (16, 17)]
        assert [o.label for o in said] == ['left hand', 'right hand']


@pytest.mark.parametrize('heat', ['joints', 'limbs'])
def test_a_learner_that_sees_heat_maps(acts, tmp_path, heat):
    "With crops and flips, which exchange the hands and their classes; the rate falls, so that the batch norms' averages catch up with the network"
    set_seed(0)
    spec = PoseSpec(Sampling(Clip(4), 'whole'), heat=heat, size=24, train_tfms=(('RandomResizedCrop', dict(area=(.56, 1.))), ('Flip', {})))
    dls = VideoDataLoaders.from_table(acts, spec=spec, bs=8, num_workers=0, device='cpu')
    learn = video_learner(dls, posec3d_slim, arch_kw=dict(width=8, counts=(1, 1, 1), c_in=spec.shape()[0]))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(30, 1e-2)
    with learn.no_bar(): probs, labels = learn.get_preds()
    assert (probs.argmax(1) == labels).float().mean() > .9
    learn.export(tmp_path/'net')
    said = [Predictor(tmp_path/'net')(acts.attrs['root']+f'/{i}.npz') for i in (16, 17)]
    assert [o.label for o in said] == ['left hand', 'right hand']
