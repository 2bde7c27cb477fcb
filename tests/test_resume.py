"Trainings that are killed, at any moment, end as if nothing had happened; disks that are full; several processes"
import multiprocessing, os, random, resource, shutil, signal, time
from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from fastai.torch_core import trainable_params
from safetensors.torch import load_file

from pair import run_pair
from vidbook.callbacks.averaging import AverageWeights
from vidbook.callbacks.distill import Distill
from vidbook.callbacks.gradients import Accumulate, ClipGradients
from vidbook.callbacks.schedule import Cosine, FollowSchedule, Linear, Schedule, cosine_schedule
from vidbook.data.loaders import VideoDataLoaders
from vidbook.data.squares import make_squares
from vidbook.io.sample import Clip
from vidbook.learner import distributed, saves, saving   # the first for learn.distributed
from vidbook.learner.checkpoint import load_learner, load_network
from vidbook.learner.classify import video_learner
from vidbook.learner.optim import Rule, torch_opt
from vidbook.learner.saves import TrainingError, list_saves
from vidbook.learner.saving import SaveTraining
from vidbook.learner.state import load_state
from vidbook.models.tsm import tsm_slim
from vidbook.utils import set_seed

tfms = (('RandomCrop', {}), ('Flip', {}), ('ColorJitter', {}), ('RandomErasing', {}), ('Blend', dict(mixup=.4)))
epochs, iters = 3, 5


@pytest.fixture(scope='module')
def table(tmp_path_factory): return make_squares(tmp_path_factory.mktemp('squares'), n_train=5, n_valid=2, n_frames=8)


def learner(table, num_workers=0, seed=0, bs=4, **kw):
    set_seed(seed); torch.set_num_threads(1)
    dls = VideoDataLoaders.from_table(table, Clip(n=4), 32, bs=bs, num_workers=num_workers, start='fork', device=torch.device('cpu'), train_tfms=tfms)
    learn = video_learner(dls, tsm_slim, metrics=accuracy, **{'rules': [Rule('norm', wd=0)], 'opt_func': torch_opt('AdamW'), **kw})
    learn.logger = print
    return learn.remove_cb(learn.progress)


def how(): return [FollowSchedule(cosine_schedule(epochs, warmup=1)), Accumulate(2), ClipGradients(1.), AverageWeights(.8)]


def teacher(seed=9):
    "A network that draws nothing from the generators of the training"
    with torch.random.fork_rng(): torch.manual_seed(seed); return tsm_slim(4, widths=(8, 8, 16, 16))


class Tell(Callback):
    "Says each iteration and each moment of a save"
    order = 1000
    def __init__(self, say): self.say = say
    def after_batch(self): self.say('batch' if self.training else 'validation')


def telling(module, name, say):
    "Have a function say so before it begins"
    original = getattr(module, name)
    def told(*args, **kw): say(name); return original(*args, **kw)
    setattr(module, name, told)


def train(table, folder, seed, num_workers, pipe):
    "What the process does that is killed"
    for name in ('_write_model', 'save_state', '_sync', '_discard'): telling(saves, name, pipe.send)
    telling(saving, 'prune', pipe.send)
    saving.training_plan = without(saving.training_plan, 'tell')
    learner(table, num_workers, seed).fit(epochs, 1e-2, cbs=[*how(), Tell(pipe.send), SaveTraining(folder, iters=2, keep=2)])
    pipe.send('end')


class without:
    "A plan that says nothing of the test's own callback"
    def __init__(self, plan, name): self.plan, self.name = plan, name
    def __call__(self, learn): plan = self.plan(learn); plan['callbacks'].pop(self.name); return plan


@pytest.fixture(scope='module')
def whole(table):
    "A training that nobody disturbs"
    learn = learner(table)
    learn.fit(epochs, 1e-2, cbs=how())
    return learn


def same(learn, state): return all(torch.equal(v, state[k]) for k,v in learn.model.state_dict().items())


