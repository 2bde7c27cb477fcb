"What notebooks cannot hold: every network of the contract, many views, gradients and modes left alone; and the doctor: broken workers, nothing changed"
import os, signal

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fasttransform import Transform

import networks
from vidbook.core import TensorVideo
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.squares import make_squares
from vidbook.inference.predict import Predictor
from vidbook.interpret import doctor   # gives learners their method
from vidbook.interpret.gradcam import class_maps, gradcam, missed_frames, play_gradcam
from vidbook.io.sample import Clip
from vidbook.learner.classify import video_learner
from vidbook.learner.state import random_state
from vidbook.models.slowonly import slowonly_slim
from vidbook.models.timesformer import timesformer
from vidbook.models.tsm import tsm_slim
from vidbook.models.tsn import tsn_slim
from vidbook.models.videomae import mae_vit_b, videomae
from vidbook.utils import VidbookError, set_seed


@pytest.fixture(scope='module')
def table(tmp_path_factory): return make_squares(tmp_path_factory.mktemp('squares'), n_train=4, n_valid=2)


def loaders(table, workers=0): return VideoDataLoaders.from_table(table, size=32, bs=4, num_workers=workers, train_tfms=(('RandomCrop', {}),))


def made(table, arch=tsm_slim, **kw):
    set_seed(0)
    return video_learner(loaders(table), arch, **kw)


@pytest.mark.parametrize('arch', [tsn_slim, tsm_slim, slowonly_slim])
@pytest.mark.parametrize('layer', [None, 'backbone.layer2.0', 'backbone.conv1'])
def test_maps_of_every_network(arch, layer):
    set_seed(0)
    net, x = arch(n_out=4).train(), torch.randn(3, 3, 4, 64, 96)
    for p in net.backbone.parameters(): p.requires_grad_(False)                               # frozen, as in fine-tuning
    maps = class_maps(net, x, 1, layer)
    assert maps.shape == (3, 4, 64, 96) and maps.isfinite().all() and maps.std() > 0
    assert torch.allclose(maps[1:2], class_maps(net, x[1:2], 1, layer), atol=1e-2*maps.abs().max())   # clips do not touch each other
    assert all(p.grad is None for p in net.parameters()) and not net.backbone.conv1._forward_hooks and not net.backbone._forward_hooks


@pytest.mark.parametrize('name', networks.slim)
def test_each_network_says_where_it_looks(name):
    set_seed(0)
    net, shape = networks.found[name](n_out=4), networks.slim[name].shape
    x = torch.randn(3, *shape)
    maps = class_maps(net, x, 1)
    assert maps.shape[1:] == (shape[:3] if name == 'stgcn_slim' else shape[-3:])              # persons, frames, joints
    assert maps.isfinite().all() and all(o.std() > 0 for o in maps)
    if shape[0] == 3: assert all(o.mean((1, 2)).std() > 1e-3*o.abs().max() for o in maps)      # some moments count for more
    assert torch.allclose(maps[1:2], class_maps(net, x[1:2], 1), atol=1e-2*maps.abs().max())
    assert all(p.grad is None for p in net.parameters()) and not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize('name', [k for k,o in networks.slim.items() if o.shape[0] == 3])
def test_each_clip_network_has_its_overlay_and_its_curve(table, name):
    n_frames = networks.slim[name].shape[1]
    dls = VideoDataLoaders.from_table(table, Clip(1, n=n_frames), 64, short_side=64, bs=4, num_workers=0, train_tfms=())
    set_seed(0)
    learn = video_learner(dls, networks.found[name])
    predict = Predictor(learn, views=(1, 3))
    seen = max((gradcam(predict, dls.valid.items[0].video, o) for o in dls.vocab), key=lambda o: o.maps.max())   # one that something speaks for
    assert seen.maps.shape == (3, n_frames, 64, 64) and seen.maps.max() == 1 and seen.importance.sum() == pytest.approx(1)
    assert any(not np.array_equal(seen.overlays(v), seen.frames[v]) for v in range(3)) and play_gradcam(seen).data.count('<video') == 1


