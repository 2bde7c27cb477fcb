"""What processes of a training do and find out: `python ranks.py FOLDER` writes FOLDER/W-R.safetensors for process R of W, for one to three processes.

They are forked from one process that has imported everything."""
import faulthandler, hashlib, os, signal, sys, traceback
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.metrics import accuracy

from vidbook.all import (Accumulate, AverageWeights, ClipGradients, MeanClassAccuracy, MultiView, SaveTraining, VideoDataLoaders, VidbookError, dl_ids,
                         evaluate, from_folders, free_port, join_processes, leave_processes, of_everyone, predictions, processes, save_state, scaled_lr, set_seed,
                         torch_opt, tsm_slim, video_learner)
from vidbook.learner import saving

sizes = range(1, 18)


def cut(table, n_valid=4, n_train=13):
    "The first rows of a table"
    rows = np.concatenate([np.flatnonzero(table['split'] == 'train')[:n_train], np.flatnonzero(table['split'] == 'valid')[:n_valid]])
    small = table.iloc[rows].reset_index(drop=True)
    small.attrs = table.attrs
    return small


def loaders(table, bs, **kw):
    return VideoDataLoaders.from_table(table, size=32, bs=bs, num_workers=0, train_tfms=(('RandomCrop', {}),), index=None, device='cpu', **kw)


def learner(table, bs, **kw):
    set_seed(0)
    dls = loaders(table, bs, **kw)
    dls.train.seed = 7
    return video_learner(dls, tsm_slim, arch_kw={'widths': (8, 8, 16, 16)}, metrics=[accuracy, MeanClassAccuracy()], opt_func=torch_opt('SGD', momentum=.9))


def digest(model):
    h = hashlib.sha256()
    for v in model.state_dict().values(): h.update(v.numpy().tobytes())
    return h.hexdigest()


class Read:
    "Notes which items a loader reads"
    def __init__(self, dl): self.read, self.do_item, dl.do_item = [], dl.do_item, self
    def __call__(self, i): self.read.append(i); return self.do_item(i)


class Double(Callback):
    "Clips of the precision of such a network"
    def before_batch(self): self.learn.xb = tuple(o.double() for o in self.xb)


class Stop(Callback):
    "Ends a training like an interrupted cell"
    order = 200
    def __init__(self, when): self.at = when
    def state_dict(self): return {}
    def load_state_dict(self, state): pass
    def after_batch(self):
        if self.training and self.learn.train_iter == self.at: raise KeyboardInterrupt


def evaluation(table):
    "Every id once, and the numbers of one process, for any number of clips"
    learn, found = learner(table, 3), {}
    with learn.distributed(), learn.no_bar():
        for n in sizes:
            learn.dls = loaders(cut(table, n), 3)
            note = Read(learn.dls.valid)
            values = list(learn.validate())
            probs, labels, losses = learn.get_preds(with_loss=True)
            found[n] = dict(read=note.read, ids=dl_ids(learn.dls.valid), values=values, probs=probs, labels=labels, losses=losses)
        found['views'] = list(learn.validate(cbs=MultiView(2, 3, max_views=4)))
        for name,preds in dict(predictions=predictions(learn), evaluate=evaluate(learn, views=(2, 3))).items():
            found[name] = dict(ids=list(preds.table['id']), scores=preds.scores, losses=list(preds.table['loss']))
        found['shuffled'] = sorted(learn.get_preds(dl=learn.dls.train.new(drop_last=False))[1].tolist())
    return found


def broken(table):
    "Clips that cannot be read leave no gap and shift nothing"
    found = {}
    with learner(table, 1, on_error='skip').distributed() as learn:
        found['scores'] = learn.get_preds(reorder=False)[0]
        found['ids'], found['left out'] = dl_ids(learn.dls.valid), sorted(Path(o).name for o in learn.dls.bad_videos()['video'])
        with learn.no_bar(): learn.fit(2, 1e-3, cbs=[Accumulate(2), ClipGradients(1.)])
        found['losses'] = [list(o) for o in learn.recorder.values]
    return found | dict(same=len({*of_everyone(digest(learn.model))}) == 1)