def test_killed_at_twenty_random_moments(table, whole, tmp_path):
    "In and between epochs, while it saves, removes or validates; each time with another number of workers"
    context, rng, killed, run = multiprocessing.get_context('forkserver'), random.Random(5), [], tmp_path/'run'
    context.set_forkserver_preload(['vidbook.learner.saving', 'vidbook.data.loaders'])
    moments = ['batch', 'validation', '_write_model', 'save_state', '_sync', 'prune', '_discard']
    while len(killed) < 20 or killed[-1] != 'end':
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=train, args=(table, run, 99 if list_saves(run) else 0, len(killed) % 3, theirs))
        process.start(); theirs.close()
        moment, left = moments[len(killed) % len(moments)], rng.randint(1, 3)
        try:
            while left:
                if not ours.poll(40): pytest.fail(f'process {len(killed)} stands still')
                said = ours.recv()
                if said == 'end': break
                left -= said == moment
        except EOFError: pytest.fail(f'process {len(killed)} ended by itself')
        if said != 'end':
            time.sleep(rng.random()*.004)
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed.append(said)
        if said == 'end' and len(killed) < 20: shutil.rmtree(run); killed[-1] = 'from the start'
    assert len(set(killed)) >= 5
    last = list_saves(run)[-1]
    assert last.finished and last.epoch == epochs
    assert same(whole, load_file(last.path/'model.safetensors'))
    own = load_state(last.path/'process0.safetensors')['own']
    assert own['callbacks']['recorder']['values'] == list(map(list, whole.recorder.values))
    assert torch.equal(torch.stack(own['callbacks']['recorder']['losses']), torch.stack(whole.recorder.losses))
    assert not [o for o in (run).glob('.*') if int(o.name.rsplit('-', 2)[1]) != process.pid]


def test_no_room_while_saving(table, tmp_path):
    "The system refuses to write: the old saves stay, nothing half-written does, and the training can go on later"
    class Full(Callback):
        order = 1000
        def after_batch(self):
            if self.training and self.train_iter == 6: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old, run = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), tmp_path/'run'
    try:
        with pytest.raises(TrainingError, match='epoch0001-batch000003 could not be written .*the saves before it are whole: make room'):
            learner(table).fit(epochs, 1e-2, cbs=[Full(), SaveTraining(run, iters=4, resume='anyway')])
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)); signal.signal(signal.SIGXFSZ, old)
    assert [(o.epoch, o.batch) for o in list_saves(run)] == [(0, 0), (0, 4), (1, 0)] and not list(run.glob('.*'))


@pytest.mark.parametrize('kw', [dict(opt_func=torch_opt('SGD', momentum=.9), rules=()), dict(loss_func=torch.nn.CrossEntropyLoss())])
def test_what_the_user_is_told_not_to_do_is_possible(table, tmp_path, kw):
    "Another optimizer or loss goes on from the weights, if the user insists"
    learner(table).fit(1, 1e-2, cbs=SaveTraining(tmp_path, iters=3))
    shutil.rmtree(list_saves(tmp_path)[-1].path)
    with pytest.raises(TrainingError, match='(optimizer|loss): .* has become'): learner(table, **kw).fit(1, 1e-2, cbs=SaveTraining(tmp_path, iters=3))
    assert list_saves(tmp_path)[-1].batch == 3
    learner(table, **kw).fit(1, 1e-2, cbs=SaveTraining(tmp_path, iters=3, resume='anyway'))
    assert list_saves(tmp_path)[-1].finished


def test_a_process_that_does_not_see_the_folder_says_so(table, tmp_path, monkeypatch):
    learner(table).fit(1, 1e-2, cbs=SaveTraining(tmp_path/'run'))
    monkeypatch.setattr(saving, 'of_first', lambda value: ['epoch0007'] if isinstance(value, list) else value)
    with pytest.raises(TrainingError, match='holds epoch0007 for the first process, but not for process 0'):
        learner(table).fit(1, 1e-2, cbs=SaveTraining(tmp_path/'run'))


class Stop(Callback):
    "Breaks a training off, as Ctrl-C does"
    order, at = 1000, None                                              # of the class: neither a setting nor a state
    def after_batch(self):
        if self.training and self.train_iter == Stop.at: raise KeyboardInterrupt


@pytest.mark.parametrize('again', [False, True], ids=['another learner', 'the same learner'])
@pytest.mark.parametrize('opt,scale', [(Adam, None), (torch_opt('SGD', momentum=.9), None), (torch_opt('AdamW'), 2.**20)], ids=['Adam of fastai', 'SGD', 'float16'])
def test_gradients_scales_and_schedules_go_on(table, tmp_path, opt, scale, again):
    "Broken off while gradients wait for their step, the scale is still sought, and momentum and weight decay are on their way"
    def make(seed=0):
        learn = learner(table, seed=seed, opt_func=opt)
        return learn.to_fp16(init_scale=scale, growth_interval=2) if scale else learn
    def fit(learn, at, *saves):
        Stop.at, schedule = at, FollowSchedule(Schedule(2, Linear(0, 1), mom=Linear(first=.6), wd=Cosine(low_ratio=.1)))
        try: learn.fit(2, 1e-2, cbs=[schedule, Accumulate(2), ClipGradients(1.), AverageWeights(.8), Stop(), *saves])
        except KeyboardInterrupt: pass
        return learn
    whole, learn = fit(make(), None), make()
    for seed, at in ((1, 4), (2, 8), (3, None)):
        fit(learn, at, SaveTraining(tmp_path, iters=3))
        if at and not again: learn = make(seed)
    assert same(learn, whole.model.state_dict()) and not same(make(), whole.model.state_dict())


