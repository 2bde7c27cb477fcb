"""Networks, losses and metrics against facts read off MMAction2 1.2.0 (tests/golden).

No weights travel: every tensor of a network is filled from a generator seeded with its name in the reference, inputs likewise.
A file of golden/models lists names and shapes of the parameters, and for some inputs 64 values and three statistics of the outputs;
one without such cases is checked without memory (device meta), so that any size may be there."""
import gzip, json, math, re, zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from vidbook import presets
from vidbook.callbacks.multiview import average_views
from vidbook.losses import ClassificationLoss, MultiLabelLoss
from vidbook.metrics import recognition as metrics
from vidbook.models.resnet import torchvision_keys
from vidbook.pretrained import WeightsError, init_from, load_weights

folder = Path(__file__).parent/'golden'


def read(name): return json.loads(gzip.decompress((folder/f'{name}.json.gz').read_bytes()))
def generator(key): return np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))


def filled(key, shape):
    "The tensor that the reference had under `key`"
    g = generator(key)
    if key.endswith('running_var'): v = g.uniform(.5, 1.5, shape)
    elif key.endswith('running_mean'): v = .1*g.standard_normal(shape)
    elif len(shape) > 1: v = g.standard_normal(shape)/math.sqrt(max(1, math.prod(shape[1:])))
    elif key.endswith(('weight', 'gamma')): v = g.uniform(.5, 1.5, shape)
    else: v = .1*g.standard_normal(shape)
    return torch.from_numpy(np.asarray(v, np.float32).reshape(shape))


def state_of(facts, complete=True):
    "The filled state dict without computed constants; integer counters are zeros, and absent unless `complete`"
    kinds = [e for e in facts['state'] if e[0] not in facts.get('constants', ()) and (complete or e[2].startswith('float'))]
    state = {k: filled(k, shape) if kind.startswith('float') else torch.zeros(shape, dtype=getattr(torch, kind)) for k, shape, kind in kinds}
    for part, factor in facts.get('fill_overrides', ()):
        for k in state: state[k] = state[k]*factor if part in k else state[k]
    return state


def clip_of(spec, segments=None):
    "An input, as views of one clip each: (views, C, T, H, W)"
    x = torch.from_numpy(generator(spec['rng']).standard_normal(spec['shape']).astype(np.float32))
    if spec['layout'] in ('N,views,C,T,H,W', 'N,clips,C,T,F'): return x.flatten(0, 1)
    return x.unflatten(1, (-1, segments or x.shape[1])).flatten(0, 1).transpose(1, 2)      # N, views*segments, C, H, W


def shorter(shape): return [n for n in shape if n != 1]


def check(got, want, rtol, atol):
    "Compare a tensor with the recorded sample and statistics"
    got = got.double().numpy(); assert shorter(got.shape) == shorter(want['shape'])
    flat = got.ravel(); at = np.linspace(0, flat.size-1, min(flat.size, 64)).astype(int)
    np.testing.assert_allclose(flat[at], want['sample'], rtol, atol)
    for name, value in (('mean', flat.mean()), ('std', flat.std()), ('absmax', np.abs(flat).max())):
        assert abs(value-want[name]) <= atol+rtol*want['absmax'], name


def tensors(out): return [out] if isinstance(out, torch.Tensor) else [t for o in out for t in tensors(o)]
def preset_of(facts): return presets.find(facts['config']+(f':{facts["variant"]}' if 'variant' in facts else ''))
def tolerance(case): return case['rtol'], case['atol']


def check_parameters(net, facts):
    "As many as the reference has; constants that it counts and does not learn may be absent"
    constant = sum(math.prod(shape) for k, shape, _ in facts['state'] if k in facts.get('constants', ()))
    assert sum(p.numel() for p in net.parameters()) in (facts['num_params'], facts['num_params']-constant)


