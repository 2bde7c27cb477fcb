"""Who does what in Puppets' groups: `python tests/bench/people.py [--seeds 0] [--clips 1000] [--scenes 240 60] [--epochs 10 6] [--keep FOLDER]`

A small SlowFast learns from nothing what single actors do in clips; with a head for boxes, it goes on with the true boxes of scenes of two or three actors.
A small FCOS learns from nothing to find the actors. Told are AVA's precision of held-out scenes at an overlap of 0.5 with true boxes, and with those that the
detector has found in the same pictures. A clip is as long as an action: of a second, nobody could tell sitting down from standing up."""
import argparse
from pathlib import Path
from time import process_time

import pandas as pd
from fastai.torch_core import set_seed

from vidbook.callbacks.validation import ValidateEvery
from vidbook.cli.quickstart import recipe
from vidbook.data.ava import read_ava
from vidbook.data.people import DetectDataLoaders, DetectSpec
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.puppets import PuppetSize, make_puppets, puppet_flip_pairs
from vidbook.inference.detect_video import propose_people
from vidbook.io.ava import read_label_map
from vidbook.io.sample import Clip, Sampling
from vidbook.learner.classify import video_learner
from vidbook.learner.detect import action_boxes, detect_learner
from vidbook.learner.people import people_learner, people_spec
from vidbook.metrics.detection import ava_map
from vidbook.models.roi import roi_slowfast_slim
from vidbook.models.slowfast import slowfast_slim

spec = DetectSpec(Sampling(Clip(16, 5), 'centred', out_of_bound='repeat_last'), short_side=88, size=(112, 84), test_size=(116, 88),
                  train_tfms=(('RandomResize', dict(lo=88, hi=100)), ('RandomCrop', {}), ('Flip', {})))


def scenes(folder, n_train, n_valid):
    "Key frames of both splits"
    make_puppets(folder, size=PuppetSize((0, 0), (0, 0), (n_train, n_valid)), parts=('groups',), progress=False)
    notes, parts = folder/'annotations', []
    for split,name in (('train', 'train'), ('valid', 'val')):
        parts.append(read_ava(notes/f'groups_{name}.csv', folder/'groups', notes/'groups_action_list.pbtxt', split, start=0,
                              excluded=notes/f'groups_{name}_excluded_timestamps.csv'))
    table = pd.concat(parts, ignore_index=True)
    table.attrs = parts[0].attrs
    return table


def recogniser(folder, n_clips, epochs):
    "A network that knows what a single actor does"
    table = make_puppets(folder, size=PuppetSize((n_clips, 12), (0, 0), (0, 0)), parts=('clips',), progress=False)
    dls = VideoDataLoaders.from_table(table, clip=Clip(1, n=16), size=recipe['size'], short_side=recipe['size'], bs=recipe['bs'],
                                      flip_pairs=puppet_flip_pairs, cache='memory', num_workers=0)
    learn = video_learner(dls, slowfast_slim, label_smoothing=recipe['smoothing'], wd=recipe['wd'])
    return learn.model.state_dict(), train(learn, epochs, recipe['lr'])


def train(learn, epochs, lr):
    start = process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr, cbs=ValidateEvery(epochs))
    return (process_time()-start)/60


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', nargs='*', type=int, default=[0])
    parser.add_argument('--clips', type=int, default=1000)
    parser.add_argument('--scenes', nargs=2, type=int, default=[240, 60])
    parser.add_argument('--epochs', nargs=2, type=int, default=[10, 6])
    parser.add_argument('--lr', type=float, default=2e-3)
    parser.add_argument('--keep', type=Path, default=Path('people'))
    args = parser.parse_args()
    table, notes = scenes(args.keep/'puppets', *args.scenes), args.keep/'puppets/annotations'
    held_out, names = table[table['split'] == 'valid'], read_label_map(notes/'groups_action_list.pbtxt')
    print(f'{len(table)-len(held_out)} key frames to train with, {len(held_out)} held out', flush=True)
    for seed in args.seeds:
        set_seed(seed)
        finder = people_learner(DetectDataLoaders.from_table(table, people_spec(spec), bs=16, test_bs=16))
        minutes = train(finder, 4, 3e-3)
        print(f'seed {seed}: people found, AP@0.5 {finder.validate()[1]:.3f}, {minutes:.1f} minutes', flush=True)
        proposals = propose_people(finder, held_out, least=.3)
        weights, minutes = recogniser(args.keep/'clips', args.clips, args.epochs[0])
        learn = detect_learner(DetectDataLoaders.from_table(table, spec, bs=16, test_bs=16), roi_slowfast_slim, weights=weights, wd=.05)
        learn.unfreeze()
        minutes += train(learn, args.epochs[1], args.lr)
        looked = held_out.assign(proposals=[proposals[o] for o in held_out['id']])
        looked.attrs = table.attrs
        for boxes in 'boxes', 'proposals':
            with learn.no_bar(): found = action_boxes(learn, looked, boxes, names)
            score = ava_map(found, notes/'groups_val.csv', names, notes/'groups_val_excluded_timestamps.csv')['overall']
            print(f'seed {seed}: mAP@0.5 of the {boxes} {score:.3f}, {minutes:.1f} minutes', flush=True)


if __name__ == '__main__': main()
