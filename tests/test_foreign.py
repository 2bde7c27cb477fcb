"""Weights of other projects: every file of tests/golden/foreign finds its network (networks.py), and where numbers were recorded they are the same.

The files hold names and shapes; tensors are filled as in test_golden.py, under the foreign names."""
import re

import pytest
import torch
from networks import found, starts, weights
from test_golden import check, folder, generator, read, state_of, tolerance

from vidbook.pretrained import init_from, load_weights

files = {p.name.removesuffix('.json.gz'): read(f'foreign/{p.name.removesuffix(".json.gz")}') for p in sorted((folder/'foreign').iterdir())}
layouts = dict(NCTHW=(0, 1, 2, 3, 4), NTCHW=(0, 2, 1, 3, 4))


def foreign_state(facts):
    "The filled state dict; what stands there under two names is one tensor"
    state = state_of(facts)
    return {**state, **{a: state[b] for a, b in facts.get('aliases', ())}}


def empty_state(facts): return {k: torch.empty(shape, dtype=getattr(torch, kind)) for k, shape, kind in facts['state'] if k not in facts.get('constants', ())}


def clip_of(spec):
    "The recorded input, as a batch of clips"
    return torch.from_numpy(generator(spec['rng']).standard_normal(spec['shape']).astype('float32')).permute(layouts[spec['layout']])


def test_every_file_is_tried(): assert {*files} == {*weights} | {name for name, _ in starts}


@pytest.mark.parametrize('name', [n for n in weights if not files[n].get('cases')])
def test_names(name):
    "All that the network needs is there, and all that is there is needed"
    file = weights[name]
    with torch.device('meta'): load_weights(found[file.arch](**file.kw), empty_state(files[name]))


@pytest.mark.parametrize('name', [n for n in weights if files[n].get('cases')])
@torch.no_grad()
def test_numbers(name):
    file, facts = weights[name], files[name]; net = found[file.arch](**file.kw).eval()
    load_weights(net, dict(model_state={f'module.{k}': v for k, v in foreign_state(facts).items()}, cfg='', meta=dict(CLASSES=('a',))))
    case = facts['cases'][0]; (kind, want), *_ = [o for o in case['outputs'].items() if o[0] in ('cls_score', 'projection', 'prob')]
    logits = net(clip_of(case['inputs']['imgs']))
    check(logits.softmax(-1) if kind == 'prob' else logits, want, *tolerance(case))


@pytest.mark.parametrize('name, file', starts, ids=lambda o: o if isinstance(o, str) else o.arch)
def test_starts(name, file):
    "Nothing but what is expected stays as it was"
    with torch.device('meta'): report = init_from(found[file.arch](**file.kw), empty_state(files[name]))
    for row in report.itertuples(): assert (row.status == 'left') == bool(re.search(file.left, row.name)), row.name
