"Transforms against the reference: boxes, pixels, layouts, blending; and the two qualities on files of many kinds, in worker processes"
import gzip, json, pickle, zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vidbook.data import geometry as g, mix, transforms as t
from vidbook.data.cache import FrameCache
from vidbook.data.item import Item
from vidbook.data.loaders import VideoDataLoaders, trace
from vidbook.data.spec import ClipSpec
from vidbook.io.index import build_index
from vidbook.io.sample import Clip, Sampling
from vidbook.io.source import VideoFile
from vidbook.io.video import open_video
from vidbook.io.write import write_video
from vidbook.learner.classify import video_learner
from vidbook.models.slowonly import slowonly_slim
from vidbook.utils import set_seed

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


# ---- pixels -----------------------------------------------------------------------------------------------------------------
def image(spec):
    "The input of FORMAT.md: random bytes from a generator seeded with the input's name"
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f'input/{spec["name"]}'.encode())))
    return rng.integers(0, 256, spec['shape'], dtype=np.uint8)


def after(stage, frames):
    item = t.Item(None, np.random.default_rng(0), frames=frames[None])
    stage(item)
    return item.frames[0]


def same(got, out, atol=0):
    "Shape, 64 values and three statistics"
    assert list(got.shape) == out['shape']
    flat = got.astype(float).ravel()
    np.testing.assert_allclose(flat[np.linspace(0, flat.size-1, min(flat.size, 64)).astype(int)], out['sample'], atol=atol)
    np.testing.assert_allclose([flat.mean(), flat.std()], [out['mean'], out['std']], atol=1e-4+atol)


def test_pixels_of_flip_and_resize():
    for c in golden['pixels']:
        args = c['args']
        if c['transform'] == 'Resize': same(after(t.Resize(args['scale'], args['keep_ratio']), image(c['input'])), c['out'], 1)
        elif c['modality'] == 'RGB': same(after(t.Flip(1, args['direction'] == 'vertical'), image(c['input'])), c['out'])
        else:
            x, y = image(c['input'])[::2], image(c['input'])[1::2]                                  # the reference keeps x and y as pictures
            pairs = after(t.Flip(1), np.stack([x, y], -1))
            same(np.stack([pairs[..., 0], pairs[..., 1]], 1).reshape(c['out']['shape']), c['out'])
    assert len(golden['pixels']) == 6


# ---- layouts ----------------------------------------------------------------------------------------------------------------
def normal(name, shape):
    "Floats from a generator seeded with the input's name"
    return np.random.Generator(np.random.PCG64(zlib.crc32(f'input/{name}'.encode()))).standard_normal(shape).astype(np.float32)


def laid_out(entry):
    "What our stages make of the reference's list of pictures, in the reference's layout"
    kind, r = entry['input_format'], entry['results']
    flow = r.get('modality') == 'Flow'
    clip = r['clip_len'] if kind == 'NCTHW' or flow else r['num_clips']*r['clip_len']               # frames of a row of `idxs`
    item = Item(None, frames=normal('format', entry['imgs']).reshape(-1, clip, *entry['imgs'][1:]))
    if flow: t.StackFlow(r['num_clips'])(item)
    t.ToVideo()(item)
    x = item.clip.as_subclass(torch.Tensor)
    if kind == 'NCTHW': return x[None] if x.ndim == 4 and not entry['collapse'] else x
    frames = (x[None] if x.ndim == 4 else x).transpose(1, 2)                                        # 2-D networks: (views, segments, C, H, W)
    return frames.flatten(0, 1) if kind == 'NCHW' else frames


def test_layouts():
    seen = 0
    for e in golden['format_shape']['entries']:
        if e['input_format'] not in ('NCHW', 'NCTHW', 'NPTCHW'): continue                           # heat maps come with skeletons
        got, seen = laid_out(e).numpy(), seen+1
        if 'raises' in e: assert got.shape == (2, 3, 4, 8, 10)                                      # two clips cannot lose their axis, and do not
        else: same(got, e['out'], 1e-5)
    assert seen == 8