def test_places_of_published_variants():
    small = dict(dim=24, depth=2, n_heads=2, n_frames=4, size=32, patch=8)
    nets = [timesformer(4, o, **small) for o in ('divided', 'joint', 'space')] + [mae_vit_b(4, **small), videomae(4, **small)]
    for net in nets:
        maps = class_maps(net, torch.randn(2, 3, 4, 32, 48), 1)                               # wider than its positions
        assert maps.shape == (2, 4, 32, 48) and maps.std() > 0
    with pytest.raises(VidbookError, match='no places of 2 clips'): class_maps(net, torch.randn(2, 3, 4, 32, 32), 1, 'backbone.fc_norm')
    mvit = networks.found['mvit_slim'](n_out=4)
    assert class_maps(mvit, torch.randn(2, 3, 5, 48, 80), 1).shape == (2, 5, 48, 80)          # sides that are halved unevenly
    with pytest.raises(VidbookError, match='no places of 2 clips'): class_maps(mvit, torch.randn(2, 3, 8, 64, 64), 1, 'backbone.blocks.1.norm1')
    one = tsn_slim(n_out=4)
    assert class_maps(one, torch.randn(2, 3, 1, 64, 64), 1).shape == (2, 1, 64, 64)           # a clip of one frame


def test_the_mean_of_the_map_is_the_score():
    set_seed(0)
    net, x = tsm_slim(n_out=4).eval(), torch.randn(2, 3, 4, 64, 64)
    with torch.no_grad(): scores, features = net(x), net.features(x)
    shares = torch.einsum('kc,bcthw->bkthw', net.head.fc_cls.weight, features).mean((2, 3, 4))+net.head.fc_cls.bias
    assert torch.allclose(shares, scores, atol=1e-4)                                          # what the map stands for
    maps = class_maps(net, x, 2)
    corners = maps[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean((1, 2))                         # 2 x 2 places: the corners of the map are theirs
    assert torch.allclose(corners+net.head.fc_cls.bias[2], scores[:, 2], atol=1e-4)


def test_views_and_missed_frames_of_a_network_without_time(table):
    learn = made(table, tsn_slim)
    predict, video = Predictor(learn, views=(2, 3), max_views=4), learn.dls.valid.items[0].video
    seen = gradcam(predict, video)
    assert seen.frames.shape == (6, 8, 32, 32, 3) and seen.maps.max() == 1 and seen.importance.sum() == pytest.approx(1)
    assert np.array_equal(seen.seconds[0], seen.seconds[2])
    assert missed_frames(predict, video).shape == (6, 8)


# ---- the doctor ------------------------------------------------------------------------------------------------------------
def weights(learn): return {k: v.clone() for k,v in learn.model.state_dict().items()}
def same(a, b): return all(torch.equal(v, b[k]) for k,v in a.items())
def fit(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1)


def test_a_training_is_the_same_after_the_doctor(table):
    ended = []
    for examined in (False, True):
        learn = made(table)
        fit(learn)
        if examined:
            before, modes, attributes = weights(learn), [m.training for m in learn.model.modules()], set(vars(learn))
            state, files = random_state(), sorted(os.listdir(table.attrs['root']))
            values, cbs = list(learn.recorder.values), list(learn.cbs)
            assert learn.doctor(n=8).ok
            after = random_state()
            assert same(before, weights(learn)) and [m.training for m in learn.model.modules()] == modes and set(vars(learn)) == attributes
            assert state['python'] == after['python'] and torch.equal(state['torch'], after['torch'])
            assert all(np.array_equal(a, b) for a,b in zip(state['numpy'], after['numpy']))
            assert sorted(os.listdir(table.attrs['root'])) == files
            assert learn.recorder.values == values and list(learn.cbs) == cbs and all(cb.learn is learn for cb in cbs)
        fit(learn)
        ended.append(weights(learn))
    assert same(*ended)


class Dies(Transform):
    "Kills the process that it is in, if that is a worker"
    def __init__(self): super().__init__(); self.parent = os.getpid()
    def encodes(self, x:TensorVideo):
        if os.getpid() != self.parent: os.kill(os.getpid(), signal.SIGKILL)
        return x


def test_workers(table):
    learn = video_learner(loaders(table, workers=1), tsm_slim)
    alive, = learn.doctor(n=4, only=['workers'])
    assert alive.ok and '1 worker' in alive.text
    learn.dls.train.after_item.add(Dies())
    dead, = learn.doctor(n=4, seconds=20, only=['workers'])
    assert not dead.ok and 'worker' in dead.text and 'num_workers=0' in dead.mend


class Brighter(Callback):
    "Only in training: no illness"
    run_valid = False
    def before_batch(self): self.learn.xb = tuple(o*1.1 for o in self.learn.xb)


def test_what_only_training_does_is_no_illness(table):
    assert made(table, cbs=Brighter()).doctor(n=4, only=['predict is validate'])[0].ok


def test_all_checks_are_done_whatever_breaks(table):
    learn = made(table)
    learn.model.head = torch.nn.Identity()                                                    # gives features, not scores
    found = learn.doctor(n=4, seconds=5)
    assert len(found) == len(doctor.doctor_checks) and not found.ok and [o.name for o in found if o.ok] >= ['each clip once', 'workers'] and all(o.mend for o in found if not o.ok)
