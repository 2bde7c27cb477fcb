"Sound: log-mel against librosa (golden/mel.json.gz), the rows of a clip against the reference (golden/sound.json.gz), and a learner that hears"
import numpy as np
import pandas as pd
import pytest
import torch
from test_golden import check, generator, read

from vidbook.callbacks.multiview import MultiView
from vidbook.data.item import Item
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.sound import AudioSpec, CutRows, SoundReader, TensorSound
from vidbook.inference.predict import Predictor
from vidbook.io.audio import write_wav
from vidbook.io.mel import Mel, mel_filters
from vidbook.io.packets import MediaError
from vidbook.io.sample import Clip, Sampling
from vidbook.io.write import write_video
from vidbook.learner.checkpoint import load_learner
from vidbook.learner.classify import video_learner
from vidbook.models.audio import audio_tsn_r18
from vidbook.utils import set_seed

facts = read('sound')


def same(got, want):
    "A matrix against 64 of its values, the sums of its rows, its mean and its largest value"
    got = got.double().numpy(); assert list(got.shape) == want['shape']
    np.testing.assert_allclose(got.ravel()[np.linspace(0, got.size-1, 64).astype(int)], want['sample'], rtol=1e-4, atol=1e-6*want['absmax'])
    np.testing.assert_allclose(got.sum(1), want['row_sums'], rtol=1e-4)
    np.testing.assert_allclose([got.mean(), np.abs(got).max()], [want['mean'], want['absmax']], rtol=1e-5)


@pytest.mark.parametrize('case', read('mel')['cases'], ids=lambda c: str(c['kw']['rate']))
def test_mel_is_that_of_librosa(case):
    kw, wave = case['kw'], generator('input/wave').standard_normal(16000).astype(np.float32)
    same(mel_filters(*(kw[k] for k in 'rate n_fft n_mels low high'.split())), case['filters'])
    same(Mel(**kw, window='hann').amplitudes(torch.from_numpy(wave)), case['amplitudes'])


def test_bands_are_those_of_the_published_features():
    filters = mel_filters(16000, 512, 80, 125., 7600.)
    np.testing.assert_allclose(filters.sum(1), facts['basis']['row_sums'], atol=1e-7)
    assert filters.argmax(1).tolist() == facts['basis']['row_argmax']


@pytest.mark.parametrize('entry', facts['cut'], ids=lambda e: f'{e["total_frames"]}x{e["num_clips"]}')
def test_rows_of_a_clip(entry):
    rows = generator(f'input/{entry["feature"]["name"]}').standard_normal(entry['feature']['shape']).astype(np.float32)[:entry['feature']['first']]
    item = Item('', reader=SoundReader(rows, entry['total_frames'], 25), idxs=np.array(entry['frame_inds_first_last']))
    CutRows(entry['fixed_length'])(item)
    check(item.clip.as_subclass(torch.Tensor).reshape(-1, *item.clip.shape[-2:]), entry['out'], 1e-5, 1e-6)


@pytest.fixture(scope='module')
def tones(tmp_path_factory):
    "High and low tones"
    root, rng, rows = tmp_path_factory.mktemp('tones'), np.random.default_rng(0), []
    for i in range(24):
        label, time = ('low', 'high')[i % 2], np.arange(16000)/16000
        wave = .3*np.sin(2*np.pi*time*rng.uniform(*dict(low=(300, 500), high=(2000, 3000))[label]))+.02*rng.standard_normal(16000)
        write_wav(root/f'{i:02}.wav', wave.astype(np.float32), 16000)
        rows.append(dict(id=f't{i:02}', video=f'{i:02}.wav', label=label, split='valid' if i < 8 else 'train'))
    table = pd.DataFrame(rows); table.attrs = dict(root=str(root))
    return table


def test_a_learner_hears(tones, tmp_path):
    "Through the same code as videos: training, several views, export, prediction of a file"
    spec = AudioSpec(Sampling(Clip(12)), rows=32, mean=.5, std=.25, train_tfms=[('HideStripes', dict(bands=4, rows=4))])
    set_seed(0)                                                             # of the loaders, too
    dls = VideoDataLoaders.from_table(tones, spec=spec, bs=8, num_workers=0)
    learn = video_learner(dls, audio_tsn_r18, arch_kw=dict(depth=10, widths=(8, 16, 16, 16)))
    with learn.no_bar(), learn.no_logging(): learn.fit(12, 1e-2)
    with learn.no_bar(): probs, labels = learn.get_preds(cbs=MultiView(2, 1))
    assert probs.shape == (8, 2) and (probs.argmax(1) == labels).float().mean() == 1
    learn.export(tmp_path/'model')
    assert load_learner(tmp_path/'model').dls.spec == spec
    ask = Predictor(tmp_path/'model', views=(2, 1))
    said = np.stack([ask(o.video).probs for o in dls.valid.items])
    np.testing.assert_allclose(said, probs.numpy(), atol=1e-5)


def test_a_video_without_sound(tmp_path):
    write_video(tmp_path/'silent.mp4', np.zeros((10, 32, 32, 3), np.uint8))
    with pytest.raises(MediaError, match='there is no sound in it'): AudioSpec().test_pipeline()(tmp_path/'silent.mp4')


def test_types_travel(tones):
    dls = VideoDataLoaders.from_table(tones, spec=AudioSpec(rows=16), bs=4, num_workers=0)
    assert type(dls.train.one_batch()[0]) is TensorSound and dls.train._types[tuple][0] is TensorSound
    with pytest.raises(ValueError, match='vidbook prepare mel'): VideoDataLoaders.from_table(tones, spec=AudioSpec(), cache='memory')
