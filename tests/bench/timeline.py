"""How fast and in how much memory a long film is predicted and looked at: `python tests/bench/timeline.py [--minutes 10] [--keep FOLDER]`

One thread. The film is 720p. Plain batched inference is the same network on the same clips without a window: every needed frame is decoded once in one pass forward,
then the clips go through the network in batches of the same size. A step of the player is compared with making the one picture that it shows.
Memory is what the process has, sampled after every window, over what it had before the film was opened."""
import os
os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
import argparse, tempfile
from pathlib import Path
from statistics import median
from time import process_time

import av
import cv2
import numpy as np
import pandas as pd
import torch

from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.squares import make_squares
from vidbook.inference.predict import Predictor
from vidbook.inference.windows import WindowReader, _sampled, _span, slide, window_times
from vidbook.io.sample import Clip
from vidbook.io.video import open_video
from vidbook.io.write import encode_jpeg, write_video
from vidbook.learner.classify import video_learner
from vidbook.models.tsm import tsm_slim
from vidbook.widgets.timeline import Timeline

cv2.setNumThreads(0); torch.set_num_threads(1)


def resident(): return int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6


def film(path, minutes):
    "A texture and a patch that move; after a minute its packets come again"
    texture = cv2.resize(np.random.default_rng(0).integers(0, 256, (100, 180, 3), dtype=np.uint8), (1440, 800))
    def frames():
        for t in range(1500):
            frame = texture[t%80:t%80+720, t%160:t%160+1280].copy()
            frame[300:420, (3*t)%1100:(3*t)%1100+120] = 255
            yield frame
    minute = path.with_name('minute.mp4')
    if not minute.exists(): write_video(minute, frames(), 25, gop=50, preset='ultrafast')
    with av.open(str(path), 'w') as out:
        for k in range(minutes): again(out, minute, k)


def again(out, minute, k):
    "The packets of a file, `k` minutes later"
    with av.open(str(minute)) as source:
        stream = source.streams.video[0]
        copy = out.streams.video[0] if k else out.add_stream_from_template(stream)
        late = round(60*k/stream.time_base)
        for packet in source.demux(stream):
            if not packet.size: continue
            packet.pts, packet.dts, packet.stream = packet.pts+late, packet.dts+late, copy
            out.mux(packet)


def plain(predict, path, times):
    "CPU seconds of decoding every needed frame once, and of the network on as many clips as there are windows; frames decoded"
    start = process_time()
    with open_video(path) as reader:
        spans = [_span(reader.pts, *o) for o in times]
        needed = [_sampled(predict.pipeline, WindowReader(path, reader.fps, reader.pts[a:b], {}, a)).idxs+a for a,b in spans]
        side = predict.pipeline.stages[2].short_side
        small = {i: picture.shape for i,picture in reader.each(np.unique(np.concatenate(needed)), side)}
    decoding, start = process_time()-start, process_time()
    clips = torch.cat([predict.views(np.zeros((8, 720, 1280, 3), np.uint8))]*predict.max_views)
    for n in range(0, len(times), predict.max_views): predict.score_views(clips[:len(times)-n])
    return decoding, process_time()-start, len(small)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--minutes', type=int, default=10)
    parser.add_argument('--keep')
    args = parser.parse_args()
    folder = Path(args.keep or tempfile.mkdtemp()); folder.mkdir(parents=True, exist_ok=True)
    path = folder/f'film-{args.minutes}.mp4'
    if not path.exists(): film(path, args.minutes)
    dls = VideoDataLoaders.from_table(make_squares(folder/'squares', n_train=1, n_valid=1), size=112, bs=4, clip=Clip(1, n=8), num_workers=0)
    predict = Predictor(video_learner(dls, tsm_slim))
    times = window_times(args.minutes*60, 2, 1)
    next(slide(predict, path, 2, 1))                                                     # warm
    decoding, network, n = plain(predict, path, times)
    before, most, probs, start = resident(), 0, [], process_time()
    for moment in slide(predict, path, 2, 1): probs.append(moment.prediction.probs); most = max(most, resident())
    ours = process_time()-start
    print(f'{args.minutes} minutes of 720p, {len(times)} windows, {n} frames decoded')
    print(f'plain: {decoding:.1f} s decoding + {network:.1f} s network; timeline: {ours:.1f} s; speed {(decoding+network)/ours:.2f} of plain (target 0.8)')
    print(f'memory: {most-before:+.0f} MB over the start (target 300)')
    player(predict, path, times, probs, before)


def player(predict, path, times, probs, before):
    "Steps of the player at random places and one after the other, against making the picture that is shown"
    told = pd.DataFrame(probs, pd.MultiIndex.from_tuples(times, names=['start', 'end']), predict.vocab)
    viewer, places = Timeline(told, path), np.random.default_rng(0).integers(1, len(times), 30)*8+3
    step, made = [], []
    for k in places.tolist():
        start = process_time(); encode_jpeg(viewer.film(k)); made.append(process_time()-start)
        start = process_time(); viewer.player.slider.value = k; step.append(process_time()-start)
    print(f'a step of the player: {median(step)*1000:.0f} ms, its picture alone {median(made)*1000:.0f} ms: {median(np.array(step)/made):.2f} (target 3)')
    print(f'page: {len(viewer.layer.image.value)/1e3:.0f} kB of curves, {len(viewer.player.image.value)/1e3:.0f} kB a step; memory {resident()-before:+.0f} MB')


if __name__ == '__main__': main()