class Case:
    "A network on one of the recorded inputs"
    def __init__(self, net, case):
        self.net, self.inputs = net, case['inputs']
        self.spec = next(v for v in self.inputs.values() if isinstance(v, dict) and 'rng' in v)
        self.x = clip_of(self.spec)
        self.kw = {'relations': {int(k): v for k, v in r.items()} for r in [self.inputs.get('relation_indices')] if r}

    def logits(self): return tensors(self.net(self.x, **self.kw))[0]

    def check_features(self, cases):
        "Each tensor of the features has a case; those of 2-D networks have frames in the batch"
        features = tensors(self.net.features(self.x)); assert len(features) == len(cases)
        for got, case in zip(features, sorted(cases, key=lambda c: c['name'])):
            [want] = case['outputs'].values()
            if got.shape[0] != want['shape'][0]: got = got.transpose(1, 2).flatten(0, 1)
            check(got, want, *tolerance(case))

    def check_loss(self, preset, case):
        "The losses of the training-mode outputs, every layer as in evaluation"
        if len([k for k in case['outputs'] if 'loss' in k]) > 1:
            for m in self.net.modules(): m.training = bool(len(list(m.children()))) and not type(m).__module__.startswith('torch.nn.')
        loss = preset.loss()(self.net(self.x, **self.kw), torch.tensor(case['inputs']['labels']))
        for key, want in case['outputs'].items(): check(loss[re.sub(r'_\d$', '', key)], want, *tolerance(case))

    def check_views(self, case, logits, pooled):
        "The same numbers as views of one video; a network that pools features over views has probabilities of the mean score"
        assert torch.equal(clip_of(next(v for v in case['inputs'].values() if isinstance(v, dict) and 'rng' in v), self.spec['shape'][1]), self.x)
        how, want = case['inputs']['average_clips'], case['outputs']['pred_score']
        got = average_views(logits[None], 'score' if pooled else how)[0]
        if how == 'score': return check(got, want, *tolerance(case))
        check(got.softmax(-1) if pooled else got, want, 5e-3, min(case['atol'], 1e-3*want['std']))


fixtures = {p.name.removesuffix('.json.gz'): read(f'models/{p.name.removesuffix(".json.gz")}') for p in sorted((folder/'models').iterdir())}


@pytest.mark.parametrize('name', [n for n, facts in fixtures.items() if facts.get('cases')])
@torch.no_grad()
def test_network(name):
    facts = fixtures[name]; preset = preset_of(facts); net = preset.model().eval()
    check_parameters(net, facts)
    load_weights(net, state_of(facts))
    cases = {c['name']: c for c in facts['cases']}
    for kind in ('', '_other_size'):
        if f'forward{kind}' not in cases: continue
        case = Case(net, cases[f'forward{kind}']); logits = case.logits()
        check(logits, cases[f'forward{kind}']['outputs']['cls_score'], *tolerance(cases[f'forward{kind}']))
        case.check_features([c for n, c in cases.items() if re.fullmatch(rf'backbone{kind}(_feat)?(_\d)*', n)])
        if kind: continue
        pooled = facts['algorithm'] in ('TSN', 'C2D') and case.spec['layout'].startswith('N,views*segments')
        if facts['algorithm'] == 'TSN': assert preset.average == 'score'        # which is what pooling features means
        for how in ('prob', 'score'): case.check_views(cases[f'predict_{how}'], logits, pooled)
        case.check_loss(preset, cases['loss'])


@pytest.mark.parametrize('name', [n for n, facts in fixtures.items() if not facts.get('cases')])
def test_manifest(name):
    facts = fixtures[name]
    with torch.device('meta'):
        net = preset_of(facts).model()
        load_weights(net, {k: torch.empty(shape, dtype=getattr(torch, kind)) for k, shape, kind in facts['state']})
    check_parameters(net, facts)


