"""When does something happen? `python tests/bench/localization.py [--seeds 0] [--videos 160 40] [--epochs 10 20] [--keep FOLDER]`

A small recogniser learns from nothing what windows of Puppets' untrimmed videos show, or that nothing happens in them; its features of a hundred
snippets of each video are what a small BMN learns from. Told is the recall of the true segments of held-out videos by the first ten proposals of each, averaged
over overlaps of 0.5 to 0.95 and at 0.5, beside that of an oracle: the true segments, each end moved to the nearest of so many snippets, ten a video.
The videos are all that Puppets' full size has; a third of them are too few to learn from (0.46 and 0.76)."""
import argparse
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch
from fastai.metrics import accuracy

from vidbook.callbacks.validation import ValidateEvery
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.puppets import PuppetSize, make_puppets, puppet_flip_pairs
from vidbook.data.segments import read_activitynet, untrimmed_videos
from vidbook.data.snippets import SnippetSpec, snippet_loaders
from vidbook.inference.localize import extract_snippets
from vidbook.inference.predict import Predictor
from vidbook.interpret.segments import labels_at
from vidbook.io.sample import Clip
from vidbook.learner.classify import video_learner
from vidbook.learner.localize import find_proposals, localize_learner
from vidbook.metrics.localization import average_recall
from vidbook.models.bmn import bmn_slim
from vidbook.models.tsm import tsm_slim
from vidbook.utils import set_seed

suppress = dict(alpha=.1, low=.3, high=.6)      # one person does one thing at a time: what overlaps a better proposal by a third repeats it


def segments(folder, n_train, n_valid):
    "The true segments of both splits, by the names of the files"
    make_puppets(folder, size=PuppetSize((0, 0), (n_train, n_valid), (0, 0)), parts=('untrimmed',), progress=False)
    files = {split: folder/f'annotations/untrimmed_{name}.json' for split,name in (('train', 'train'), ('valid', 'val'))}
    parts = [read_activitynet(file, folder/'untrimmed', split) for split,file in files.items()]
    table = pd.concat(parts, ignore_index=True)
    table['video'] = table['video'].str.removeprefix('v_')+'.mp4'
    table.attrs = parts[0].attrs
    return table


def windows(table, length, step):
    "Short clips of the videos and what happens in their middle"
    rows, splits = [], dict(zip(table['video'], table['split']))
    for o in untrimmed_videos(table):
        true = table.loc[table['video'] == o.video, ['label', 'start', 'end']]
        middles = np.arange(length/2, o.duration-length/2, step)
        rows += [dict(video=o.video, start=t-length/2, end=t+length/2, label=label or 'nothing', split=splits[o.video])
                 for t,label in zip(middles, labels_at(true, middles))]
    out = pd.DataFrame(rows).assign(id=lambda o: [f'{v}#{i}' for i,v in enumerate(o['video'])])
    out.attrs = dict(root=table.attrs['root'])
    return out


def recogniser(table, length, epochs):
    "A learner that knows what happens in short windows"
    dls = VideoDataLoaders.from_table(windows(table, length, .5), clip=Clip(1, n=8), size=48, short_side=48, bs=24, flip_pairs=puppet_flip_pairs,
                                      cache='memory', num_workers=0, index=None, train_tfms=(('RandomResizedCrop', dict(area=(.6, 1.))), ('Flip', {})))
    learn = video_learner(dls, tsm_slim, metrics=[accuracy], label_smoothing=.1, wd=.05)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 3e-3, cbs=ValidateEvery(epochs))
    return learn


def recalls(truth, found):
    "Recall of the first ten proposals of each video: averaged over the overlaps, and at 0.5"
    recall = average_recall(truth, found, 100)[0][:, 9]
    return recall.mean(), recall[0]


def oracle(truth, n):
    "The true segments on a grid of `n` snippets, and nothing else"
    filler = np.tile([0, 1e-6, 0], (100, 1))
    return {video: np.concatenate([np.c_[np.round(o*n)/n, np.ones(len(o))], filler])[:100] for video,o in truth.items()}


def proposals(learn):
    "True segments and proposals of the held-out videos, as shares of them"
    truth, found = {}, {}
    for x,y in learn.dls.valid:
        with torch.no_grad(): out = learn.model.eval()(x)
        for true,said in zip(y, find_proposals(out, **suppress)): truth[len(truth)], found[len(found)] = true.known().numpy(), said
    return truth, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', nargs='*', type=int, default=[0])
    parser.add_argument('--videos', nargs=2, type=int, default=[160, 40])
    parser.add_argument('--epochs', nargs=2, type=int, default=[10, 20])
    parser.add_argument('--length', type=float, default=.8)
    parser.add_argument('--snippets', type=int, default=100)
    parser.add_argument('--keep', type=Path, default=Path('localization'))
    args = parser.parse_args()
    table = segments(args.keep/'puppets', *args.videos)
    for seed in args.seeds:
        set_seed(seed)
        start = process_time()
        first = recogniser(table, args.length, args.epochs[0])
        with first.no_bar(): known = first.validate()[1]
        print(f'seed {seed}: windows recognised {known:.3f}, {(process_time()-start)/60:.1f} minutes', flush=True)
        features = args.keep/f'features_{seed}_{args.snippets}'
        made = extract_snippets(Predictor(first), table, features, args.snippets, args.length, progress=False)
        if len(made.failed): raise SystemExit(made.failed.to_string())
        learn = localize_learner(snippet_loaders(table, features, SnippetSpec(args.snippets), bs=min(8, args.videos[0])), bmn_slim, wd=.05)
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(args.epochs[1], 4e-3, cbs=ValidateEvery(args.epochs[1]))
        truth, found = proposals(learn)
        for name,said in dict(found=found, oracle=oracle(truth, args.snippets)).items():
            print(f'seed {seed}: {name}, AR@10 %.3f, at IoU 0.5 %.3f' % recalls(truth, said), flush=True)
        print(f'seed {seed}: {(process_time()-start)/60:.1f} minutes', flush=True)


if __name__ == '__main__': main()
