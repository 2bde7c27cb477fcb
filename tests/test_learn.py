"What notebooks cannot hold: other processes, killed writers, workers, several labels a video, real scores of the reference"
import gzip, json, resource, signal, subprocess, sys, zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.metrics import accuracy

from vidbook.callbacks.multiview import MultiView
from vidbook.callbacks.precision import Bf16
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.spec import Views
from vidbook.data.squares import make_squares
from vidbook.export.publish import publish
from vidbook.inference.ensemble import fuse
from vidbook.inference.predict import Predictor
from vidbook.interpret.classify import predictions
from vidbook.interpret.motion import probe_motion
from vidbook.learner import checkpoint
from vidbook.learner.checkpoint import load_learner
from vidbook.learner.classify import video_learner
from vidbook.models.tsm import tsm_slim
from vidbook.pretrained import WeightsError
from vidbook.utils import VidbookError, set_seed
from vidbook.widgets.results import ResultsExplorer

small = dict(size=32, bs=4, num_workers=0, train_tfms=(('RandomCrop', {}),))


@pytest.fixture(scope='module')
def table(tmp_path_factory): return make_squares(tmp_path_factory.mktemp('squares'), n_train=3, n_valid=2, n_frames=12)


@pytest.fixture()
def learn(table):
    set_seed(0)
    learn = video_learner(VideoDataLoaders.from_table(table, **small), tsm_slim, metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    with learn.no_bar(): yield learn


def test_another_process_predicts_what_validation_said(learn, tmp_path):
    "Only the exported folder and the files go there"
    folder, files = learn.export(tmp_path/'model'), [str(o.video) for o in learn.dls.valid.items[:3]]
    code = ('import json, sys; from vidbook.inference.predict import Predictor; predict = Predictor(sys.argv[1], views=(2, 3)); '
            'print(json.dumps([predict(f).probs.tolist() for f in sys.argv[2:]]))')
    ran = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(folder), *files], capture_output=True, text=True, check=True)
    want, _ = learn.get_preds(cbs=MultiView(2, 3))
    np.testing.assert_allclose(json.loads(ran.stdout.splitlines()[-1]), want[:3].numpy(), atol=1e-6)


@pytest.mark.parametrize('step', ['save_file', 'sha256', 'asdict'])
def test_a_writer_that_fails_leaves_the_old_export(learn, tmp_path, monkeypatch, step):
    folder = learn.export(tmp_path/'model'); before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with torch.no_grad(): next(learn.model.parameters()).add_(1)
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(checkpoint, step, full)
    with pytest.raises(OSError): learn.export(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(OSError): learn.export(tmp_path/'new')
    assert not list((tmp_path/'new').iterdir())


def test_no_room_for_an_export(learn, tmp_path):
    "The system refuses to write: one sentence says so, and what was there before stays"
    folder = learn.export(tmp_path/'model'); before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (soft, hard), old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(WeightsError, match='model could not be written .*File too large.*make room'): learn.export(folder)
        with pytest.raises(WeightsError, match=r'safetensors could not be written \(File too large\): make room'): publish(learn, folder)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)); signal.signal(signal.SIGXFSZ, old)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_killed_between_the_two_files(learn, tmp_path):
    "New weights beside the old card are noticed"
    old = learn.export(tmp_path/'old')
    with torch.no_grad(): next(learn.model.parameters()).add_(1)
    new = learn.export(tmp_path/'new')
    (old/'model.safetensors').write_bytes((new/'model.safetensors').read_bytes())
    with pytest.raises(WeightsError, match='copy both again'): Predictor(old)


def test_workers_give_the_same_as_none(table, learn):
    many = video_learner(VideoDataLoaders.from_table(table, **{**small, 'num_workers': 2}), tsm_slim)
    many.model.load_state_dict(learn.model.state_dict())
    with many.no_bar():
        a, b = predictions(learn, views=Views(2, 3)), predictions(many, views=Views(2, 3))
        assert list(a.table['id']) == list(b.table['id']); np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
        with many.no_logging(): many.fit(1)


def test_views_in_every_epoch_of_a_fit(learn):
    "MultiView as a callback of the training: single views are trained, several validated"
    with learn.no_logging(): learn.fit(1, cbs=MultiView(2, 3))
    loss, top1 = learn.validate(cbs=MultiView(2, 3))
    assert learn.recorder.values[-1][-1] == pytest.approx(top1)
    assert learn.dl is None or learn.dl.one_batch()[0].ndim == 5


def test_half_precision_and_views(learn):
    full, _ = learn.get_preds(cbs=MultiView(2, 3))
    half, _ = learn.get_preds(cbs=[MultiView(2, 3), Bf16()])
    assert half.dtype == torch.float32 and 0 < (half-full).abs().max() < .03


def test_probes_repeat(learn):
    assert probe_motion(learn, seed=3) == probe_motion(learn, seed=3)
    assert set(probe_motion(learn)) == {'normal', 'frozen', 'shuffled'}


def test_several_labels_a_video(table, tmp_path):
    axis = dict(left='level', right='level', up='upright', down='upright')
    many = table.assign(label=[[name, axis[name]] for name in table['label']])
    many.attrs = dict(root=table.attrs['root'], vocab=['left', 'right', 'up', 'down', 'level', 'upright'])
    learn = video_learner(VideoDataLoaders.from_table(many, **small), tsm_slim)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        with pytest.raises(ValueError, match="average='score'"): learn.validate(cbs=MultiView(2))
        with pytest.raises(VidbookError, match='mean_average_precision'): predictions(learn)
        explorer = ResultsExplorer(learn)
        assert explorer.classes.bars.table['support'].tolist() == [2]*4+[4]*2 and explorer.picture()
        with pytest.raises(VidbookError, match='not compared one by one'): ResultsExplorer(learn, explorer.preds)
        probs, targets = learn.get_preds(cbs=MultiView(2, average='score'))
        folder = learn.export(tmp_path/'model')
        back = load_learner(folder)
    assert targets.sum(1).tolist() == [2]*8 and list(back.dls.vocab) == many.attrs['vocab']
    assert type(back.loss_func) is type(learn.loss_func)
    got = Predictor(folder, views=(2, 1))(learn.dls.valid.items[0].video).probs
    np.testing.assert_allclose(got, probs[0].numpy(), atol=1e-6)


def test_fusion_has_the_reference_s_numbers():
    "Inputs are drawn from generators that their names seed"
    with gzip.open(Path(__file__).parent/'golden/metrics_recognition.json.gz') as f: cases = json.load(f)['get_weighted_score']
    for case in cases:
        scores = [np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal((6, 4)) for name in case['inputs']]
        np.testing.assert_allclose(fuse(scores, case['coeff']), case['out'], rtol=1e-9)
