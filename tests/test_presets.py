"Every preset, executed: its training and test pipelines on a real clip, at full size; its names; prediction and test by its own protocol"
from pathlib import Path

import numpy as np
import pytest
import torch

from vidbook import presets
from vidbook.callbacks.multiview import MultiView
from vidbook.callbacks.schedule import step_schedule
from vidbook.data.puppets import make_puppets
from vidbook.data.squares import make_squares
from vidbook.io.sample import Clip, Sampling
from vidbook.models.inception_i3d import inception_i3d_slim
from vidbook.models.slowonly import slowonly_slim
from vidbook.models.tsm import tsm_slim
from vidbook.presets.settings import with_settings

by_pipeline = {}     # presets whose clips are made alike are tried once; those of skeletons, features and boxes in tests of their own
for p in presets._all:
    if p.modality not in ('Pose', 'Features') and p.task != 'detection': by_pipeline.setdefault(repr(p.clip_spec().but(flip_pairs=None)), p)


@pytest.fixture(scope='module')
def media(tmp_path_factory):
    "A video of Puppets with its sound, and some optical flow"
    table = make_puppets(tmp_path_factory.mktemp('puppets'), size='tiny', parts=('clips',))
    video = Path(table.attrs['root'])/table['video'][0]
    return dict(RGB=video, Audio=video, Flow=np.random.default_rng(0).integers(0, 256, (40, 120, 160, 2), np.uint8))


def n_views(p):
    "As the published protocol counts them"
    sampling = p.test_sample or p.sample
    return p.views.clips*p.views.crops*(sampling.positions if sampling.kind == 'dense' else 1)*(1+sampling.twice)


def shape_of(p, sampling, size):
    "Of a clip of the network"
    if p.modality == 'Audio': return 1, p.clip_spec().rows, p.clip_spec().mel.n_mels
    return len(p.mean)*(sampling.clip.clip_len if p.stack else 1), sampling.clip.n if p.stack else sampling.n_seen, size, size


def check_values(p, spec, x):
    "Pictures, not a blank; normalised they are around zero, within what bytes can be"
    assert x.dtype == (torch.float32 if p.modality == 'Audio' else torch.uint8) and x.float().std() > (.1 if p.modality == 'Audio' else 10)
    if p.modality == 'Audio': assert 0 <= x.min() < x.max() <= 1; return
    values = spec.normalize()(x[None] if x.ndim == 4 else x).float()
    for c in range(values.shape[1]):
        low, high = ((o-p.mean[c % len(p.mean)])/p.std[c % len(p.mean)] for o in (0, 255))
        assert low-1e-4 <= values[:, c].min() < 0 < values[:, c].max() <= high+1e-4


@pytest.mark.parametrize('p', by_pipeline.values(), ids=lambda p: p.name)
def test_pipelines(p, media):
    spec, clip, views = p.clip_spec(), media[p.modality], n_views(p)
    train, test = spec.train_pipeline()(clip, np.random.default_rng(0)), spec.test_pipeline(p.views)(clip)
    assert train.shape == spec.shape() == shape_of(p, p.sample, p.size)
    assert spec.shape(test=True) == shape_of(p, p.test_sample or p.sample, p.test_size or p.size)
    assert test.shape == (views,)*(views > 1)+spec.shape(test=True)
    for x in (train, test): check_values(p, spec, x)
    again = [spec.train_pipeline()(clip, np.random.default_rng(seed)) for seed in (0, 1, 2, 3)]
    assert torch.equal(train, again[0])
    assert p.modality == 'Audio' or not all(torch.equal(train, o) for o in again)          # 48 frames beside a sound are less than its clip


def test_every_preset_is_complete():
    for p in presets._all:
        assert (p.urls or p.init or p.fit or p.task == 'recognition_audio') and p.paper and (p.vocab or p.labels == ()) and p.average in ('prob', 'score')
        assert len(set(p.vocab)) == len(p.vocab) and p.base_lr > 0 and p.base_batch >= p.batch
        assert p.fit is not None or p.note in ('weights of 0.x', 'published without a recipe')
        assert presets.find(p.name) == p


def test_the_table_tells_what_the_presets_are():
    table = presets.table()
    assert list(table.index) == [p.name for p in presets._all]
    assert table.loc['tsm_r50_k400_1x1x8', ['top1', 'frames', 'views']].tolist() == [73.18, 8, '1 x 10']


def test_predictor_and_test_agree(tmp_path):
    "What the predictor says of each video is what the test by the published protocol counts, for both kinds of average"
    table = make_squares(tmp_path, n_train=2, n_valid=2)
    base = presets.tsm_r50_k400_1x1x8.but(arch=tsm_slim, labels=tuple(table.attrs['vocab']), size=32, test_size=36, short_side=36, batch=4)
    for p in (base, base.but(average='score', views=presets.tsm_r50_sthv2_1x1x8.views, test_sample=presets.tsm_r50_sthv2_1x1x8.test_sample)):
        weights = p.model().state_dict()
        dls = p.data(table, published=True, num_workers=0)
        learn = p.learner(dls, pretrained=weights)
        with learn.no_bar(): probs, labels = learn.get_preds(cbs=MultiView(p.views.clips, p.views.crops, p.average))
        predict = p.predictor(weights, views=True)
        said = np.stack([predict(o.video).probs for o in dls.valid.items])
        np.testing.assert_allclose(said, probs.numpy(), atol=1e-6)
        with learn.no_bar(): found = p.test(dls, pretrained=weights)
        assert found['accuracy'] == pytest.approx(float((said.argmax(1) == labels.numpy()).mean()))


@pytest.mark.parametrize('name', ['tsn_r50_k400_dense_1x1x5', 'tsm_r50_k400_dense_1x1x8', 'tsm_r50_sthv2_1x1x8', 'i3d_r50_k400_dense_32x2'])
def test_recipes_whose_clips_have_several_views(tmp_path, name):
    "Their validation sees dense places, or the segments twice, and measures what a test of one crop does"
    table, net = make_squares(tmp_path, n_train=2, n_valid=2), slowonly_slim if name.startswith('i3d') else tsm_slim
    p = with_settings(presets.find(name), dict(size=32, test_size=32, short_side=36, batch=4, epochs=1)).but(arch=net, arch_kw={}, init=None)
    learn = p.train(p.data(table, num_workers=0))
    seen = list(learn.final_record)[-4:]
    with learn.no_bar(): assert list(learn.validate(cbs=MultiView(average=p.average))) == pytest.approx(seen, abs=1e-6)


def test_only_a_part_of_the_two_stream_network_learns(tmp_path):
    "The recipe of the two-stream I3D, from weights of another number of classes"
    table = make_squares(tmp_path, n_train=2, n_valid=1)
    start = inception_i3d_slim(9).state_dict()
    p = presets.inception_i3d_rgb_hmdb51.but(arch=inception_i3d_slim, sample=Sampling(Clip(8)), size=32, short_side=36, fit=step_schedule(1, (1,)))
    learn = p.train(p.data(table, bs=4, num_workers=0), weights=start)
    changed = {k for k, v in learn.model.state_dict().items() if 'num_batches' not in k and (k not in start or v.shape != start[k].shape or not torch.equal(v, start[k]))}
    assert changed and all(k.startswith(('head.', 'backbone.mixed_5')) for k in changed)
    assert {'backbone.mixed_5b.b0.conv.weight', 'backbone.mixed_5c.b3b.bn.running_mean', 'head.fc_cls.weight'} <= changed
