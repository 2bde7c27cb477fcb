"""What is heard and what is seen: `python tests/bench/sound.py [--seeds 0 1 2] [--clips 480 240] [--epochs 14 12] [--keep FOLDER]`

A small audio network learns from the sound of Puppets' clips alone, a small recogniser from their pictures alone, both from nothing; then their scores are added.
Told are the accuracies on held-out clips and the minutes that the sound took."""
import argparse
from pathlib import Path
from time import process_time

from fastai.metrics import accuracy

from vidbook.callbacks.validation import ValidateEvery
from vidbook.cli.quickstart import make_learner, make_loaders, recipe
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.puppets import PuppetSize, make_puppets
from vidbook.data.sound import AudioSpec, extract_mel
from vidbook.inference.ensemble import fuse_predictions
from vidbook.interpret.classify import predictions
from vidbook.io.sample import Clip, Sampling
from vidbook.learner.classify import video_learner
from vidbook.models.audio import audio_tsn_slim
from vidbook.utils import set_seed

spec = AudioSpec(Sampling(Clip(100), out_of_bound='repeat_last'), rows=256, mean=.5, std=.25, train_tfms=(('HideStripes', dict(bands=8, rows=16)),))


def trained(learn, epochs, lr):
    "The learner's answers about held-out clips, and the minutes that its training took"
    start = process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, lr, cbs=ValidateEvery(epochs))
    minutes = (process_time()-start)/60
    with learn.no_bar(): return predictions(learn), minutes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', nargs='*', type=int, default=[0, 1, 2])
    parser.add_argument('--clips', nargs=2, type=int, default=[480, 240])
    parser.add_argument('--epochs', nargs=2, type=int, default=[14, 12])
    parser.add_argument('--lr', type=float, default=5e-3)
    parser.add_argument('--only_sound', action='store_true')
    parser.add_argument('--keep', type=Path, default=Path('sound'))
    args = parser.parse_args()
    table = make_puppets(args.keep/'puppets', size=PuppetSize(args.clips, (0, 0), (0, 0)), parts=('clips',), progress=False)
    heard, failed = extract_mel(table, args.keep/'mel', progress=False)
    if len(failed): raise SystemExit(failed.to_string())
    for seed in args.seeds:
        set_seed(seed)
        dls = VideoDataLoaders.from_table(heard, spec=spec, bs=24, num_workers=0)
        sound, minutes = trained(video_learner(dls, audio_tsn_slim, metrics=[accuracy], label_smoothing=.1, wd=.05), args.epochs[0], args.lr)
        print(f'seed {seed}: sound {sound.accuracy:.3f} of {len(sound)} held-out clips, {minutes:.1f} minutes', flush=True)
        if args.only_sound: continue
        set_seed(seed)
        seen, _ = trained(make_learner(make_loaders(table)), args.epochs[1], recipe['lr'])
        print(f'seed {seed}: pictures {seen.accuracy:.3f}, both {fuse_predictions([sound, seen]).accuracy:.3f}', flush=True)


if __name__ == '__main__': main()