def training(table):
    "Batches of six clips, however many processes share them; averaged weights, gathered gradients"
    learn, world = learner(table, 6//processes()[1]), processes()[1]
    learn.model.double()                                      # or a rounding decides now and then whether a ReLU opens
    learn.add_cb(Double())
    average = AverageWeights(.9, final=False)
    with learn.distributed(sync_bn=True):
        noise = of_everyone(torch.rand(1).item())
        learn.fit(3, scaled_lr(.01, 6, learn.dls.bs), cbs=[Accumulate(2), average])
        again = learn.validate()
    weights = {k: v.clone() for k,v in learn.model.state_dict().items()}
    return dict(weights=weights, average=dict(average.average), values=[list(o) for o in learn.recorder.values], again=list(again), noise=noise,
                same=len({*of_everyone(digest(learn.model))}) == 1, callbacks=sorted(o.name for o in learn.cbs), lr=learn.opt.hypers[0]['lr'])


class Looks:
    "Counts how often a process looks into the folder of a training"
    def __init__(self): self.n, self.list_saves = 0, saving.list_saves
    def __call__(self, folder): self.n += 1; return self.list_saves(folder)


def resume(table, folder):
    "A training that is interrupted within an epoch, in all processes, and goes on"
    looks = saving.list_saves = Looks()
    def fit(folder, stop=0):
        learn = learner(table, 2)
        with learn.distributed(), learn.no_bar(): learn.fit(2, .01, cbs=[SaveTraining(folder, epochs=2, iters=1), Stop(stop)])
        return digest(learn.model)
    whole = fit(folder/'whole')
    try: fit(folder/'cut', 13//(2*processes()[1]) + 2)
    except KeyboardInterrupt: saves = sorted(o.name for o in (folder/'cut').iterdir())
    return dict(same=fit(folder/'cut') == whole, saves=saves, looks=looks.n)


def complaint(function):
    "What is complained of"
    try: function()
    except VidbookError as e: return str(e)


def differing(table):
    "The second process has another table, learning rate, list of clips; there are too few clips"
    odd = processes()[0] == 1
    def other_table():
        with learner(cut(table, 5 if odd else 4), 2).distributed(): pass
    def other_rate():
        with learner(table, 2).distributed() as learn: learn.fit(1, .2 if odd else .1)
    def other_clips():
        with learner(table, 2).distributed() as learn: learn.validate(dl=learn.dls.valid.new(learn.dls.valid.dataset if odd else learn.dls.train_ds))
    def too_few():
        with learner(cut(table, n_train=5), 5).distributed() as learn: learn.fit(1)
    return [complaint(o) for o in (other_table, other_rate, other_clips, too_few)]


def export(table, folder):
    learn = learner(table, 2)
    with learn.distributed(): path = learn.export(folder/f'model{processes()[0]}')
    return path.exists()


def everything(root, folder):
    "All of the above"
    table = cut(from_folders(root/'squares'), 17)
    bad = cut(from_folders(root/'broken'), 7, 12)
    found = dict(evaluation=evaluation(table), broken=broken(bad), training=training(table))
    world = processes()[1]
    if world > 1: found |= dict(differing=differing(table), export=export(table, folder), resume=resume(table, folder))
    return found


def work(root, rank, world, port):
    "One process"
    os.environ |= dict(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    faulthandler.dump_traceback_later(900, exit=True)                        # one that stands still says where
    if rank == 0: os.chdir(root)
    torch.set_num_threads(1)
    folder = root/f'world{world}'
    folder.mkdir(exist_ok=True)
    join_processes(minutes=2)
    sys.stdout = open(root/f'{world}-{rank}.log', 'w')
    save_state(root/f'{world}-{rank}.safetensors', everything(root, folder))
    sys.stdout.close()
    leave_processes()


def main(root):
    for world in (1, 2, 3):
        port, pids = free_port(), []
        for rank in range(world):
            if pid := os.fork(): pids.append(pid); continue
            try: work(root, rank, world, port)
            except BaseException: traceback.print_exc(); os._exit(1)
            os._exit(0)
        while pids:
            ended, status = os.wait()
            pids.remove(ended)
            if not status: continue
            for pid in pids: os.kill(pid, signal.SIGKILL)                # as a launcher does
            sys.exit(1)


if __name__ == '__main__': main(Path(sys.argv[1]))
