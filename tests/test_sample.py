"Sampling against the reference's numbers"
import gzip, json
from pathlib import Path

import numpy as np
import pytest

from vidbook.io.sample import Clip, Sampling

golden = json.loads(gzip.decompress((Path(__file__).parent/'golden'/'sampling.json.gz').read_bytes()))
kinds = dict(SampleFrames='segments', DenseSampleFrames='dense', UniformSample='uniform', UntrimmedSampleFrames='untrimmed')
fields = dict(twice_sample='twice', out_of_bound_opt='out_of_bound', keep_tail_frames='keep_tail', temporal_jitter='jitter',
              target_fps='target_fps', sample_range='window', num_sample_positions='positions', clip_interval='every')


def sampling_of(entry):
    "The `Sampling` that the reference's arguments describe"
    args = entry['args']
    clip = Clip(args['clip_len'], args.get('frame_interval', 1), args.get('num_clips', 1))
    return Sampling(clip, kinds[entry['transform']], **{fields[k]: v for k,v in args.items() if k in fields})


class PinnedRng:
    "Draws nothing but the lowest, or the highest, possible value"
    def __init__(self, highest): self.highest = highest
    def integers(self, high, size=None): return np.broadcast_to(np.asarray(high) - 1 if self.highest else 0, size or ()).copy()
    def uniform(self, low, high, size): return np.full(size, np.nextafter(high, low) if self.highest else low)


def test_sampling_in_tests_equals_the_reference():
    assert len(golden['test']) == 570
    for entry in golden['test']:
        r = entry['results']
        got = sampling_of(entry).indices(r['total_frames'], test=True, fps=r.get('avg_fps'))
        if 'raises' in entry: assert got.min() >= 0 and got.max() < r['total_frames'], entry     # we go on where the reference stops
        else: assert (got + r.get('start_index', 0)).tolist() == entry['frame_inds'], entry


def test_sampling_in_training_equals_the_reference():
    assert len(golden['train']) == 240
    for entry in golden['train']:
        for name,highest in [('low', False), ('high', True)]:
            got = sampling_of(entry).indices(entry['total_frames'], rng=PinnedRng(highest))
            assert got.tolist() == entry[f'frame_inds_rng_{name}'], (name, entry)


def test_clips_around_key_frames_equal_the_reference():
    assert len(golden['centred']) == 36
    for e in golden['centred']:
        sampling, shot = Sampling(Clip(e['clip_len'], e['interval']), 'centred'), e.get('shot_info')
        n = e.get('total_frames') or shot[1]
        got = sampling(n, test=True, at=e['timestamp'] - e['timestamp_start'], fps=e['fps'], shot=shot and tuple(shot))
        assert got.tolist() == [e['frame_inds']], e


def test_frames_of_whole_clips_equal_the_reference():
    assert (len(golden['whole_test']), len(golden['whole_train'])) == (64, 8)
    for e in golden['whole_test']:
        got = Sampling(Clip(e['clip_len'], n=e['num_clips']), 'whole', seed=e['seed']).indices(e['total_frames'], test=True) + e.get('start_index', 0)
        told = e['frame_inds']
        assert 'sum' not in e or got.sum() == e['sum'], e
        if isinstance(told, dict): assert [got.size] == told['shape'] and got[np.linspace(0, got.size - 1, 64).astype(int)].tolist() == told['sample'], e
        else: assert got.tolist() == told, e
    for e in golden['whole_train']:
        np.random.seed(e['np_random_seed'])
        assert Sampling(Clip(e['clip_len'], n=e['num_clips']), 'whole').indices(e['total_frames']).tolist() == e['frame_inds'], e


@pytest.mark.parametrize('kind', ['segments', 'dense', 'uniform', 'untrimmed', 'whole', 'pyramid', 'centred'])
@pytest.mark.parametrize('clip', [Clip(n=8), Clip(8, 4, n=2), Clip(16, seconds=1.5)])
def test_frames_lie_in_the_video_whatever_its_length_and_rate(kind, clip):
    for n in (1, 2, 7, 31, 64, 200):
        pts = np.cumsum(np.random.default_rng(n).uniform(.01, .2, n))
        for kw in (dict(fps=25.), dict(pts=pts)):
            for test in (True, False):
                got = Sampling(clip, kind)(n, test, np.random.default_rng(0), at=.5, **kw)
                assert got.ndim == 2 and got.min() >= 0 and got.max() < n and got.shape[1] == Sampling(clip, kind).n_seen, (n, kw, got)