@pytest.mark.parametrize('opt,lr,kw', [(torch_opt('Muon'), 1e-2, {}), (torch_opt('LBFGS', max_iter=3), .1, dict(rules=(), splitter=trainable_params))],
                         ids=['Muon', 'LBFGS'])
def test_optimizers_with_steps_of_their_own_go_on(table, tmp_path, opt, lr, kw):
    def fit(at, *saves, seed=0):
        Stop.at, learn = at, learner(table, seed=seed, opt_func=opt, **kw)
        try: learn.fit(2, lr, wd=0., cbs=[AverageWeights(.8), Stop(), *saves])
        except KeyboardInterrupt: pass
        return learn
    whole = fit(None)
    for seed, at in enumerate((4, 8, None)): learn = fit(at, SaveTraining(tmp_path, iters=3), seed=seed)
    assert same(learn, whole.model.state_dict()) and not same(learner(table), whole.model.state_dict())


def test_a_taught_training_goes_on_with_its_teacher(table, tmp_path):
    def fit(folder, at=None, seed=0, net=None):
        Stop.at, learn = at, learner(table, seed=seed)
        learn.fit(2, 1e-2, cbs=[*how(), Distill(net or teacher(), 'dist'), SaveTraining(folder, iters=2), Stop()])
        return learn
    whole = fit(tmp_path/'whole')
    with pytest.raises(KeyboardInterrupt): fit(tmp_path/'run', at=7)
    last = list_saves(tmp_path/'run')[-1]
    assert load_file(last.path/'model.safetensors').keys() == whole.model.state_dict().keys()
    assert load_state(last.path/'process0.safetensors')['own']['callbacks']['distill'] == {}
    with pytest.raises(TrainingError, match='callbacks: distill: .*weights'): fit(tmp_path/'run', net=teacher(10))
    assert same(fit(tmp_path/'run', seed=50), whole.model.state_dict())
    net, card = load_network(whole.export(tmp_path/'student'))
    assert net.state_dict().keys() == whole.model.state_dict().keys() and card.arch.endswith('tsm_slim')


def test_what_was_exported_or_published_teaches(table, tmp_path):
    "It sees the clips of its own specification: here four frames of 32 pixels, of clips with eight of 40, normalised otherwise"
    first, seen = learner(table), []
    dls = VideoDataLoaders.from_table(table, Clip(n=8), 40, bs=4, num_workers=0, device=torch.device('cpu'), mean=(127.5,)*3, std=(127.5,)*3)
    known = load_learner(first.export(tmp_path/'teacher'))
    preset = SimpleNamespace(clip_spec=lambda: known.dls.spec, vocab=[*dls.vocab][::-1], model=lambda pretrained: known.model)
    known.model.register_forward_hook(lambda m, x, out: seen.append(x[0]))
    for o,columns in ((known, None), (preset, [3, 2, 1, 0])):
        student = video_learner(dls, tsm_slim, arch_kw=dict(widths=(8, 8, 16, 16)))
        with student.no_bar(), student.no_logging(): student.fit(1, 1e-3, cbs=[distill := Distill(o)])
        assert distill.teacher.columns == columns
    assert {tuple(o.shape[1:]) for o in seen} == {(3, 4, 32, 32)} and not known.model.training
    assert all(o.shape == (4, 3, 4, 32, 32) and -3 < o.min() < o.max() < 3 for o in seen)


def train_shared(rank, pipe, table, folder, seed, stop):
    "One of two processes; both stop after so many iterations"
    saving.training_plan = without(saving.training_plan, 'tell')
    learn = learner(table, seed=seed + rank, bs=2)
    def say(what):
        if learn.train_iter == stop: pipe.send(None); os.kill(os.getpid(), signal.SIGKILL)
    with learn.distributed(): learn.fit(2, 1e-2, cbs=[Accumulate(2), AverageWeights(.8), Distill(teacher()), Tell(say), SaveTraining(folder, iters=2)])
    pipe.send({k: v.tolist() for k,v in learn.model.state_dict().items()})


def test_two_processes_go_on_together(table, tmp_path):
    "Each with its own state: both are killed in the second epoch, and go on with another seed"
    ends = []
    for seed, stop, folder in ((0, 99, 'whole'), (0, 8, 'killed'), (50, 99, 'killed')): ends += run_pair(train_shared, table, tmp_path/folder, seed, stop)
    assert ends[0] == ends[1] == ends[4] == ends[5] and ends[2] is ends[3] is None
    last = list_saves(tmp_path/'killed')[-1]
    assert last.processes == 2 and sorted(last.files) == ['model.json', 'model.safetensors', 'process0.safetensors', 'process1.safetensors']