# ---- blending ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('i', range(8))
def test_blending(i):
    c = golden['blending'][i]
    x, order, y = torch.from_numpy(normal(c['imgs']['name'], c['imgs']['shape'])), torch.tensor(c['perm']), torch.tensor(c['labels'])
    if c['transform'] == 'MixupBlending': x, lam = mix.mixup(x, order, c['lam']), c['lam']
    else: x, lam = mix.cutmix(x, order, mix.cutmix_box(x.shape[-1], x.shape[-2], c['lam'], c['cx'], c['cy']))
    same(x.numpy(), c['out_imgs'], 1e-5)
    np.testing.assert_allclose(mix.blend_labels(y, order, lam, c['num_classes']), c['out_labels'], atol=1e-6)


# ---- two qualities --------------------------------------------------------------------------------------------------------------
def moving(n, w, h, seed=0):
    "`n` soft pictures of blobs that move"
    y, x = np.mgrid[:h, :w]
    rng = np.random.default_rng(seed)
    waves = [(rng.uniform(-.05, .05, 2), rng.uniform(0, 6), rng.integers(3)) for _ in range(9)]
    for i in range(n):
        frame = np.full((h, w, 3), 128.)
        for (a, b), phase, channel in waves: frame[..., channel] += 28*np.sin(a*x+b*y+phase+i/5)
        yield frame.round().astype(np.uint8)


tfms = dict(resized=(('RandomResizedCrop', dict(area=(.3, 1.))), ('Flip', {})), multiscale=(('MultiScaleCrop', {}), ('Flip', dict(vertical=True))),
            anywhere=(('RandomResize', dict(lo=100, hi=140)), ('RandomCrop', {}), ('Flip', {})))


@pytest.fixture(scope='module')
def media(tmp_path_factory):
    "Videos of even, odd and upright size, and one as pictures"
    folder = tmp_path_factory.mktemp('media')
    for name, size in dict(wide=(230, 130), upright=(120, 260)).items(): write_video(folder/f'{name}.mp4', moving(24, *size), crf=8)
    write_video(folder/'odd.mp4', moving(24, 187, 141), crf=8, pix_fmt='yuv444p')                   # not cut in its planes
    (folder/'frames').mkdir()
    for i, o in enumerate(moving(24, 160, 120)): cv2.imwrite(str(folder/f'frames/img_{i+1:05}.jpg'), o[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])
    return folder


def clips(spec, video, seed, **kw): return spec.train_pipeline(**kw)(video, np.random.default_rng(seed)).numpy().astype(int)


@pytest.mark.parametrize('name', ['wide.mp4', 'odd.mp4', 'upright.mp4', 'frames'])
@pytest.mark.parametrize('kind', tfms)
def test_fast_is_exact_but_for_interpolation(media, name, kind):
    spec = ClipSpec(Sampling(Clip(4, 2)), size=96, short_side=112, train_tfms=tfms[kind])
    for seed in range(6):
        exact, fast = (clips(spec.but(quality=q), media/name, seed) for q in ('exact', 'fast'))
        gap = np.abs(exact-fast).mean()
        beside = min(np.abs(np.roll(fast, s, axis)-exact)[..., 4:-4, 4:-4].mean() for s in (-1, 1) for axis in (-1, -2))
        assert gap < 1.2 and gap < beside, (seed, gap, beside)                                     # nothing is shifted


def test_fast_from_arrays_caches_and_other_readers(media):
    fast = ClipSpec(Sampling(Clip(4, 2)), size=96, short_side=112, train_tfms=tfms['resized'], quality='fast')
    path, cache = media/'wide.mp4', FrameCache(112)
    with open_video(path) as r: array = r.frames(range(len(r)))
    for seed in range(3):
        want = clips(fast, path, seed)
        for other in (clips(fast, array, seed), clips(fast.but(reader='decord'), path, seed), clips(fast, VideoFile(path), seed)):
            assert np.abs(other-want).mean() < 1
        assert np.abs(clips(fast, path, seed, cache=cache)-want).mean() < 1
        np.testing.assert_array_equal(clips(fast, path, seed, cache=cache), clips(fast.but(quality='exact'), path, seed, cache=cache))
    cache.close()