def test_incomplete_weights_are_refused():
    facts = read('models/tsm_r50_1x1x8'); net = presets.find(facts['config']).model()
    state = {k: torch.zeros(shape) for k, shape, kind in facts['state'] if kind.startswith('float')}
    load_weights(net, state)
    middle = list(state)[len(state)//2]
    without = {k: v for k, v in state.items() if k != middle}
    for broken in (without, {**state, 'made_up.weight': torch.zeros(3)}, {**state, middle: torch.zeros(7)}):
        with pytest.raises(WeightsError): load_weights(net, broken)


@pytest.mark.parametrize('preset', ['tsm_r50_k400_1x1x8', 'slowonly_r50_k400_4x16_in1k'])
def test_start_from_torchvision(preset):
    "Each tensor of the body comes from the torchvision tensor of the same place; kernels that gain a time axis are spread over it"
    facts, net = read('foreign/torchvision__resnet50'), getattr(presets, preset).model()
    def tensor(key, shape): return torch.tensor(float(zlib.crc32(key.encode()) % 1000)).expand(shape)
    state = {k: tensor(k, shape) for k, shape, kind in facts['state'] if kind.startswith('float')}
    report = init_from(net, state).set_index('name'); own = net.state_dict()
    assert set(report.index[report.status == 'left']) == {'head.fc_cls.weight', 'head.fc_cls.bias'}
    assert set(report.file) >= set(state)-{'fc.weight', 'fc.bias'}
    assert (report.status == 'inflated').sum() == sum(v.ndim == 5 for v in own.values())
    for name, row in report[report.status != 'left'].iterrows():
        value, t = own[name], own[name].shape[2] if row.status == 'inflated' else 1
        assert value.min() == value.max() == state[row.file].flatten()[0]/t
        new = row.file
        for pattern, replacement in torchvision_keys: new = re.sub(pattern, replacement, new)
        assert new == name


# ---- losses and metrics --------------------------------------------------------------------------------------------------------
facts = read('metrics_recognition')


def array(spec):
    "A literal, or draws from a named generator"
    if isinstance(spec, list): return np.array(spec)
    call, g = spec['call'], generator(spec['rng']); kind = re.search('standard_normal|random|integers', call)[0]
    nums = [int(n) for n in re.findall(r'\d+', re.search(r'(?:standard_normal|random|integers)\(\(?([\d, ]+)', call)[1])]
    v = g.integers(*nums) if kind == 'integers' else getattr(g, kind)(tuple(nums))
    if '< ' in call: v = (v < float(re.search(r'< ([\d.]+)', call)[1])).astype(int)
    if 'then labels' in call: v[np.arange(len(v)), np.arange(len(v)) % v.shape[1]] = 1
    return v


@pytest.mark.parametrize('case', facts['single_label']+facts['edge_cases'], ids=lambda c: c['name'])
def test_single_label(case):
    scores, labels = array(case['scores']).astype(float), array(case['labels'])
    ks = [int(k) for k in case['top_k_accuracy']]
    if not case['name'].startswith('ties'):             # the reference's order of equal scores is NumPy's whim
        np.testing.assert_allclose(metrics.top_k_accuracy(scores, labels, ks), list(case['top_k_accuracy'].values()), atol=1e-9)
    np.testing.assert_allclose(metrics.mean_class_accuracy(scores, labels), case['mean_class_accuracy'], atol=1e-9)
    pred = np.array(case.get('pred', scores.argmax(1)))
    for norm in (None, 'true', 'pred', 'all'):
        want, got = case['confusion_matrix'+(f'_{norm}' if norm else '')], metrics.confusion_matrix(pred, labels, norm)
        if isinstance(want, list): np.testing.assert_allclose(got, want, atol=1e-9)
        else: np.testing.assert_allclose(np.diag(got), want['diag'], atol=1e-9)
    whole = case.get('ConfusionMatrix')                 # with a row for every class
    if whole: np.testing.assert_allclose(metrics.confusion_matrix(pred, labels, n_classes=len(whole)), whole)


@pytest.mark.parametrize('case', facts['multi_label'], ids=lambda c: c['name'])
def test_multi_label(case):
    scores, labels = array(case['scores']).astype(float), array(case['labels'])
    for name in ('mean_average_precision', 'mmit_mean_average_precision'):
        np.testing.assert_allclose(getattr(metrics, name)(scores, labels), np.nan if case[name] is None else case[name], atol=1e-9)


entries = [e for e in facts['losses']['entries'] if e['loss']['type'] != 'CBFocalLoss']     # that one comes with the skeletons


@pytest.mark.parametrize('entry', entries, ids=lambda e: str(e['loss']))
def test_losses(entry):
    def draw(name): return torch.from_numpy(generator(name).standard_normal((6, 5)).astype(np.float32))
    kw = {dict(loss_weight='weight').get(k, k): v for k, v in entry['loss'].items() if k != 'type'}
    labels = entry['labels']
    if isinstance(labels, list): labels = torch.tensor(labels)
    elif labels.startswith('softmax'): labels = draw('input/soft').softmax(1)
    else: labels = torch.from_numpy(generator('input/manyhot').random((6, 5)) < .4)
    loss = (ClassificationLoss if entry['loss']['type'] == 'CrossEntropyLoss' else MultiLabelLoss)(**kw)
    np.testing.assert_allclose(loss(draw('input/logits'), labels)['loss_cls'].item(), entry['out'], rtol=1e-5)
