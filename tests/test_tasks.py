"One learner style: what every learner can do, through the same code, on a few made-up videos of each task"
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback

from pair import run_pair
from vidbook.data.loaders import VideoDataLoaders, trace
from vidbook.data.people import DetectDataLoaders, DetectSpec
from vidbook.data.skeleton import PoseSpec
from vidbook.data.snippets import SnippetSpec, snippet_loaders
from vidbook.data.sound import AudioSpec
from vidbook.data.squares import make_squares
from vidbook.data.text import CaptionDataLoaders
from vidbook.export.onnx import OnnxNetwork, export_onnx
from vidbook.io.audio import write_wav
from vidbook.io.sample import Clip, Sampling
from vidbook.io.skeleton import Skeleton, save_skeleton
from vidbook.learner import distributed             # for learn.distributed
from vidbook.learner.checkpoint import load_network
from vidbook.learner.classify import video_learner
from vidbook.learner.detect import detect_learner
from vidbook.learner.localize import localize_learner
from vidbook.learner.people import people_learner, people_spec
from vidbook.learner.pose import pose_learner
from vidbook.learner.retrieve import retrieve_learner
from vidbook.learner.saving import SaveTraining
from vidbook.models.audio import audio_slim
from vidbook.models.bmn import bmn_slim
from vidbook.models.roi import roi_slowonly_slim
from vidbook.utils import set_seed
from vidbook.widgets.pipeline import PipelineBrowser

parts = ['train']*8+['valid']*4
kw = dict(num_workers=0, device=torch.device('cpu'))


def rows(names, root, **columns):
    "A table of files"
    table = pd.DataFrame(dict(id=[o.rpartition('.')[0] for o in names], video=names, split=parts, **columns))
    table.attrs['root'] = str(root)
    return table


def sound(root):
    rng, names = np.random.default_rng(0), [f'{i}.wav' for i in range(12)]
    for i,name in enumerate(names): write_wav(root/name, (.3*np.sin(np.arange(8000)*(.1+.2*(i % 2)))+.01*rng.standard_normal(8000)).astype(np.float32), 16000)
    table = rows(names, root, label=['low', 'high']*6)
    dls = VideoDataLoaders.from_table(table, spec=AudioSpec(Sampling(Clip(12)), rows=32, train_tfms=(('HideStripes', {}),)), bs=4, **kw)
    return video_learner(dls, audio_slim, arch_kw=dict(width=8))


def skeleton(root):
    rng, names = np.random.default_rng(0), [f'{i}.npz' for i in range(12)]
    for i,name in enumerate(names):
        points = rng.uniform(20, 60, (1, 20, 17, 2))+np.arange(20)[None, :, None, None]*(i % 2)
        save_skeleton(root/name, Skeleton(points.astype(np.float32), np.ones((1, 20, 17), np.float32), (100, 100), 10))
    table = rows(names, root, label=['stand', 'fall']*6)
    dls = VideoDataLoaders.from_table(table, spec=PoseSpec(Sampling(Clip(8), 'whole'), persons=1), bs=4, **kw)
    return pose_learner(dls, arch_kw=dict(width=8, n_blocks=2, grows=(2,)))


def squares(root): return make_squares(root, n_train=2, n_valid=1, n_frames=12)


def detection(root):
    table = squares(root)
    table['at'], table['boxes'] = .2, [np.array([[.1, .1, .6, .7], [.3, .2, .9, .9]])]*len(table)
    table['box_labels'] = [[[o], [o]] for o in table['label']]
    spec = DetectSpec(Sampling(Clip(4, 2), 'centred'), short_side=36, size=32, test_size=(32, 32), train_tfms=(('RandomCrop', {}), ('Flip', {})))
    return detect_learner(DetectDataLoaders.from_table(table, spec, bs=4, test_bs=4, **kw), roi_slowonly_slim)


def people(root):
    dls = detection(root).dls
    return people_learner(DetectDataLoaders.from_table(dls.table, people_spec(dls.spec), bs=4, test_bs=4, **kw), arch_kw=dict(size=(32, 32)))


def localization(root):
    rng, names = np.random.default_rng(0), [f'v_{i}.mp4' for i in range(12)]
    for name in names: np.save(root/f'{name.removesuffix(".mp4")}.npy', rng.standard_normal((20, 16)).astype(np.float32))
    table = rows(names, root, label='loud', start=2., end=5., duration=10.)
    return localize_learner(snippet_loaders(table, root, SnippetSpec(20, 16), bs=4, device=kw['device']), bmn_slim, arch_kw=dict(nf=16, n_map=8, n_match=16, n_samples=8))


