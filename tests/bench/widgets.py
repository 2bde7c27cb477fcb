"""What a step of a scrubber costs: `python tests/bench/widgets.py`

One thread. A step of the widget (its slider is set, as a hand does) is compared with making the one picture that it shows: reading it from its stage, encoding it."""
import os
os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1')
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

import cv2
import numpy as np

from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.puppets import make_puppets
from vidbook.io.sample import Clip
from vidbook.io.write import encode_jpeg
from vidbook.widgets.core import Scrubber
from vidbook.widgets.pipeline import PipelineBrowser

cv2.setNumThreads(0)


def compare(name, slider, n, picture):
    "CPU milliseconds of a step and of its picture alone, over 200 places"
    places, step, made = np.random.default_rng(0).integers(0, n, 200).tolist(), [], []
    for i in places:
        start = process_time(); encode_jpeg(picture(i)); made.append(process_time()-start)
        if slider.value == i: continue
        start = process_time(); slider.value = i; step.append(process_time()-start)
    print(f'{name}: a step {median(step)*1000:.2f} ms, its picture alone {median(made)*1000:.2f} ms: {median(step)/median(made):.2f} (target 3)')


def main():
    table = make_puppets(Path(tempfile.mkdtemp())/'puppets', size='tiny', parts=('clips',))
    film = np.random.default_rng(0).integers(0, 256, (32, 240, 320, 3), dtype=np.uint8)
    scrubber = Scrubber(len(film), film.__getitem__)
    compare('Scrubber, 320x240', scrubber.slider, len(film), film.__getitem__)
    for side in (112, 224):
        browser = PipelineBrowser(VideoDataLoaders.from_table(table, size=side, bs=4, clip=Clip(2, n=32), num_workers=0, device='cpu'))
        for k,stage in enumerate(browser.clip.stages):
            browser.stage.value = k
            compare(f'PipelineBrowser, {side}, {stage.stage}', browser.scrubber.slider, len(browser.clip), browser.picture_at)


if __name__ == '__main__': main()
