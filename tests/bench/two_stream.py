"""Two streams on Puppets: `python tests/bench/two_stream.py [--seeds 0 1 2] [--epochs 36] [--keep FOLDER]`

A small Inception I3D sees the pictures of Puppets small, another one their optical flow (DIS, 80 x 60 pixels). Each is trained from nothing on the 480 training clips,
with the same recipe, and tested on the 240 held-out ones with one view; their scores are added with equal weights, as in the published recipe of the two-stream I3D.
What each network said stays in FOLDER, so that a run that ends early goes on. Minutes are those of the CPU, on one thread."""
import argparse
from pathlib import Path
from time import process_time

import pandas as pd
import torch
from fastai.torch_core import set_seed

from vidbook.callbacks.validation import ValidateEvery
from vidbook.data.flow import flow_spec
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.prepare_frames import extract_flow
from vidbook.data.puppets import make_puppets
from vidbook.data.spec import ClipSpec
from vidbook.inference.ensemble import fuse_predictions
from vidbook.inference.evaluate import Predictions
from vidbook.interpret.classify import predictions
from vidbook.io.sample import Clip, Sampling
from vidbook.learner.classify import video_learner
from vidbook.models.inception_i3d import inception_i3d_slim

common = dict(sample=Sampling(Clip(16, 3)), short_side=54, size=48, train_tfms=(('RandomCrop', {}), ('Flip', {})))
specs = dict(rgb=ClipSpec(**common), flow=flow_spec(**common, std=(40.,)*2))


def tables(folder):
    "The clips and their flow"
    clips = make_puppets(folder/'puppets', size='small', parts=('clips',), video_size=(80, 60), progress=False)
    flow, failed = extract_flow(clips, folder/'flow', method='dis', bound=8, repeat_first=True, progress=False)
    assert not len(failed), failed
    return dict(rgb=clips, flow=flow)


def train(name, table, seed, epochs):
    "What a stream says of the held-out clips after its training, with its last loss and the minutes among the facts"
    set_seed(seed, reproducible=True)
    dls = VideoDataLoaders.from_table(table, spec=specs[name], bs=16, num_workers=0, cache='memory')
    learn, start = video_learner(dls, inception_i3d_slim, arch_kw=dict(c_in=len(specs[name].mean)), label_smoothing=.1, wd=.05), process_time()
    learn.model.to(memory_format=torch.channels_last_3d)                       # a third less time
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 3e-3, cbs=ValidateEvery(epochs))
    train_loss = learn.recorder.values[-1][0]
    said = predictions(learn, average='score')
    said.facts.update(train_loss=train_loss, minutes=(process_time()-start)/60)
    return said


def stream(name, table, seed, epochs, folder):
    "The same from its file, if that is there"
    file = folder/f'{name}_{epochs}_{seed}'
    if not file.with_suffix('.json').exists(): train(name, table, seed, epochs).save(file)
    said = Predictions.load(file)
    print(f'{name}, seed {seed}: {said.accuracy:.3f}, training loss {said.facts["train_loss"]:.2f}, {said.facts["minutes"]:.1f} minutes', flush=True)
    return said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', nargs='*', type=int, default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=36)
    parser.add_argument('--keep', type=Path, default=Path('two_stream'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, rows = tables(args.keep), {}
    for seed in args.seeds:
        said = {name: stream(name, data[name], seed, args.epochs, args.keep) for name in specs}
        joint = fuse_predictions(list(said.values()), weights=[1, 1])
        rows[seed] = {name: o.accuracy for name, o in (said | dict(joint=joint)).items()}
    results = pd.DataFrame(rows).T.rename_axis('seed')
    results['joint - better'] = results['joint']-results[['rgb', 'flow']].max(axis=1)
    results.loc['mean'] = results.mean()
    print(results.round(3).to_string())


if __name__ == '__main__': main()
