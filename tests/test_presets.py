"Every preset, executed: its training and test pipelines on a real clip, at full size; its names; prediction and test by its own protocol"
from pathlib import Path

import numpy as np
import pytest
import torch

from vidbook import presets
from vidbook.callbacks.multiview import MultiView
from vidbook.data.puppets import make_puppets
from vidbook.data.squares import make_squares
from vidbook.models.tsm import tsm_slim

by_pipeline = {}     # presets whose clips are made alike are tried once
for p in presets._all: by_pipeline.setdefault(repr(p.clip_spec().but(flip_pairs=None)), p)


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    "A video of Puppets"
    table = make_puppets(tmp_path_factory.mktemp('puppets'), size='tiny', parts=('clips',))
    return Path(table.attrs['root'])/table['video'][0]


def n_views(p):
    "As the published protocol counts them"
    sampling = p.test_sample or p.sample
    return p.views.clips*p.views.crops*(sampling.positions if sampling.kind == 'dense' else 1)*(1+sampling.twice)


@pytest.mark.parametrize('p', by_pipeline.values(), ids=lambda p: p.name)
def test_pipelines(p, clip):
    spec, seen = p.clip_spec(), p.test_size or p.size
    train, test = spec.train_pipeline()(clip, np.random.default_rng(0)), spec.test_pipeline(p.views)(clip)
    n, views = (p.test_sample or p.sample).n_seen, n_views(p)
    assert train.shape == (3, p.sample.n_seen, p.size, p.size)
    assert test.shape == (views,)*(views > 1)+(3, n, seen, seen)
    low, high = ((np.array([o]*3)-p.mean)/p.std for o in (0, 255))
    for x in (train, test):
        assert x.dtype == torch.uint8 and x.float().std() > 10                # pictures, not a blank
        values = spec.normalize()(x[None] if x.ndim == 4 else x).float()
        for c in range(3): assert low[c]-1e-4 <= values[:, c].min() < 0 < values[:, c].max() <= high[c]+1e-4
    again = [spec.train_pipeline()(clip, np.random.default_rng(seed)) for seed in (0, 1, 2, 3)]
    assert torch.equal(train, again[0]) and not all(torch.equal(train, o) for o in again)


def test_every_preset_is_complete():
    for p in presets._all:
        assert p.urls and p.paper and p.vocab and p.task == 'recognition' and p.average in ('prob', 'score')
        assert len(set(p.vocab)) == len(p.vocab) and p.base_lr > 0 and p.base_batch >= p.batch
        assert p.fit is not None or p.note == 'weights of 0.x'
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
