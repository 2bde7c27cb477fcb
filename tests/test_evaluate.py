"Dumps of whole tests: other processes without the model, spoilt files, presets, several labels, the reference's numbers of fused streams"
import gzip, json, subprocess, sys, zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.metrics import accuracy

from vidbook import presets
from vidbook.callbacks.multiview import MultiView
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.spec import Views
from vidbook.data.squares import make_squares
from vidbook.inference.checkpoints import last_k_table
from vidbook.inference.ensemble import fuse, fuse_predictions
from vidbook.inference.evaluate import Predictions, evaluate
from vidbook.io.sample import Clip, Sampling
from vidbook.learner.classify import video_learner
from vidbook.metrics.recognition import mean_class_accuracy, top_k_accuracy
from vidbook.models.tsn import tsn_slim
from vidbook.utils import VidbookError, set_seed

small = dict(size=32, bs=4, num_workers=0, train_tfms=(('RandomCrop', {}),))


@pytest.fixture(scope='module')
def table(tmp_path_factory): return make_squares(tmp_path_factory.mktemp('squares'), n_train=2, n_valid=3, n_frames=8)


@pytest.fixture(scope='module')
def learn(table):
    set_seed(0)
    learn = video_learner(VideoDataLoaders.from_table(table, **small), tsn_slim, metrics=accuracy)
    with learn.no_bar(): yield learn


def test_measured_again_by_another_process(learn, tmp_path):
    "NumPy files alone go there; the numbers are those of the validation with these views"
    preds = evaluate(learn, views=(2, 3)); card = preds.save(tmp_path/'test')
    code = 'import sys, json; from vidbook.inference.evaluate import Predictions; print(json.dumps(Predictions.load(sys.argv[1]).metrics()))'
    ran = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(card)], capture_output=True, text=True, check=True)
    again = json.loads(ran.stdout.splitlines()[-1])
    assert again == preds.metrics()
    loss, top1 = learn.validate(cbs=MultiView(2, 3))
    assert again['top1'] == pytest.approx(top1) and again['loss'] == pytest.approx(loss, rel=1e-5)


def test_the_order_of_batches_and_views_does_not_matter(learn):
    a = evaluate(learn, views=(2, 3), average=None)
    b = evaluate(learn, learn.dls.valid.new(bs=5), views=(2, 3), average=None, max_views=4)
    assert a.ids == b.ids; np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    for how in ('prob', 'score'): np.testing.assert_allclose(a.averaged(how).scores, evaluate(learn, views=(2, 3), average=how).scores, atol=1e-5)


def test_several_labels(table, tmp_path):
    axis = dict(left='level', right='level', up='upright', down='upright')
    many = table.assign(label=[[name, axis[name]] for name in table['label']])
    many.attrs = dict(root=table.attrs['root'], vocab=['left', 'right', 'up', 'down', 'level', 'upright'])
    learn = video_learner(VideoDataLoaders.from_table(many, **small), tsn_slim)
    with learn.no_bar(): preds = evaluate(learn, views=(2, 1))
    back = Predictions.load(preds.save(tmp_path/'many'))
    assert preds.average == 'score' and set(back.metrics()) == {'mean_average_precision', 'mmit_mean_average_precision'}
    assert back.metrics() == preds.metrics() and back.table['label'].tolist() == preds.table['label'].tolist()
    assert fuse_predictions([preds, back]).metrics() == pytest.approx(preds.metrics())


@pytest.mark.parametrize('share', [0, .3, .6, .9, .999])
def test_cut_files_are_refused_in_a_sentence(learn, tmp_path, share):
    preds = evaluate(learn); card = preds.save(tmp_path/'test')
    for path in (card, card.with_suffix('.npz')):
        whole = path.read_bytes(); path.write_bytes(whole[:int(share*len(whole))])
        with pytest.raises(VidbookError, match='test.(json|npz)'): Predictions.load(card)
        path.write_bytes(whole)
    assert Predictions.load(card).metrics() == preds.metrics()


def test_no_space_leaves_the_old_files(learn, tmp_path, monkeypatch):
    preds = evaluate(learn); preds.save(tmp_path/'test'); before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(np, 'savez_compressed', full)
    with pytest.raises(OSError): preds.save(tmp_path/'test')
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_presets_are_tested_on_their_views(table, tmp_path):
    "A small network in place of the published one; its own weights in place of the published ones"
    vocab = tuple(table.attrs['vocab'])
    preset = presets.find('tsn_r50_k400_1x1x3').but(arch=tsn_slim, arch_kw={}, labels=vocab, size=32, short_side=40, views=Views(2, 3),
                                                   sample=Sampling(Clip(n=4)), test_sample=None, init=None)
    weights = preset.model().state_dict()
    torch.save(weights, tmp_path/'weights.pth')
    preds = evaluate(preset, table, pretrained=tmp_path/'weights.pth')
    assert preds.facts['views'] == [2, 3] and len(preds) == (table['split'] == 'valid').sum() and preds.average == preset.average
    rows = last_k_table(preset, [tmp_path/'weights.pth'], dl=table)
    assert rows.loc['weights.pth'].to_dict() == pytest.approx(preds.metrics(), rel=1e-5)
    with pytest.raises(VidbookError, match='needs data'): evaluate(preset)


def generator(name): return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def test_fused_streams_have_the_reference_s_accuracies():
    "RGB and pose, at 1 : 1, 2 : 1 and 1 : 2"
    with gzip.open(Path(__file__).parent/'golden/metrics_recognition.json.gz') as f: cases = json.load(f).get('AccMetric', [])
    case = next(c for c in cases if 'rgb' in c)
    rgb, pose = (generator(case[k]['rng']).random((30, 8)) for k in ('rgb', 'pose'))
    labels, want = generator(case['labels']['rng']).integers(0, 8, 30), case['keys_and_values']
    for name,weights in {'RGBPose_1:1': (1, 1), 'RGBPose_2:1': (2, 1), 'RGBPose_1:2': (1, 2)}.items():
        scores = fuse([rgb, pose], weights)
        assert top_k_accuracy(scores, labels) == pytest.approx((want[f'{name}_top1'], want[f'{name}_top5']))
        assert mean_class_accuracy(scores, labels) == pytest.approx(want[f'{name}_mean1'])
