"Trainings with several sources: they go on after an interruption, are shared by processes, read by workers, and leave nothing behind"
from contextlib import nullcontext

import cv2
import pytest
import torch
from fastai.callback.core import Callback
from fastai.metrics import accuracy

from pair import run_pair
from vidbook.callbacks.averaging import AverageWeights
from vidbook.callbacks.gradients import Accumulate
from vidbook.callbacks.logs import LogTraining, read_log
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.mixed import Source, mix_loaders, repeat_rows
from vidbook.data.squares import make_squares
from vidbook.io.reader import picture_exts
from vidbook.io.sample import Clip
from vidbook.io.video import read_frames
from vidbook.learner import distributed  # for learn.distributed
from vidbook.learner.checkpoint import load_learner
from vidbook.learner.classify import video_learner
from vidbook.learner.optim import torch_opt
from vidbook.learner.saves import TrainingError
from vidbook.learner.saving import SaveTraining
from vidbook.models.omnisource import omnisource_slim
from vidbook.models.tsm import tsm_slim
from vidbook.utils import set_seed

kw = dict(size=32, device='cpu', index=None, train_tfms=(('RandomCrop', {}), ('Flip', {}), ('RandomErasing', {})), start='fork')


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    "Squares, and a picture of each"
    root = tmp_path_factory.mktemp('squares')
    df = make_squares(root, n_train=5, n_valid=2, n_frames=8)
    for o in df.itertuples():
        path = root/'web'/o.label/f'{o.id}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), read_frames(root/o.video, [4])[0, ..., ::-1])
    return df


def mixed(df, num_workers=0, bs=4, n_web=6):
    "20 clips beside 20 more of the same and 28 pictures, which go round at places of their own"
    own = dict(num_workers=num_workers, **kw)
    dls, more = (VideoDataLoaders.from_table(o, Clip(n=4), bs=bs, **own) for o in (df, repeat_rows(df, 2)))
    web = VideoDataLoaders.from_folder(f'{df.attrs["root"]}/web', Clip(1), bs=n_web, valid_pct=0, exts=picture_exts, train_only=True, **own)
    return mix_loaders(dls, more=Source(more, 2, .5), web=Source(web, own=True))


def learner(df, seed=0, **more):
    set_seed(seed); torch.set_num_threads(1)
    learn = video_learner(mixed(df, **more), omnisource_slim, arch_kw=dict(n_images=4, widths=(8, 8, 16, 16)), metrics=accuracy, opt_func=torch_opt('AdamW'))
    learn.logger = print
    return learn.remove_cb(learn.progress)


class Stop(Callback):
    "Ends a training like an interrupted cell"
    order, at = 1000, None
    def state_dict(self): return {}
    def load_state_dict(self, state): "Nothing"
    def after_batch(self):
        if self.training and self.train_iter == self.at: raise KeyboardInterrupt


def train(df, folder, seed=0, stop=None, iters=1, **more):
    learn = learner(df, seed, **more)
    cbs = [Accumulate(2), AverageWeights(.8), SaveTraining(folder, iters=iters), Stop()]
    cbs[-1].at = stop
    with pytest.raises(KeyboardInterrupt) if stop else nullcontext(): learn.fit(3, 1e-2, cbs=cbs)
    return {k: v.clone() for k,v in learn.model.state_dict().items()}, learn.dls.train.position()


@pytest.mark.parametrize('num_workers', (0, 1))
def test_an_interrupted_training_goes_on_in_each_source(table, tmp_path, num_workers):
    "Within an epoch, with a save before each batch or every third, and between epochs; with other seeds than it had"
    whole, place = train(table, tmp_path/'whole')
    for i,(stop, iters) in enumerate(((2, 1), (8, 3), (5, 9)) if not num_workers else ((8, 3),)):
        folder = tmp_path/f'run{i}'
        train(table, folder, 0, stop, iters, num_workers=num_workers)
        found, end = train(table, folder, 70 + i, iters=iters, num_workers=num_workers)
        assert all(torch.equal(found[k], v) for k,v in whole.items()) and end['sources'] == place['sources']


def test_another_mixture_is_another_training(table, tmp_path):
    train(table, tmp_path, stop=2)
    with pytest.raises(TrainingError, match='sources: web: batch size: 6 has become 5'): train(table, tmp_path, n_web=5)


