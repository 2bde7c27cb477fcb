"Long combinations of what changes a step: accumulation, cutting, averaging, precision, freezing; told schedules, and resumed averages"
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.optimizer import Adam
from fastai.losses import CrossEntropyLossFlat
from torch import nn
from torch.utils.data import TensorDataset
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader

from vidbook.callbacks.averaging import AverageWeights
from vidbook.callbacks.distill import Distill
from vidbook.callbacks.freezing import FreezeNorms, FreezeStages
from vidbook.callbacks.gradients import Accumulate, ClipGradients
from vidbook.callbacks.multiview import MultiView
from vidbook.callbacks.precision import Fp16
from vidbook.callbacks.schedule import Cosine, FollowSchedule, Linear, Schedule, Steps, schedule_curves
from vidbook.callbacks.validation import ValidateEvery
from vidbook.data.mix import Blend
from vidbook.learner.classify import VideoLearner, loss_for, video_learner
from vidbook.learner.optim import Rule, torch_opt
from vidbook.learner.rehearse import learner_curves      # registers learners
from vidbook.losses import AuxiliaryLoss, MultiTagLoss
from vidbook.metrics.recognition import MeanAveragePrecision, tag_average_precision
from vidbook.models.slowonly import slowonly_slim
from vidbook.models.tsn import tsn_slim
from vidbook.utils import set_seed


class Loaders(DataLoaders):
    "Of clips that are tensors, with a number of classes"
    c = 3


def loaders(n=14, bs=4, targets=None):
    set_seed(1)
    y = torch.arange(n)%3 if targets is None else targets
    dl = DataLoader(TensorDataset(torch.randn(n, 3, 2, 16, 16), y), bs=bs)
    return Loaders(dl, dl)


def learner(dls=None, **kw):
    set_seed(0)
    return video_learner(dls or loaders(), slowonly_slim, arch_kw=dict(dropout=0.), **{'loss_func': CrossEntropyLossFlat(), **kw})


