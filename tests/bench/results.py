"""Looking through results: `python tests/bench/results.py [--samples 100000] [--classes 400]`

CPU time (`process_time`) of our tables against those of plain pandas, minima over repeats; the outcomes are compared before anything is timed. Then what an
explorer costs: CPU time of opening it, of a new choice, and the memory that the process grows by, predictions included. There are no files: each clip of a page is a sentence that says so."""
import os
os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
import argparse, resource
from time import process_time

import numpy as np
import pandas as pd

from vidbook.inference.evaluate import Predictions
from vidbook.interpret.calibration import calibration
from vidbook.interpret.classify import confusion, most_confused, per_class, top_losses
from vidbook.widgets.results import ResultsExplorer, select_rows


def megabytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


def best(function, repeats=3):
    "Least CPU milliseconds of a call"
    times = []
    for _ in range(repeats):
        start = process_time(); function(); times.append(process_time()-start)
    return min(times)*1000


def drawn(n, classes):
    "Predictions that are right two times of three, in blocks, so that nothing large is made on the way"
    rng, vocab = np.random.default_rng(0), [f'class {k:03}' for k in range(classes)]
    labels, scores = rng.integers(0, classes, n), np.empty((n, classes), np.float32)
    for i in range(0, n, 1000):
        block = np.exp(rng.normal(size=(len(labels[i:i+1000]), classes), scale=1.2))
        block[np.arange(len(block)), labels[i:i+1000]] *= 30
        scores[i:i+1000] = block/block.sum(1, keepdims=True)
    names = [f'v{i:06}' for i in range(n)]
    table = pd.DataFrame(dict(id=names, video=[f'{o}.mp4' for o in names], label=np.array(vocab)[labels], n_frames=rng.integers(30, 300, n), fps=25.))
    return Predictions.of(table, scores, vocab=vocab)


# ---- the same by pandas alone -------------------------------------------------------------------------------------------------
def pandas_confusion(preds):
    names = list(preds.vocab)
    return pd.crosstab(preds.table['label'], preds.table['pred']).reindex(index=names, columns=names, fill_value=0)


def pandas_per_class(preds):
    t = preds.table
    hits, support, said = (t[t['correct']].groupby('label').size(), t.groupby('label').size(), t.groupby('pred').size())
    return pd.DataFrame(dict(support=support, precision=hits/said, recall=hits/support, f1=2*hits/(said+support))).reindex(list(preds.vocab))


def pandas_confused(preds):
    t = preds.table[preds.table['label'] != preds.table['pred']]
    return t.value_counts(['label', 'pred']).reset_index()


def pandas_calibration(preds):
    bins = pd.cut(preds.table['prob'], np.linspace(0, 1, 16), include_lowest=True)
    return preds.table.groupby(bins, observed=False).agg(count=('prob', 'size'), confidence=('prob', 'mean'), accuracy=('correct', 'mean'))


def pandas_losses(preds): return preds.table.sort_values('loss', ascending=False).head(9)


def pandas_rows(preds):
    t = preds.table
    return t[(t['label'] == 'class 007') & ~t['correct']].sort_values('loss', ascending=False)


def class_rows(preds): return select_rows(preds, label='class 007')


pairs = dict(confusion=(confusion, pandas_confusion), per_class=(per_class, pandas_per_class), most_confused=(most_confused, pandas_confused),
             calibration=(calibration, pandas_calibration), top_losses=(top_losses, pandas_losses), select_rows=(class_rows, pandas_rows))


def check(preds):
    "Both give the same"
    assert (confusion(preds).to_numpy() == pandas_confusion(preds).to_numpy()).all()
    assert np.allclose(per_class(preds), pandas_per_class(preds), equal_nan=True)
    assert most_confused(preds)['count'].tolist() == pandas_confused(preds)['count'].tolist()
    ours, theirs = calibration(preds), pandas_calibration(preds)
    assert np.allclose(ours[['count', 'confidence', 'accuracy']], theirs, equal_nan=True)
    assert top_losses(preds)['id'].tolist() == pandas_losses(preds)['id'].tolist() and class_rows(preds)['id'].tolist() == pandas_rows(preds)['id'].tolist()


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--samples', type=int, default=100_000); parser.add_argument('--classes', type=int, default=400)
    asked = parser.parse_args()
    before = megabytes()
    preds = drawn(asked.samples, asked.classes)
    made = megabytes()
    explorer = ResultsExplorer(preds)
    opened = megabytes()
    explorer.choose(label='class 007'); explorer.choose(search='v0001', show='both')
    chosen = megabytes()
    print(f'{asked.samples} samples, {asked.classes} classes, scores {preds.scores.nbytes/2**20:.0f} MB; process before: {before:.0f} MB')
    print(f'memory: predictions +{made-before:.0f} MB, explorer +{opened-made:.0f} MB, choices +{chosen-opened:.0f} MB; all +{chosen-before:.0f} MB')
    print(f'open {best(lambda: ResultsExplorer(preds), 2):.0f} ms, choose {best(lambda: explorer.choose(label="class 007")):.0f} ms, '
          f'search {best(lambda: explorer.choose(search="v0001")):.0f} ms')
    check(preds)
    ours, theirs = ([best(lambda: f(preds)) for f in column] for column in zip(*pairs.values()))
    for name,a,b in zip(pairs, ours, theirs): print(f'{name:14} ours {a:7.1f} ms, pandas {b:7.1f} ms: {a/b:.2f}x')
    print(f'{"all tables":14} ours {sum(ours):7.1f} ms, pandas {sum(theirs):7.1f} ms: {sum(ours)/sum(theirs):.2f}x (target 3x)')