def test_all_of_a_source_is_seen_before_it_comes_again(table):
    "Over the ends of epochs"
    dls = mixed(table)
    seen, dl = [], dls.train.sources['web'].dl
    do_item, dl.do_item = dl.do_item, lambda i: seen.append(i) or do_item(i)
    for _ in range(4):
        for batch in dls.train: pass
    assert len(seen) >= 4*5*6 - 6 and sorted(seen[:24]) == sorted({*seen[:24]}) and sorted(seen[24:48]) == sorted({*seen[24:48]})


def test_networks_with_one_input_learn_from_pictures_as_clips(table, tmp_path):
    "A picture that is repeated is a clip of any length"
    web = VideoDataLoaders.from_folder(f'{table.attrs["root"]}/web', Clip(n=4), bs=4, valid_pct=0, exts=picture_exts, train_only=True, num_workers=0, **kw)
    with pytest.raises(Exception, match='not the 4 of the first'): mix_loaders(VideoDataLoaders.from_table(table, Clip(n=4), bs=4, num_workers=0, **kw), web=web)
    web = VideoDataLoaders.from_table(web.table.assign(split='train'), Clip(n=4), bs=4, train_only=True, num_workers=0, **kw)
    table = table.copy(); table.attrs |= dict(vocab=sorted(table.attrs['vocab']))
    dls = mix_loaders(VideoDataLoaders.from_table(table, Clip(n=4), bs=4, num_workers=0, **kw), web=web)
    learn = video_learner(dls, tsm_slim, arch_kw=dict(widths=(8, 8, 16, 16)), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=LogTraining(tmp_path))
    assert {'loss_cls', 'loss_web', 'web_top1_acc'} <= {*read_log(tmp_path)} and learn.loss_func.parts.keys() == {'loss_cls', 'top1_acc', 'top5_acc'}


def test_pictures_that_cannot_be_read(table, tmp_path):
    "They are told at the end of an epoch in which they were met; a source of which nothing can be read is an error"
    for o in range(8): (tmp_path/f'{o%2}').mkdir(exist_ok=True); (tmp_path/f'{o%2}/{o}.jpg').write_bytes(b'no picture')
    cv2.imwrite(str(tmp_path/'0/a.png'), torch.zeros(32, 32, 3).byte().numpy())
    dls = VideoDataLoaders.from_table(table, Clip(n=4), bs=4, num_workers=0, **kw)
    def beside(): return VideoDataLoaders.from_folder(tmp_path, Clip(1), bs=2, valid_pct=0, exts=picture_exts, train_only=True, num_workers=0, on_error='skip', **kw)
    both = mix_loaders(dls, web=Source(beside(), own=True))
    with pytest.warns(UserWarning, match='videos were left out, first'):
        for clips, pictures, labels, walls in both.train: assert len(clips) == len(labels) and len(pictures) == len(walls) == 1
    assert len(both.bad_videos()) == 8
    (tmp_path/'0/a.png').write_bytes(b'no')
    with pytest.warns(UserWarning), pytest.raises(Exception, match="source 'web' gives no batch"): list(mix_loaders(dls, web=Source(beside(), own=True)).train)


def test_the_export_is_of_the_first_loader(table, tmp_path):
    learn = learner(table)
    with learn.no_logging(): learn.to_bf16().fit(1)
    learn.export(tmp_path/'net')
    loaded, path = load_learner(tmp_path/'net'), f'{table.attrs["root"]}/{table["video"][0]}'
    assert loaded.predict(path)[0] == learn.to_fp32().predict(path)[0] and list(loaded.dls.vocab) == list(table.attrs['vocab'])


def train_shared(rank, pipe, df):
    "One of two processes"
    learn, seen = learner(df, rank, bs=2, n_web=3), {}
    for name,dl in zip(('first', 'more', 'web'), learn.dls.train.all):
        seen[name], own = [], dl.do_item
        dl.do_item = lambda i, name=name, own=own: seen[name].append(i) or own(i)
    with learn.distributed(): learn.fit(1, 1e-2)
    pipe.send((seen, {k: v.tolist() for k,v in learn.model.state_dict().items()}, learn.dls.train.position()['sources']))


def test_processes_share_each_source(table):
    (a, weights, place), (b, same, other) = run_pair(train_shared, table, patience=90)
    assert weights == same and place == other
    for name,n in dict(first=20, more=40).items():
        assert not {*a[name]} & {*b[name]} and len({*a[name]} | {*b[name]}) == n and len(a[name]) == len(b[name]), name
    assert not {*a['web'][:12]} & {*b['web'][:12]}