def fit(learn, *args, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit(*args, **kw)
    return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def test_accumulated_batches_are_the_large_one():
    "With frozen norms nothing else tells them apart; cut, averaged and scheduled, with rules; 14 clips leave two over"
    def one(bs, n):
        cbs = [FreezeNorms(), Accumulate(n), ClipGradients(.5), AverageWeights(.5, warmup=False)]
        return fit(learner(loaders(14, bs), opt_func=torch_opt('SGD', momentum=.9), rules=[Rule('^head', lr=5)]), 2, .02, cbs=cbs)
    large = one(12, 1)
    torch.testing.assert_close(one(4, 3), large, rtol=1e-4, atol=1e-6); torch.testing.assert_close(one(3, 4), large, rtol=1e-4, atol=1e-6)
    assert (one(4, 1)-large).abs().max() > 1e-3


def test_schedules_count_batches_and_the_last_group_is_stepped():
    learn = learner(opt_func=Adam); learn.create_opt(); seen, step = [], learn.opt.step
    learn.opt.step = lambda: (seen.append(learn.opt.hypers[0]['lr']), step())
    schedule = Schedule(2, lr=(Linear(0, 3, iters=True), Steps(at=(1,))), mom=Cosine(low=.5))
    told = schedule_curves(learn, 'fit', 2, .1, cbs=[FollowSchedule(schedule), Accumulate(3)])
    fit(learn, 2, .1, cbs=[FollowSchedule(schedule), Accumulate(3)])
    assert seen == told[told['group'] == 0]['lr'].tolist() and told['step'].unique().tolist() == [2, 3, 6, 7]
    np.testing.assert_allclose(seen, [schedule.at(i, 4, .1) for i in (2, 3, 6, 7)])


@pytest.mark.parametrize('train,args', [('fit', (2, 1e-2)), ('fit_one_cycle', (2, slice(1e-4, 1e-2))), ('fine_tune', (1, 1e-2))])
@pytest.mark.parametrize('opt', ['Adam', 'SGD', 'AdamW', 'RMSprop'])
def test_told_is_seen(train, args, opt):
    if opt == 'RMSprop' and train != 'fit': return      # fastai's schedules drive a momentum named `mom`, which it calls so, too
    learn = learner(opt_func=Adam if opt == 'Adam' else torch_opt(opt), rules=[Rule('norm', wd=0), Rule('bias', lr=2)])
    told = schedule_curves(learn, train, *args, wd=.1)
    learn.create_opt(); seen, step = [], learn.opt.step
    def spy(): seen.extend((h['lr'], h['wd'], not p[0].requires_grad) for h,p in zip(learn.opt.hypers, learn.opt.param_lists)); step()
    learn.opt.step = spy
    with learn.no_bar(), learn.no_logging(): getattr(learn, train)(*args, wd=.1)
    assert seen == list(zip(told['lr'], told['wd'], told['frozen'])) and len(set(seen)) > 2


def test_lost_batches_are_stepped_after_all():
    "A loader that gives fewer batches than it said"
    class Short(DataLoader):
        def __len__(self): return 5
    dl = Short(TensorDataset(torch.randn(8, 3, 2, 16, 16), torch.arange(8)%3), bs=4)
    short = learner(Loaders(dl, dl)); start = short.model.head.fc_cls.weight.clone()
    fit(short, 1, .1, cbs=Accumulate(3))
    assert not torch.equal(short.model.head.fc_cls.weight, start)
    assert all(p.grad is None or not p.grad.any() for p in short.model.parameters())


def test_averages_go_on_from_their_state():
    "Stopped after one epoch and gone on with its state: as if it had never stopped"
    def opt(): return torch_opt('SGD')
    whole = learner(opt_func=opt()); fit(whole, 2, .01, cbs=[one := AverageWeights(.8)])
    first = learner(opt_func=opt()); fit(first, 1, .01, cbs=[half := AverageWeights(.8, final=False)])
    class Restore(Callback):
        order = 90
        def before_train(self): self.learn.average_weights.load_state_dict(kept)
    kept = {k: {n: v.clone() for n,v in o.items()} if isinstance(o, dict) else o for k,o in half.state_dict().items()}
    fit(first, 1, .01, cbs=[two := AverageWeights(.8), Restore()])
    assert two.steps == one.steps == 8
    for k,v in whole.model.state_dict().items(): torch.testing.assert_close(first.model.state_dict()[k], v, rtol=1e-5, atol=1e-7)


def test_a_left_out_step_moves_no_average():
    learn = learner(); start = {k: v.clone() for k,v in learn.model.state_dict().items() if 'running' not in k}
    fit(learn, 1, .1, cbs=[Fp16(init_scale=2.**120), ema := AverageWeights(.5)])
    assert ema.steps == 0 and all(torch.equal(learn.model.state_dict()[k], v) for k,v in start.items() if v.is_floating_point())


def test_trainings_repeat():
    "Deterministic mode: bit for bit"
    def one():
        set_seed(3, deterministic=True)
        return fit(video_learner(loaders(), slowonly_slim, loss_func=CrossEntropyLossFlat()), 1, .01)
    try: assert torch.equal(one(), one())
    finally: torch.use_deterministic_algorithms(False)


def test_everything_together_leaves_nothing_behind():
    learn = learner(cbs=[ValidateEvery(2), AverageWeights(.5), FreezeStages(1), FreezeNorms(keep=1), Accumulate(2), ClipGradients(1.), MultiView(max_views=2)])
    fit(learn.to_fp16(), 3, .01)
    assert all(p.requires_grad for p in learn.model.parameters()) and not learn.held and 'forward' not in vars(learn.model)
    assert [np.isnan(row[1]) for row in learn.recorder.values] == [True, False, False]


@pytest.mark.parametrize('v,bs', [(2, 7), (6, 3), (30, 2)])
def test_memory_of_views_does_not_depend_on_batch_or_views(v, bs):
    class Net(nn.Module):
        largest = 0
        def __init__(self): super().__init__(); self.head = nn.Linear(3, 3)
        def forward(self, x): self.largest = max(self.largest, len(x)); return self.head(x.mean((2, 3, 4)))
    class Floats:
        largest = 0
        def __call__(self, b): self.largest = max(self.largest, len(b[0])); return (b[0].float()/255, *b[1:])
    x, y, floats = torch.randint(256, (7, v, 3, 2, 4, 4), dtype=torch.uint8), torch.arange(7)%3, Floats()
    dl = DataLoader(TensorDataset(x, y), bs=bs, after_batch=floats)
    learn = VideoLearner(DataLoaders(dl, dl), Net(), loss_func=CrossEntropyLossFlat())
    with learn.no_bar(): probs, _ = learn.get_preds(cbs=MultiView(max_views=5))
    with torch.no_grad(): want = learn.model(x.flatten(0, 1).float()/255).softmax(1).unflatten(0, (7, v)).mean(1)
    torch.testing.assert_close(probs, want, rtol=1e-5, atol=1e-6)
    assert floats.largest == min(5, v*min(bs, 7))


def test_missing_tags_train_and_measure():
    "Tags of two categories, one of them missing for half of the clips"
    categories, tags = dict(action=2, scene=3), (torch.rand(14, 5, generator=torch.Generator().manual_seed(0)) < .5).float()
    tags[:7, 2:] = 0; tags[7:, 0] = torch.nan; tags[12:, 1] = 1; tags[:7, 0] = tags[7:, 2] = 1
    dls = loaders(14, 4, tags); dls.c = 5
    learn = learner(dls, loss_func=MultiTagLoss(categories), metrics=MeanAveragePrecision(categories))
    fit(learn, 2, .01)
    assert set(learn.loss_func.parts) == {'loss_cls', 'action_loss', 'scene_loss'} and np.isfinite(learn.recorder.values[-1][1])
    with learn.no_bar():
        value = learn.recorder.values[-1][2]
        scores, targets = learn.get_preds()
        with pytest.raises(ValueError, match="average='score'"): learn.validate(cbs=MultiView())
    assert value == pytest.approx(tag_average_precision(scores, targets, categories)['mean'])


def teacher():
    set_seed(5)
    return tsn_slim(3, widths=(8, 8, 16, 16))


def test_a_teacher_is_heard_alike_in_accumulated_batches():
    def one(bs, n, **kw):
        cbs = [FreezeNorms(), Accumulate(n), Distill(teacher(), **kw)]
        return fit(learner(loaders(14, bs), opt_func=torch_opt('SGD', momentum=.9)), 2, .02, cbs=cbs)
    large = one(12, 1)
    torch.testing.assert_close(one(4, 3), large, rtol=1e-4, atol=1e-6)
    assert (one(4, 3, weight=.1)-large).abs().max() > 1e-3


@pytest.mark.parametrize('how', ['logits', 'dist'])
@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_a_teacher_is_asked_in_the_precision_of_the_student_and_stays_as_it_is(how, precision):
    net, seen = teacher(), []
    net.head.fc_cls.register_forward_hook(lambda m, x, out: seen.append(out.dtype))
    before = {k: v.clone() for k,v in net.state_dict().items()}
    set_seed(0)
    learn = VideoLearner(loaders(), nn.Sequential(nn.Flatten(), nn.Linear(1536, 3)), loss_func=CrossEntropyLossFlat())   # no convolution of a pixel, whose
    keys, learn = list(learn.model.state_dict()), getattr(learn, f'to_{precision}')()                                       # bfloat16 gradients may be NaN
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, .01, cbs=[distill := Distill(net, how), AverageWeights(.5), ClipGradients(1.), Accumulate(2)])
    assert set(seen) == {dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)[precision]} and len(seen) == 8      # none in validations
    assert all(torch.equal(v, before[k]) for k,v in net.state_dict().items()) and all(p.grad is None for p in net.parameters())
    assert list(distill.loss_parts) == ['loss_labels'] + dict(logits=['loss_logits'], dist=['loss_inter', 'loss_intra'])[how]
    assert sum(distill.loss_parts.values()).isfinite() and list(learn.model.state_dict()) == keys


def test_a_student_with_auxiliary_results_and_blended_clips_is_taught():
    class Two(nn.Module):
        def __init__(self): super().__init__(); self.net = slowonly_slim(3)
        def forward(self, x): out = self.net(x); return (out, out) if self.training else out
    learn = VideoLearner(loaders(), Two(), loss_func=loss_for(None, given=AuxiliaryLoss()))
    fit(learn, 1, .01, cbs=[Distill(teacher()), Blend()])
    assert learn.recorder.losses[-1].isfinite()
