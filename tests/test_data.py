"The data layer where a notebook is too small a place: all the reference's boxes, worker processes, start methods"
import gzip, json, zlib
from pathlib import Path

import numpy as np
import pytest

from vidbook.data import geometry as g

golden = json.loads(gzip.decompress((Path(__file__).parent/'golden/spatial.json.gz').read_bytes()))


def cases(name): return [(c['args'], *c['img_shape'][::-1], c) for c in golden['spatial'] if c['transform'] == name]


# ---- geometry ---------------------------------------------------------------------------------------------------------------
def test_every_kind_of_case_is_looked_at():
    assert {c['transform'] for c in golden['spatial']} == {'CenterCrop', 'ThreeCrop', 'TenCrop', 'Resize', 'MultiScaleCrop', 'RandomResizedCrop'}


def test_resized_sizes():
    for args, w, h, c in cases('Resize'):
        scale = tuple(args['scale']) if isinstance(args['scale'], list) else args['scale']
        assert g.scaled_size(w, h, scale, args['keep_ratio']) == tuple(c['out_img_shape'][::-1]), c


def test_center_boxes():
    for args, w, h, c in cases('CenterCrop'):
        box = g.center_box(w, h, args['crop_size'])
        assert list(box) == c['crop_bbox'], c
        if 'real_shape' in c: pytest.raises(ValueError, g.check_box, box, w, h)
        else: g.check_box(box, w, h)


def test_three_boxes():
    for args, w, h, c in cases('ThreeCrop'):
        if 'raises' in c: pytest.raises(ValueError, g.three_boxes, w, h, args['crop_size'])
        else: assert [list(b) for b in g.three_boxes(w, h, args['crop_size'])] == c['crop_bbox'], c


def test_ten_boxes():
    for args, w, h, c in cases('TenCrop'):
        assert [list(b) for b in g.fixed_boxes(w, h, args['crop_size']) for _ in range(2)] == c['crop_bbox'], c


def test_multiscale_boxes():
    for args, w, h, c in cases('MultiScaleCrop'):
        sizes = g.multiscale_sizes(w, h, args['input_size'], args['scales'], args['max_wh_scale_gap'])
        assert [list(s) for s in sizes] == [o['crop_wh'] for o in c['candidates']], c
        for s, o in zip(sizes, c['candidates']):
            assert [list(b[:2]) for b in g.fixed_boxes(w, h, s, args.get('num_fixed_crops', 5))] == o['offsets_xy'], c


class Pinned:
    "Uniform draws at `at` (0-1) of the range, whole numbers at `whole`"
    def __init__(self, at, whole): self.at, self.whole = at, whole
    def uniform(self, lo, hi, n): return np.full(n, lo+(hi-lo)*self.at)
    def integers(self, lo, hi): return lo+int((hi-1-lo)*self.whole)


def test_random_resized_boxes():
    for args, w, h, c in cases('RandomResizedCrop'):
        for pin, o in zip([Pinned(1, 1), Pinned(0, 1), Pinned(.5, .5)], c['boxes']):
            assert list(g.random_resized_box(w, h, args['area_range'], args['aspect_ratio_range'], pin)) == o['box'], c
