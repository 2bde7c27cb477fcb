"""Heat maps of skeletons for a batch, against drawing dot after dot and stroke after stroke as the published program does. On one thread:

    python tests/bench/heatmaps.py

PoseC3D's training sees 48 frames x 17 joints of 56 x 56 pixels. Asked for: ten times the plain way, on a GPU fifty times.
Both give the same: a batch (B, V, T, H, W). One of eight is 80 MB of new memory each time, which costs more than what is drawn in it."""
from time import perf_counter

import numpy as np
import torch

from vidbook.data.heatmaps import heat_maps
from vidbook.layers.graph import layout_of

size, frames, sigma, limbs = 56, 48, .6, layout_of('coco').limbs
body = np.array([[28, 10], [30, 8], [26, 8], [32, 9], [24, 9], [35, 18], [21, 18], [42, 12], [17, 27], [44, 4], [16, 36], [33, 36], [23, 36],
                 [34, 46], [22, 46], [34, 54], [22, 54]], np.float32)


def person(rng):
    "A clip of someone who fills the picture, (1, T, 17, 2) and (1, T, 17)"
    walk = np.cumsum(rng.normal(0, .3, (1, frames, 1, 2)), 1)
    return (body*rng.uniform(.7, 1)+walk+rng.normal(0, .5, (1, frames, 17, 2))).astype(np.float32), rng.uniform(.05, 1, (1, frames, 17)).astype(np.float32)


def patch(low, high):
    "Pixels from one corner to the other"
    (l, t), (r, b) = (np.maximum((low-3*sigma).astype(int), 0), np.minimum((high+3*sigma).astype(int)+1, size))
    return l, t, r, b, np.arange(l, r, dtype=np.float32), np.arange(t, b, dtype=np.float32)[:, None]


def dot(out, a, value):
    l, t, r, b, x, y = patch(a, a)
    if value < 1e-4 or not (x.size and y.size): return
    np.maximum(out[t:b, l:r], np.exp(-((x-a[0])**2+(y-a[1])**2)/2/sigma**2)*value, out=out[t:b, l:r])


def stroke(out, a, b, value, first):
    if value < 1e-4: return
    l, t, r, u, x, y = patch(np.minimum(a, b), np.maximum(a, b))
    if not (x.size and y.size): return
    length = ((b-a)**2).sum()
    if length < 1: return dot(out, a, first)
    from_a, from_b = (x-a[0])**2+(y-a[1])**2, (x-b[0])**2+(y-b[1])**2
    along = (from_a-from_b+length)/2/length
    line = (x-a[0]-along*(b-a)[0])**2+(y-a[1]-along*(b-a)[1])**2
    near = np.where(along <= 0, from_a, np.where(along >= 1, from_b, line))
    np.maximum(out[t:u, l:r], np.exp(-near/2/sigma**2)*value, out=out[t:u, l:r])


def one_by_one(points, scores, of_limbs):
    out = np.zeros((frames, 17, size, size), np.float32)
    for m, t, k in np.ndindex(len(points), frames, 17):
        if not of_limbs: dot(out[t, k], points[m, t, k], scores[m, t, k]); continue
        i, j = limbs[k]; stroke(out[t, k], points[m, t, i], points[m, t, j], min(scores[m, t, i], scores[m, t, j]), scores[m, t, i])
    return out


def best(call, device, n=7):
    "Milliseconds of the fastest of some calls"
    times = []
    for _ in range(n):
        start = perf_counter(); call()
        if device == 'cuda': torch.cuda.synchronize()
        times.append(perf_counter()-start)
    return min(times)*1000


def compare(batch):
    rng = np.random.default_rng(0); clips = [person(rng) for _ in range(batch)]
    for name, of_limbs in (('joints', False), ('limbs', True)):
        def drawn(): return np.stack([one_by_one(*o, of_limbs).swapaxes(0, 1) for o in clips])
        plain, expected = best(drawn, 'cpu', 5)/batch, drawn()
        for device in ['cpu', *['cuda']*torch.cuda.is_available()]:
            points, scores = (torch.from_numpy(np.stack(o)).to(device) for o in zip(*clips))
            def call(): return heat_maps(points, scores, (size, size), sigma, limbs if of_limbs else None)
            np.testing.assert_allclose(call().cpu().numpy(), expected, atol=2e-5)
            own = best(call, device, 20)/batch
            print(f'{name}, {batch} clips on {device}: one by one {plain:.1f} ms, together {own:.2f} ms a clip, {plain/own:.0f} times as fast')


def main():
    torch.set_num_threads(1)
    for batch in (1, 8): compare(batch)


if __name__ == '__main__': main()
