"""Sentences find their clips: `python tests/bench/retrieval.py [--seeds 0] [--clips 1000] [--held_out 200] [--epochs 20] [--keep FOLDER]`

A small pair of networks, one for clips and one for sentences, learns from nothing on Puppets' captions, two of each clip.
Told is how well sentences find their clips among held-out ones whose captions are all different; many of these clips are others played backwards."""
import argparse
from pathlib import Path
from time import process_time

import pandas as pd

from vidbook.callbacks.validation import ValidateEvery
from vidbook.data.captions import read_captions
from vidbook.data.puppets import PuppetSize, make_puppets
from vidbook.data.text import CaptionDataLoaders
from vidbook.io.sample import Clip
from vidbook.learner.retrieve import retrieval_results, retrieve_learner
from vidbook.utils import set_seed


def captions(folder, n_train, n_valid):
    "All captions of the clips to train with, and of as many others one caption each that no other of these has"
    make_puppets(folder, size=PuppetSize((n_train, n_valid*6//5), (0, 0), (0, 0)), parts=('clips',), progress=False)
    files = {split: folder/f'annotations/puppets_{name}_captions.json' for split,name in (('train', 'train'), ('valid', 'val'))}
    train, valid = (read_captions(file, folder, split) for split,file in files.items())
    valid = valid.drop_duplicates('caption').drop_duplicates('video').head(n_valid)
    if len(valid) < n_valid: raise SystemExit(f'there are only {len(valid)} clips with captions of their own')
    table = pd.concat([train, valid], ignore_index=True)
    table.attrs = train.attrs
    return table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', nargs='*', type=int, default=[0])
    parser.add_argument('--clips', type=int, default=1000)
    parser.add_argument('--held_out', type=int, default=200)
    parser.add_argument('--epochs', type=int, default=20)
    parser.add_argument('--lr', type=float, default=3e-3)
    parser.add_argument('--keep', type=Path, default=Path('retrieval'))
    args = parser.parse_args()
    table = captions(args.keep/'puppets', args.clips, args.held_out)
    print(f'{(table["split"] == "train").sum()} captions to train with, {args.held_out} held out', flush=True)
    for seed in args.seeds:
        set_seed(seed)
        dls = CaptionDataLoaders.from_table(table, Clip(1, n=8), size=64, short_side=68, train_tfms=(('RandomCrop', {}),), bs=64, tokenizer='words',
                                            cache='memory', num_workers=0)
        learn, start = retrieve_learner(dls, wd=.05), process_time()
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(args.epochs, args.lr, cbs=ValidateEvery(args.epochs))
        found = ', '.join(f'{name} {value:.1f}' for name,value in retrieval_results(learn).items())
        print(f'seed {seed}: {found} of {args.held_out} clips, {(process_time()-start)/60:.1f} minutes', flush=True)


if __name__ == '__main__': main()
