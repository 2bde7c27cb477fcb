"What a training costs: also where inputs or outputs are several, the peak is that of the steps, and no advice slows the training down"
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.people import DetectDataLoaders, DetectSpec
from vidbook.data.squares import make_squares
from vidbook.interpret import cost as module
from vidbook.interpret.cost import Cost, cost, cost_sentence
from vidbook.data.transforms import Stage
from vidbook.io.sample import Clip, Sampling
from vidbook.learner.classify import video_learner
from vidbook.learner.detect import detect_learner
from vidbook.models.bmn import bmn_slim
from vidbook.models.tsn import tsn_slim
from vidbook.presets.localization import localization_presets


@pytest.fixture(scope='module')
def table(tmp_path_factory): return make_squares(tmp_path_factory.mktemp('squares'), n_train=2, n_valid=1, n_frames=6, side=32)


@pytest.fixture(scope='module')
def learn(table): return video_learner(VideoDataLoaders.from_table(table, size=32, bs=4, num_workers=0, index=None), tsn_slim)


def check(found, bs):
    parts = found.decode, found.transform, found.step
    assert found.bs == bs and found.clips_per_s > 0 and found.largest_bs > bs and min(parts) >= 0 and sum(found.shares.values()) == pytest.approx(1)


def test_a_network_with_several_outputs(tmp_path):
    "A preset that proposes where something happens"
    rows = [dict(video=f'v_{k}', start=2, end=9, label='loud', split='train' if k < 4 else 'valid', duration=20.) for k in range(6)]
    for o in rows: np.save(tmp_path/f'{o["video"]}.npy', np.random.default_rng(0).standard_normal((20, 16), np.float32))
    small = localization_presets[0].but(arch=bmn_slim, arch_kw=dict(n_features=16, n_snippets=20, nf=16, n_map=8, n_match=16, n_samples=8), batch=2,
                                        loss_kw=dict(n_snippets=20))
    check(cost(small, (pd.DataFrame(rows), tmp_path), n=2), 2)


@pytest.mark.parametrize('workers', (0, 1))
def test_clips_with_boxes(table, workers):
    "There are as many boxes as there are people: inputs are a tensor and a list"
    boxes = table.assign(at=.1, boxes=[np.array([[.1, .1, .5, .9]]*(1+k%2)) for k in range(len(table))], box_labels=[[[o]]*(1+k%2) for k,o in enumerate(table['label'])])
    boxes.attrs = table.attrs
    spec = DetectSpec(Sampling(Clip(4), 'centred'), short_side=32, size=32, test_size=(32, 32), train_tfms=())
    check(cost(detect_learner(DetectDataLoaders.from_table(boxes, spec, bs=2, num_workers=workers)), n=2), 2)


@pytest.mark.parametrize('opened', ('OpenVideo', 'OpenSkeleton', 'OpenSound', 'OpenSnippets'))
def test_opening_a_file_is_reading(monkeypatch, opened):
    "Whatever the file has"
    stages = [Stage('file', None, 0, 0), *(Stage(name, None, ms, 0) for name,ms in ((opened, 30), ('SampleFrames', 2), ('Flip', 1)))]
    monkeypatch.setattr(module, 'trace', lambda *args, **kw: stages)
    dls = SimpleNamespace(train=SimpleNamespace(items=range(9), after_batch=SimpleNamespace(fs=[])))
    assert module.clip_times(dls) == dict(decode=32, transform=1)


def test_peak_is_that_of_the_steps(learn, monkeypatch):
    "On a GPU the search for the largest batch counts anew, with small batches"
    counted, timed = [0], module.timed_steps
    def count(value, result): counted[0] = value; return result
    monkeypatch.setattr(module, 'memory_mb', lambda device: counted[0])
    monkeypatch.setattr(module, 'timed_steps', lambda *args, **kw: count(900, timed(*args, **kw)))
    monkeypatch.setattr(module, 'largest_batch', lambda learn: count(30, 64))
    found = cost(learn, n=2)
    assert (found.peak_mb, found.largest_bs) == (900, 64)


@pytest.mark.parametrize('known', (True, False))
def test_bfloat16_is_advised_where_the_device_computes_in_it(monkeypatch, known):
    "Elsewhere it takes several times as long"
    monkeypatch.setattr(module, 'computes_bf16', lambda device: known)
    told = cost_sentence(Cost(20, 5., 5., 40., .01, 7200, 900, 64, 16, 4, 20, 'cpu'))
    assert ('to_bf16' in told) == known and told.startswith('The network') and 'smaller clips' in told
