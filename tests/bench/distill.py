"""What a teacher adds on Puppets: `python tests/bench/distill.py [--seeds 3] [--epochs 10] [--teacher_epochs 16] [--how logits dist] [--folder FOLDER]`

A teacher is trained on Puppets small, once for each seed. A student of half its width is trained for a short time on the same clips: by their labels alone, and
by labels and teacher; from the same weights, with the same draws. A row for each seed: top-1 on the 240 held-out clips, one view, and minutes of one core."""
import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import pandas as pd
import torch
from fastai.metrics import accuracy

from vidbook.callbacks.distill import Distill
from vidbook.data.cache import FrameCache
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.puppets import make_puppets, puppet_flip_pairs
from vidbook.io.sample import Clip
from vidbook.learner.classify import video_learner
from vidbook.models.tsm import tsm_slim
from vidbook.utils import set_seed

narrow = dict(widths=(12, 24, 48, 96))                  # the student: a quarter of the teacher's parameters


def trained(table, cache, seed, epochs, arch_kw, size, cbs=()):
    "A learner after its training"
    set_seed(seed)
    dls = VideoDataLoaders.from_table(table, clip=Clip(1, n=8), size=size, short_side=size, bs=12, flip_pairs=puppet_flip_pairs, cache=cache, num_workers=0, device='cpu')
    dls.train.seed = seed
    learn = video_learner(dls, tsm_slim, arch_kw=arch_kw, metrics=[accuracy], wd=.05)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 3e-3, cbs=cbs)
    return learn


def top1(learn):
    with learn.no_bar(): return learn.validate()[1]


def main(seeds, epochs, teacher_epochs, size, how, folder=None):
    with TemporaryDirectory() as own:
        table, cache, rows = make_puppets(Path(folder or own), size='small', parts=('clips',)), FrameCache(size), []
        start = process_time()
        for seed in range(seeds):
            teacher = trained(table, cache, seed, teacher_epochs, {}, size)
            row = dict(teacher=top1(teacher), student=top1(trained(table, cache, seed, epochs, narrow, size)))
            row |= {o: top1(trained(table, cache, seed, epochs, narrow, size, Distill(teacher, o))) for o in how}
            rows.append(row | dict(minutes=(process_time()-start)/60))
            print({k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    found = pd.DataFrame(rows)
    for o in how: found[f'{o}, points'] = 100*(found[o]-found['student'])
    print(found.describe().loc[['mean', 'min', 'max']].round(3).to_string(), f'\n{torch.get_num_threads()} threads')


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    for name, default in dict(seeds=3, epochs=10, teacher_epochs=16, size=48).items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--how', nargs='*', default=['logits', 'dist'])
    parser.add_argument('--folder', help='Puppets that are there already')
    main(**vars(parser.parse_args()))