def test_tests_are_exact_whatever_the_quality(media):
    exact = ClipSpec(Sampling(Clip(4, 2)), size=96, short_side=112)
    for views in (None, (2, 3), (1, 10)):
        a, b = (o.test_pipeline(views)(media/'odd.mp4') for o in (exact, exact.but(quality='fast')))
        assert torch.equal(a, b)


def test_what_an_index_knows_goes_to_the_reader(media, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(t, 'open_video', lambda video, *args, **kw: given.append(kw) or open_video(video, *args, **kw))
    path = media/'wide.mp4'
    index, spec = build_index([path], where=tmp_path/'index', workers=1, progress=False), ClipSpec(Sampling(Clip(4, 2)), size=96, short_side=112)
    for quality in ('exact', 'fast'):
        with_index, without = (clips(spec.but(quality=quality), VideoFile(path), 1, index=o) for o in (index, None))
        np.testing.assert_array_equal(with_index, without)
    assert [o['entry'] for o in given] == [index[path], None]*2
    clips(spec, np.zeros((9, 120, 120, 3), np.uint8), 1, index=index, on_error='salvage')           # an array is no file
    assert given[-1] == dict(entry=None, on_error='salvage')


@pytest.mark.parametrize('num_workers', [0, 2])
def test_loaders_of_fast_clips(media, tmp_path, num_workers):
    for i in range(4):
        (tmp_path/f'{i%2}').mkdir(exist_ok=True)
        write_video(tmp_path/f'{i%2}'/f'{i}.mp4', moving(12, 160, 120, i))
    def batch(quality):
        set_seed(3)
        dls = VideoDataLoaders.from_folder(tmp_path, Clip(n=4), 64, bs=2, valid_pct=.5, num_workers=num_workers, device='cpu', quality=quality)
        return dls.train.one_batch(), dls
    (exact, y), dls = batch('exact')
    (fast, y_fast), fast_dls = batch('fast')
    assert torch.equal(y, y_fast) and (exact-fast).abs().mean() < .03                               # in units of the standard deviation
    pickle.loads(pickle.dumps(fast_dls.train))
    stages = [o.stage for o in trace(fast_dls)]
    assert stages[:3] == ['OpenVideo', 'SampleFrames', 'Resize'] and 'DecodeFrames' in stages and stages[-1] == 'NormalizeVideo'


def test_training_with_everything(media, tmp_path):
    "Colours, policies, erasing and blending with label smoothing, by name, in two real epochs"
    for i in range(8):
        (tmp_path/f'{i%2}').mkdir(exist_ok=True)
        write_video(tmp_path/f'{i%2}'/f'{i}.mp4', moving(8, 64, 48, i))
    everything = (('RandAugment', dict(n=4, magnitude=7)), ('TrivialAugment', {}), ('AugMix', {}), ('AutoAugment', {}), ('RandomResizedCrop', {}), ('Flip', {}),
                  ('ColorJitter', dict(hue=.1)), ('RandomErasing', dict(noise=True)), ('Blend', {}))
    set_seed(0)
    dls = VideoDataLoaders.from_folder(tmp_path, Clip(n=4), 32, bs=4, valid_pct=.5, num_workers=0, device='cpu', train_tfms=everything, quality='fast')
    learn = video_learner(dls, slowonly_slim, label_smoothing=.1)
    seen = []
    class Note(mix.Callback):
        run_valid, order = False, 10
        def before_batch(self): seen.append(self.learn.yb[0])
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3, cbs=Note())
    assert all(o.shape == (4, 2) for o in seen) and torch.isfinite(torch.tensor(learn.recorder.values)).all()
    preds, y = learn.get_preds()
    assert preds.shape == (4, 2) and y.ndim == 1
    assert {'RandAugment', 'TrivialAugment', 'AugMix', 'AutoAugment', 'ColorJitter', 'RandomErasing'} <= {o.stage for o in trace(dls)}