def retrieval(root):
    table = squares(root)
    table['caption'] = [f'number {i} goes {o}' for i,o in enumerate(table['label'])]
    dls = CaptionDataLoaders.from_table(table, Clip(1, n=4), 32, short_side=36, train_tfms=(('RandomCrop', {}),), bs=4, tokenizer='words', **kw)
    return retrieve_learner(dls)


tasks = dict(sound=sound, skeleton=skeleton, detection=detection, people=people, localization=localization, retrieval=retrieval)


def make(task, root, seed=0):
    set_seed(seed)
    root.mkdir(parents=True, exist_ok=True)
    learn = tasks[task](root)
    learn.logger = print
    return learn.remove_cb(learn.progress)


@pytest.fixture(params=list(tasks))
def task(request): return request.param


def equal(a, b): return all(torch.equal(v, b.model.state_dict()[k]) for k,v in a.model.state_dict().items())


class Stop(Callback):
    "Ends a training after so many of its iterations; known to every plan under one name"
    at = None
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
    def after_batch(self):
        if self.training and self.train_iter == Stop.at: raise KeyboardInterrupt


def test_a_training_goes_on(task, tmp_path):
    "Broken off in its second epoch, it ends with the same bits"
    def fit(at, *saves, seed=0):
        Stop.at, learn = at, make(task, tmp_path/'data', seed)
        try: learn.fit_one_cycle(3, 1e-3, cbs=[Stop(), *saves])
        except KeyboardInterrupt: pass
        return learn
    whole = fit(None)
    fit(3, SaveTraining(tmp_path/'run', iters=1))
    again = fit(None, SaveTraining(tmp_path/'run', iters=1), seed=9)
    assert equal(again, whole) and not equal(make(task, tmp_path/'data'), whole)


def test_it_is_shown(task, tmp_path):
    "Batches, what was said of them, and each step of the pipeline"
    learn = make(task, tmp_path)
    for show in (learn.dls.show_batch, learn.show_results):
        plt.close('all')
        show(max_n=2)
        assert plt.get_fignums() and any(o.has_data() or o.images for o in plt.gcf().axes), show
    steps = trace(learn.dls)
    assert len(steps) >= 2 and all(o.ms >= 0 for o in steps)
    browser = PipelineBrowser(learn.dls)
    assert len(browser.picture().axes) == len(browser.clip.stages)+bool(learn.dls.spec.short_side)
    assert len({bytes(browser.clip.pictures(k)[0]) for k in range(len(steps))}) > 1


def test_it_leaves_the_notebook(task, tmp_path):
    "An export makes the same network again, and so does its ONNX"
    learn = make(task, tmp_path/'data')
    net, card = load_network(learn.export(tmp_path/'export'))
    assert card.clip_spec() == learn.dls.spec and card.task in (task, 'recognition') and equal(learn, SimpleNamespace(model=net))
    if task == 'people': return                                             # as many boxes as it finds: there is no ONNX of it
    batch = learn.dls.valid.one_batch()
    inputs = batch[:learn.dls.n_inp]
    with torch.no_grad(): want = learn.model.eval()(*inputs)
    want = (want,) if torch.is_tensor(want) else want
    with torch.no_grad(): own = net(*inputs)
    assert all(torch.equal(a, b) for a,b in zip(want, (own,) if torch.is_tensor(own) else own))
    for part in ('video', 'text') if task == 'retrieval' else (None,):
        file = OnnxNetwork(export_onnx(tmp_path/'export', tmp_path/'net.onnx', part=part), threads=1)
        if part: got, want = (file(inputs[part == 'text']),), (getattr(net, f'encode_{part}')(inputs[part == 'text']).detach(),)
        else: got = file(*inputs)
        for a,b in zip((got,) if torch.is_tensor(got) else got, want): assert (a-b).abs().max() < 1e-3


def train_all(rank, pipe, folder):
    "What one of two processes has at the end of a training of each task"
    torch.set_num_threads(1)
    found = {}
    for task in tasks:
        learn = make(task, folder/f'{task}{rank}', seed=rank)
        with learn.distributed(): learn.fit(1, 1e-3); value = learn.validate()
        found[task] = [float(sum(v.double().abs().sum() for v in learn.model.state_dict().values())), *map(float, value)]
    pipe.send(found)


def test_two_processes(tmp_path):
    "They begin with other weights, end with the same ones, and tell the same numbers"
    ours, theirs = run_pair(train_all, tmp_path, patience=200)
    assert ours.keys() == tasks.keys() and all(np.isfinite(o).all() for o in ours.values())
    assert ours == theirs
