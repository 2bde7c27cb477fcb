"What a loader's worker or another process is sent pickles by name, and is the same thing there"
import multiprocessing, pickle

import pytest


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    "One of everything that travels"
    import torch
    from vidbook.all import (Bf16, Clip, MultiView, Sampling, VideoDataLoaders, VideoFile, Views, make_squares, recognition_presets, top_k,
                             tsm_slim)
    dls = VideoDataLoaders.from_table(make_squares(tmp_path_factory.mktemp('squares'), 2, 1), clip=Clip(1, n=4), size=32, bs=2, num_workers=0)
    return dict(clip=Clip(8, 2), sampling=Sampling(Clip(8, 2), kind='dense'), views=Views(2, 3), spec=dls.spec, video=VideoFile('a.mp4', start=1.),
                after_item=dls.train.after_item, dataset=dls.train.dataset, loader_tfms=list(dls.train.after_batch.fs), view=MultiView(2, 3), bf16=Bf16(),
                metric=top_k(5), model=tsm_slim(3), preset=recognition_presets[0], loss=recognition_presets[0].loss())


names = 'clip sampling views spec video after_item dataset loader_tfms view bf16 metric model preset loss'.split()


@pytest.mark.parametrize('name', names)
def test_pickles(parts, name):
    data = pickle.dumps(parts[name])
    assert b'__main__' not in data and b'<lambda>' not in data and b'<locals>' not in data
    again = pickle.loads(data)
    assert type(again) is type(parts[name])
    if name in ('clip', 'sampling', 'views', 'spec', 'video', 'preset'): assert again == parts[name]


def first_clip(dataset, pipeline): return tuple(pipeline(dataset[0])[0].shape)


@pytest.mark.parametrize('start', ['fork', 'forkserver', 'spawn'])
def test_dataset_reads_in_another_process(parts, start):
    "A clip of the same shape comes out of a process of every start method"
    arguments = parts['dataset'], parts['after_item']
    here = first_clip(*arguments)
    with multiprocessing.get_context(start).Pool(1) as pool: assert pool.apply(first_clip, arguments) == here
