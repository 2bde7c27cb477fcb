"Logs of trainings that are broken off and go on; boards"
import resource, signal, sys
from types import SimpleNamespace

import pandas as pd
import pytest
from fastai.callback.core import Callback
from fastai.metrics import accuracy

from vidbook.callbacks.logs import LogTraining, read_log
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.squares import make_squares
from vidbook.io.sample import Clip
from vidbook.learner.classify import video_learner
from vidbook.learner.saving import SaveTraining
from vidbook.losses import ClassificationLoss, NamedLoss
from vidbook.models.tsm import tsm_slim
from vidbook.utils import VidbookError, set_seed

timed = ['data_time', 'iter_time', 'eta_s', 'memory_mb']


@pytest.fixture(scope='module')
def table(tmp_path_factory): return make_squares(tmp_path_factory.mktemp('squares'), n_train=5, n_valid=2, n_frames=8)


def learner(table, seed=0):
    set_seed(seed)
    dls = VideoDataLoaders.from_table(table, Clip(n=4), 32, bs=4, num_workers=0, device='cpu')
    learn = video_learner(dls, tsm_slim, metrics=accuracy, loss_func=NamedLoss(ClassificationLoss()))
    return learn.remove_cb(learn.progress)


class Stop(Callback):
    "Breaks the training off, as a kill would"
    order, at = 1000, 99
    def after_batch(self):
        if self.training: self.learn.log_scalar('twice', 2*self.train_iter)
        if self.training and self.train_iter == Stop.at: raise KeyboardInterrupt


def fit(table, folder, stops, name, every=2, **kw):
    "The log of a training that is broken off after each of so many iterations"
    for seed, Stop.at in enumerate([*stops, 99]):
        try: getattr(learner(table, seed), name)(2, 1e-2, cbs=[Stop(), SaveTraining(folder, iters=3), LogTraining(folder, every=every, **kw)])
        except KeyboardInterrupt: pass
    return read_log(folder).drop(columns=timed), pd.read_csv(folder/'epochs.csv')


@pytest.mark.parametrize('name', ['fit_one_cycle', 'fine_tune'])
def test_a_training_that_was_broken_off_has_the_log_of_one_that_was_not(table, tmp_path, name):
    whole, broken = (fit(table, tmp_path/str(len(stops)), stops, name) for stops in ([], [2, 5, 8, 9]))
    for a, b in zip(whole, broken): pd.testing.assert_frame_equal(a, b, check_exact=True)
    steps = [2, 4, 5, 6, 8, 10]
    assert whole[0]['step'].tolist() == ([2, 4, 5]*(name == 'fine_tune') + steps) and len(whole[1]) == len(set(zip(whole[1]['fit'], whole[1]['epoch'])))
    assert {'loss', 'loss_cls', 'top1_acc', 'lr', 'grad_norm', 'twice'} <= set(whole[0])


def test_each_process_has_its_log(table, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    learner(table).fit(1, cbs=LogTraining(tmp_path, debug=True))
    assert [o.name for o in tmp_path.iterdir()] == ['process1.log']
    assert len((tmp_path/'process1.log').read_text().splitlines()) == 1 + 5 + 1


def test_no_room_for_a_row(table, tmp_path):
    "The system refuses to write: the file is named, the rows before stay, and the training goes on later"
    class Full(Callback):
        order = 5
        def after_batch(self):
            if self.training and self.train_iter == 4: resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
    (soft, hard), old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(VidbookError, match=r'train\.csv could not be written \(File too large\); .*make room'):
            learner(table).fit(1, 1e-2, cbs=[LogTraining(tmp_path, every=1), Full()])
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)); signal.signal(signal.SIGXFSZ, old)
    assert read_log(tmp_path)['step'].tolist() == [1, 2, 3]


def test_boards_get_the_rows(table, tmp_path, monkeypatch):
    "Through what fastai's callbacks for them hold"
    learn, told = learner(table), []
    learn.tensor_board = SimpleNamespace(writer=SimpleNamespace(add_scalar=lambda name, value, step: told.append((name, step))))
    learn.wandb = SimpleNamespace(_wandb_step=7)
    monkeypatch.setitem(sys.modules, 'wandb', SimpleNamespace(log=lambda numbers, step: told.extend((name, step) for name in numbers)))
    learn.fit(1, cbs=LogTraining(tmp_path, every=5))
    assert ('vidbook/grad_norm', 5) in told and ('vidbook/loss_cls', 7) in told


def test_boards_show_results(table):
    "What fastai's callbacks do if nothing is switched off: the network with a first batch before a loader runs, and pictures of results"
    from plum import dispatch
    learn, told = learner(table), []
    batch = learn.dls.valid.one_batch()
    learn._split(batch)
    assert len(learn.xb) == len(learn.yb) == 1
    decoded = learn.loss_func.decodes(learn.model(*learn.xb))
    shown = learn.dls.valid.show_results(batch, decoded, show=False, max_n=9)
    writer = SimpleNamespace(add_figure=lambda name, figure, step: told.append((name, len(figure.axes), step)))
    dispatch.functions['tensorboard_log'](*shown, writer, 3)
    assert told == [('Sample results', 4, 3)]                            # a batch has four clips
    wandb = SimpleNamespace(Image=lambda figure: len(figure.axes))
    with pytest.MonkeyPatch.context() as m:
        m.setitem(sys.modules, 'wandb', wandb)
        assert dispatch.functions['wandb_process'](*shown, None) == {'Prediction_Samples': 4}
