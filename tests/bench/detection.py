"""How fast AVA's average precision is computed: `python tests/bench/detection.py`

30,000 detections against 9,600 labels, one thread, CPU time, minima over repeats: from csv files as a published evaluation reads them, and from what
has been read already. The baseline reads with the csv module and walks over frames, classes and boxes; both results must agree."""
import os
os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
import csv, tempfile
from collections import defaultdict
from pathlib import Path
from time import process_time

import numpy as np

from vidbook.io.ava import read_ava_csv
from vidbook.metrics.detection import ava_map

names = {k: f'action {k}' for k in range(1, 81)}


def make_files(folder, n=1600, seed=0):
    "Two people with three labels in each of `n` frames; three detections for each label, half of them with another one"
    rng = np.random.default_rng(seed); true, found = [], []
    for t in range(n):
        for person in range(2):
            at, size = rng.uniform(0, .5, 2), rng.uniform(.2, .5, 2); box = np.concatenate([at, at+size])
            for label in rng.choice(80, 3, replace=False)+1:
                true.append((f'v{t%60}', f'{902+t//60:04d}', *(f'{v:.3f}' for v in box), label, person))
                for _ in range(3):
                    wrong = rng.random() < .5; moved = np.sort((box+rng.normal(0, .03, 4)).reshape(2, 2), 0).ravel()
                    score = rng.random()*(.7 if wrong else 1)
                    found.append((*true[-1][:2], *(f'{v:.4f}' for v in moved), rng.integers(1, 81) if wrong else label, f'{score:.4f}'))
    for name, rows in (('true', true), ('found', found)): (folder/f'{name}.csv').write_text('\n'.join(','.join(map(str, r)) for r in rows)+'\n')
    return len(true), len(found)


def rows_of_file(path):
    with open(path) as f:
        for r in csv.reader(f): yield r[0], int(r[1]), *map(float, r[2:6]), int(r[6]), float(r[7])


def rows_of_table(df): return zip(*(df[name].tolist() for name in df))


def grouped(rows):
    "(video, second, label) -> list of (box, last field)"
    of = defaultdict(list)
    for video, second, *box, label, last in rows: of[video, second, label].append((box, last))
    return of


def overlap(a, b):
    w, h = min(a[2], b[2])-max(a[0], b[0]), min(a[3], b[3])-max(a[1], b[1])
    both = max(w, 0)*max(h, 0)
    return both/((a[2]-a[0])*(a[3]-a[1])+(b[2]-b[0])*(b[3]-b[1])-both)


def area(marked, n_true):
    "Of (score, right?): sum over the right ones of the best precision from there on"
    marked = sorted(marked, key=lambda m: -m[0]); precision, right = [], 0
    for i, (_, hit) in enumerate(marked, 1): right += hit; precision.append(right/i)
    for i in range(len(precision)-2, -1, -1): precision[i] = max(precision[i], precision[i+1])
    return sum(p for p, (_, hit) in zip(precision, marked) if hit)/n_true


def naive(found, true):
    "Mean average precision, box by box, of rows of detections and labels"
    found, true = grouped(found), grouped(true)
    marked, n_true, frames = defaultdict(list), defaultdict(int), {k[:2] for k in true}
    for (*_, label), rows in true.items(): n_true[label] += len(rows)
    for key, rows in found.items():
        taken = set()
        for box, score in sorted(rows, key=lambda r: -r[1]):
            overlaps = [overlap(box, b) for b, _ in true.get(key, ())]; best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
            hit = best is not None and overlaps[best] >= .5 and best not in taken
            if hit: taken.add(best)
            if key[:2] in frames: marked[key[2]].append((score, hit))
    return np.mean([area(m, n_true[k]) for k, m in marked.items() if n_true[k]])


def seconds(f, n):
    best = float('inf')
    for _ in range(n):
        start = process_time(); out = f(); best = min(best, process_time()-start)
    return out, best


def compare(title, slow, fast):
    (a, slow), (b, fast) = seconds(slow, 5), seconds(fast, 15)
    assert abs(a-b) < 1e-4, (a, b)
    print(f'{title}: {b:.4f}; box by box {1000*slow:.0f} ms, vidbook {1000*fast:.0f} ms, {slow/fast:.1f} times as fast')


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp); n_true, n_found = make_files(folder)
        paths = folder/'found.csv', folder/'true.csv'
        tables = [read_ava_csv(o, last) for o,last in zip(paths, ('score', 'entity_id'))]
        print(f'{n_found:,} detections, {n_true:,} labels')
        compare('from files', lambda: naive(*map(rows_of_file, paths)), lambda: ava_map(*paths, names)['overall'])
        compare('from tables', lambda: naive(*map(rows_of_table, tables)), lambda: ava_map(*tables, names)['overall'])
