"Frames and indices: sampling against the reference's numbers"
import gzip
import json
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
