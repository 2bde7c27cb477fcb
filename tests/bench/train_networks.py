"""What the slim networks learn on Puppets: `python tests/bench/train_networks.py [NAME ...] [--seeds 0 1 2] [--epochs 30] [--keep FOLDER]`

Each network is trained from nothing on the 480 training clips of Puppets small and tested on the 240 held-out ones, one view, with the same recipe for all,
but for the learning rate of transformers, which rises early, with clipped gradients: of three seeds of MViT one learns nothing in 12 passes otherwise
(`--epochs 24` teaches all three). VideoMAE, which has nothing of its own that tells it of places near each other, first paints what is hidden of the
training clips, without their labels, and is then trained for longer, in both with small batches; `videomae_unpainted` is the same without the painting.
The first is TSN on one frame: it can see poses and no motion. Accuracies are appended to FOLDER/accuracies.csv as they come, so that a run that ends early goes on."""
import argparse, time
from pathlib import Path

import pandas as pd
import torch
from fastai.callback.training import GradientClip
from fastai.metrics import accuracy

from vidbook import all as vidbook
from vidbook.cli.quickstart import recipe
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.puppets import make_puppets, puppet_flip_pairs
from vidbook.io.sample import Clip
from vidbook.learner.classify import video_learner
from vidbook.learner.masked import masked_learner
from vidbook.utils import set_seed

frames = dict(one_frame=1, slowfast_slim=16, x3d_slim=13)                   # others see eight
transformers = 'swin_slim mvit_slim uniformer_slim timesformer_slim'.split()
names = ['one_frame', *'tsm_slim slowonly_slim r2plus1d_slim slowfast_slim x3d_slim'.split(), *transformers, 'videomae_slim', 'videomae_unpainted']
painter = dict(normalise=False, hide=.6, decoder_dim=128, paint=.3)
painting = dict(n_epoch=100, lr_max=1e-3, pct_start=.05, moms=(.9, .9, .9), cbs=GradientClip(1.))
careful = dict(lr_max=5e-4, pct_start=.1, cbs=GradientClip(1.))
fine_tuning = dict(n_epoch=36, lr_max=1.2e-3, pct_start=.1, cbs=GradientClip(1.))
clips = dict(videomae_slim=6, videomae_unpainted=6)                         # of a batch, where the recipe's are too many


def schedule(name, epochs):
    "Arguments of `fit_one_cycle`"
    if name.startswith('videomae'): return fine_tuning
    return dict(n_epoch=epochs, **(careful if name in transformers else dict(lr_max=recipe['lr'])))


def loaders(table, name):
    return VideoDataLoaders.from_table(table, clip=Clip(1, n=frames.get(name, 8)), size=recipe['size'], short_side=recipe['size'],
                                       bs=clips.get(name, recipe['bs']),
                                       flip_pairs=puppet_flip_pairs, cache='memory', num_workers=0, device='cuda' if torch.cuda.is_available() else 'cpu')


def painted(dls):
    "What VideoMAE has learned from painting"
    learn = masked_learner(dls, arch_kw=painter)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**painting)
    print(f'painted with a mean squared difference of {learn.validate()[0]:.3f} on the held-out clips', flush=True)
    return learn.model.state_dict()


def train(name, dls, seed, epochs):
    "Held-out accuracy and seconds of one training"
    set_seed(seed)
    start, arch = time.perf_counter(), getattr(vidbook, dict(one_frame='tsn_slim', videomae_unpainted='videomae_slim').get(name, name))
    weights = painted(dls) if name == 'videomae_slim' else None
    learn = video_learner(dls, arch, weights, metrics=[accuracy], label_smoothing=recipe['smoothing'], wd=recipe['wd'])
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**schedule(name, epochs))
    return learn.validate()[1], time.perf_counter()-start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('names', nargs='*', default=names)
    parser.add_argument('--seeds', nargs='*', type=int, default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=recipe['epochs'])
    parser.add_argument('--keep', type=Path, default=Path('train_networks'))
    args = parser.parse_args()
    table = make_puppets(args.keep/'puppets', size='small', parts=('clips',))
    told = args.keep/'accuracies.csv'
    done = pd.read_csv(told) if told.exists() else pd.DataFrame(columns=['name', 'seed', 'epochs', 'top1', 'seconds'])
    for name in args.names:
        left = [s for s in args.seeds if not ((done['name'] == name) & (done['seed'] == s) & (done['epochs'] == args.epochs)).any()]
        dls = loaders(table, name).warm() if left else None
        for seed in left:
            top1, seconds = train(name, dls, seed, args.epochs)
            print(f'{name}, seed {seed}: {top1:.3f} in {seconds:.0f} s', flush=True)
            done.loc[len(done)] = name, seed, args.epochs, top1, seconds
            done.to_csv(told, index=False)
    means = done[done['epochs'] == args.epochs].groupby('name')['top1'].agg(['mean', 'min', 'max', 'count'])
    if 'one_frame' in means.index: means['points over one frame'] = 100*(means['mean']-means.loc['one_frame', 'mean'])
    print(means.round(3).to_string())


if __name__ == '__main__': main()
