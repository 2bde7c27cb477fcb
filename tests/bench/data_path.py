"""How fast clips are read: `python tests/bench/data_path.py [--only decode,views,sparse,collate,index,loader] [--keep FOLDER] [--quick]`

One thread, CPU time (`process_time`), minima over repeats; each row is a ratio of two figures of one process. The outputs of both sides are compared
before anything is timed. Each step has a process of its own, as memory that an earlier step has left makes either side faster by luck. Only `loader` is wall time, as it is about processes side by side: run it on an idle machine.
The baseline is what is usual: decord reads whole frames, OpenCV resizes them to a short side of 256, crops, and resizes the crop to 224."""
import os
os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
import argparse, resource, subprocess, sys, tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import cv2
import decord
import numpy as np
import torch

from vidbook.core import TensorVideo
from vidbook.data.augment import NormalizeVideo
from vidbook.data.geometry import random_resized_box
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.prepare import make_cache
from vidbook.data.spec import ClipSpec
from vidbook.io.index import build_index
from vidbook.io.sample import Clip, Sampling
from vidbook.io.video import open_video
from vidbook.io.write import write_video

cv2.setNumThreads(0); torch.set_num_threads(1)
decord.logging.set_level(decord.logging.QUIET)


# ---- files -----------------------------------------------------------------------------------------------------------------
def scene(n, w, h, seed=0):
    "`n` frames: a texture that moves, four patches that move on it, noise of a sensor"
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.integers(0, 256, (h//8+80, w//8+80, 3), dtype=np.uint8), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    noise = [rng.integers(-4, 5, (h, w, 3), dtype=np.int16) for _ in range(7)]
    side = h//6
    for t in range(n):
        frame = texture[t:t+h, 2*t:2*t+w].astype(np.int16)
        for k in range(4):
            x, y = int((w-side)*(.5+.5*np.sin(t/20+k))), int((h-side)*(.5+.5*np.cos(t/17+2*k)))
            frame[y:y+side, x:x+side] = 60*k, 255-50*k, 40+50*k
        yield np.clip(frame+noise[t%7], 0, 255).astype(np.uint8)


shapes = {'256p-gop12': (320, 256, 12), '256p-gop250': (320, 256, 250), '720p-gop12': (1280, 720, 12), '720p-gop250': (1280, 720, 250)}


def make_files(folder):
    "Ten seconds in each shape, with B-frames and sound; and small copies of the last: plain, and as the cache makes them"
    sound = .3*np.sin(2*np.pi*440*np.arange(441000)/44100)
    for name, (w, h, gop) in shapes.items():
        path = folder/f'{name}.mp4'
        if not path.exists():
            write_video(path, scene(300, w, h), 30, audio=sound, sample_rate=44100, gop=gop, preset='medium', options={'bf': 3, 'b-pyramid': 'normal'})
    last = folder/'720p-gop250.mp4'
    if not (plain := folder/'plain-gop16.mp4').exists():
        with open_video(last) as r: write_video(plain, r.frames(range(300), 256)[:, :, :454], 30, gop=16, preset='medium', options={'bf': 3})
    make_cache([last], folder/'cache', progress=False)
    return {name: folder/f'{name}.mp4' for name in shapes}, plain, next((folder/'cache').rglob('*.mp4'))


# ---- timing ----------------------------------------------------------------------------------------------------------------
def best(repeats, *functions):
    "Least CPU milliseconds of a call of each, after one that warms up; they take turns, so that what else this machine does hits all of them"
    times = [[] for _ in functions]
    for _ in range(repeats+1):
        for function, seen in zip(functions, times):
            start = process_time(); function(); seen.append(process_time()-start)
    return [min(seen[1:])*1000 for seen in times]


rows = []


def row(what, file, base, ours, floor, target=None):
    "Print and keep one line of the table"
    rows.append(dict(what=what, file=file, baseline_ms=round(base, 2), vidbook_ms=round(ours, 2), ratio=round(base/ours, 2), floor=floor, target=target))
    goal = f'floor {floor:g}' + (f', target {target:g}' if target else '') if floor else 'for information'
    print(f'{what:34} {file:13} {base:9.2f} ms {ours:9.2f} ms  x{base/ours:<6.2f} {goal}' + ('' if not floor or base/ours >= floor else '   BELOW THE FLOOR'), flush=True)


def note(what, text): print(f'{what:34} {text}', flush=True)


# ---- decoding --------------------------------------------------------------------------------------------------------------
def short_256(frames):
    h, w = frames.shape[1:3]
    if min(h, w) == 256: return frames
    size = round(w*256/min(h, w)), round(h*256/min(h, w))
    return np.stack([cv2.resize(o, size) for o in frames])


def by_decord(path, idxs): return short_256(decord.VideoReader(str(path), num_threads=1).get_batch(idxs.tolist()).asnumpy())


def training_baseline(path, idxs, draw):
    frames = by_decord(path, idxs)
    l, t, r, b = random_resized_box(*frames.shape[2:0:-1], rng=np.random.default_rng(draw))
    return np.stack([cv2.resize(o[t:b, l:r], (224, 224)) for o in frames])


fast = ClipSpec(sample=Sampling(Clip(32, 2)), train_tfms=(('RandomResizedCrop', {}),), quality='fast')


class Fixed:
    "A stand-in for `Sampling`: these frames"
    def __init__(self, idxs): self.idxs = idxs
    def __call__(self, n, **kw): return self.idxs[None]


def pipeline(idxs, index, spec=fast):
    "The training pipeline of `spec` with the frames `idxs`"
    made = spec.train_pipeline(index=index)
    return replace(made, stages=tuple(replace(o, sampling=Fixed(idxs)) if hasattr(o, 'sampling') else o for o in made.stages))


def training_sample(path, idxs, draw, index, spec=fast): return pipeline(idxs, index, spec)(path, np.random.default_rng(draw))


def clips(n=5, last=300-64, seed=0): return [start+2*np.arange(32) for start in np.random.default_rng(seed).integers(0, last, n)]


def mean_ms(repeats, *functions):
    "As `best`, the means over five clips"
    return np.mean([best(repeats, *(partial(f, idxs, k) for f in functions)) for k, idxs in enumerate(clips())], axis=0).tolist()


def bench_decode(files, plain, cached, repeats):
    index = build_index([*files.values(), plain, cached], progress=False)
    for name, path in files.items():
        idxs = clips()[0]
        exact = training_sample(path, idxs, 0, index, fast.but(quality='exact')).permute(1, 2, 3, 0).numpy()
        np.testing.assert_array_equal(exact, training_baseline(path, idxs, 0))
        gap = np.abs(training_sample(path, idxs, 0, index).permute(1, 2, 3, 0).numpy().astype(int) - exact)
        note('fast against exact, grey levels', f'{name}: mean {gap.mean():.2f} (this noise is the worst case: no picture is smooth)')
    for name, path in files.items():
        ours = [partial(training_sample, path, index=index, spec=fast.but(quality=quality)) for quality in ('fast', 'exact')]
        base, quick, exact = mean_ms(repeats, partial(training_baseline, path), *ours)
        row('training sample 32x2, fast', name, base, quick, 1.35, 1.6 if '256p' in name else 2.)
        row('training sample 32x2, exact', name, base, exact, None)
    row('training sample from the cache', 'cache', *mean_ms(repeats, partial(training_baseline, plain), partial(training_sample, cached, index=index)), 3.)


def ten_clips(): return np.linspace(0, 300-63, 10).astype(int)[:, None] + 2*np.arange(32)


def by_vidbook(path, idxs, index):
    with open_video(path, entry=index[path]) as r: return r.frames(idxs, 256)


def bench_views(files, repeats):
    index, idxs = build_index(list(files.values()), progress=False), ten_clips().ravel()
    unique = np.unique(idxs)
    for name, path in files.items():
        np.testing.assert_array_equal(by_vidbook(path, unique, index), by_decord(path, unique))
        base, ours = best(repeats, partial(by_decord, path, unique), partial(by_vidbook, path, unique, index))
        row('10 clips x 32x2, exact', name, base, ours, 1.8 if '256p' in name else 2.2)
        row('the same, decord given all 320', name, *best(max(1, repeats//2), partial(by_decord, path, idxs)), ours, None)


def bench_sparse(files, repeats):
    index, idxs = build_index(list(files.values()), progress=False), np.linspace(0, 299, 8).astype(int)
    for name, path in files.items():
        np.testing.assert_array_equal(by_vidbook(path, idxs, index), by_decord(path, idxs))
        row('8 uniform frames, exact', name, *best(repeats, partial(by_decord, path, idxs), partial(by_vidbook, path, idxs, index)), 1.4)


# ---- batches ---------------------------------------------------------------------------------------------------------------
mean, std = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1, 1)


def float_batch(samples): return torch.stack([(o.float()-mean)/std for o in samples])


def bench_collate(repeats):
    "Four clips of 3x32x224x224"
    raw = [torch.randint(0, 256, (3, 32, 224, 224), dtype=torch.uint8) for _ in range(4)]
    ours, normalize = [o.as_subclass(TensorVideo) for o in raw], NormalizeVideo()
    torch.testing.assert_close(normalize(torch.stack(ours), split_idx=1).as_subclass(torch.Tensor), float_batch(raw), atol=1e-5, rtol=1e-5)
    base, stacked, whole = best(4*repeats, partial(float_batch, raw), partial(torch.stack, ours), lambda: normalize(torch.stack(ours), split_idx=1))
    row('collate: host time', '4 clips', base, stacked, 20)
    row('whole batch side on a CPU', '4 clips', base, whole, 1.4)


# ---- index and loader ------------------------------------------------------------------------------------------------------
def copies(source, folder, n):
    "`n` copies of a file, which are told apart by their last bytes"
    folder.mkdir(exist_ok=True)
    data = source.read_bytes()
    for i in range(n):
        if not (path := folder/f'{i:04}.mp4').exists(): path.write_bytes(data + b'\0\0\0\x0cfree' + i.to_bytes(4, 'big'))
    return folder


def bench_index(files, folder, quick):
    from vidbook.io.index import probe_file
    many = sorted(copies(files['256p-gop12'], folder/'many', 50 if quick else 200).glob('*.mp4'))
    rate = 1000*len(many)/best(2 if quick else 4, lambda: [probe_file(str(o)) for o in many])[0]
    rows.append(dict(what='index, files/s/core', file='256p-gop12', vidbook_ms=round(1000/rate, 2), ratio=round(rate), floor=200))
    note('index', f'{rate:.0f} files/s/core (256p, 10 s: packet table, first frame, hash); floor 200')
    (folder/'index.sqlite').unlink(missing_ok=True)
    start = perf_counter()
    build_index(folder/'many', where=folder/'index.sqlite', progress=False).close()
    note('index', f'{len(many)/(perf_counter()-start):.0f} files/s, all workers, their start included (wall time)')


def epoch_seconds(dls):
    "Least wall seconds of two passes, after one that warms the files"
    seconds = []
    for _ in range(3):
        start = perf_counter()
        for _ in dls.train: pass
        seconds.append(perf_counter()-start)
    return min(seconds[1:])


def bench_loader(files, folder, quick):
    import pandas as pd
    many = sorted(copies(files['256p-gop12'], folder/'many', 50 if quick else 200).glob('*.mp4'))
    df = pd.DataFrame(dict(video=[str(o) for o in many], label=['a', 'b']*(len(many)//2), split=['train']*(len(many)-4) + ['valid']*4))
    seconds = {n: epoch_seconds(VideoDataLoaders.from_table(df, spec=fast, bs=4, num_workers=n, device='cpu')) for n in (1, 2)}
    row('DataLoader, 2 workers against 1 (wall)', '256p-gop12', seconds[1]*1000, seconds[2]*1000, 1.6)


def each_alone(names, folder, quick):
    "Run the steps one after the other, each in a process of its own; gives how many figures are below their floors"
    options = ['--keep', str(folder), *(['--quick'] if quick else [])]
    below = sum(subprocess.run([sys.executable, '-W', 'ignore', __file__, '--only', name, *options]).returncode for name in names)
    print(f'{below} figures are below their floors')
    return below


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default='decode,views,sparse,collate,index,loader')
    parser.add_argument('--keep', help='folder for the files, which are then there for the next start')
    parser.add_argument('--quick', action='store_true', help='fewer repeats')
    args = parser.parse_args()
    repeats = 2 if args.quick else 5
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(args.keep or temp)
        folder.mkdir(parents=True, exist_ok=True)
        files, plain, cached = make_files(folder)
        if ',' in args.only: return each_alone(args.only.split(','), folder, args.quick)
        steps = dict(decode=partial(bench_decode, files, plain, cached, repeats), views=partial(bench_views, files, repeats),
                     sparse=partial(bench_sparse, files, repeats), collate=partial(bench_collate, repeats),
                     index=partial(bench_index, files, folder, args.quick), loader=partial(bench_loader, files, folder, args.quick))
        steps[args.only]()
    note('peak memory', f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024:.0f} MB')
    return sum(bool(r['floor']) and r['ratio'] < r['floor'] for r in rows)


if __name__ == '__main__': sys.exit(main())
