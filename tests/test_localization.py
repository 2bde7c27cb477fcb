"Localization against facts read off the reference (golden/localization): recall, precision, suppression, labels, and BMN on its own filled weights"
import json

import numpy as np
import pandas as pd
import pytest
import torch

from test_golden import check, generator, read, state_of
from vidbook import presets
from vidbook.cli.core import main
from vidbook.data.segments import by_video, read_activitynet, read_segment_results, segment_shares
from vidbook.learner.localize import find_proposals
from vidbook.metrics.localization import average_recall, detection_map, soft_nms, temporal_iou
from vidbook.models.bmn import BMNLoss, bmn, bmn_labels
from vidbook.pretrained import WeightsError, load_weights

tables = {k: read(f'localization/{k}') for k in ('bmn', 'metrics', 'transforms')}
def cases(table, prefix): return [c for c in tables[table]['cases'] if c['name'].startswith(prefix)]
def named(c): return c['name']


def close(got, want, atol=1e-9):
    "Against a value, or 64 samples of an array"
    got = np.asarray(got, float)
    if not isinstance(want, dict): np.testing.assert_allclose(got, want, atol=atol, rtol=0); return
    assert list(got.shape) == want['shape']
    np.testing.assert_allclose(got.ravel()[np.linspace(0, got.size-1, min(64, got.size)).astype(int)], want['sample'], atol=atol, rtol=0)


def example():
    "Truth, proposals and classes by the recipe in the file"
    truth, found, classes, guesses = {}, {}, {}, {}
    for k in range(200):
        v, r, n = f'v{k:03d}', generator(f'anet_a/{k}'), 1+k%4
        a, l = r.uniform(0, 80, n), r.uniform(2, 40, n); truth[v], classes[v] = np.stack([a, a+l], -1), r.integers(0, 20, n)
        g = r.integers(0, n, 100); off = r.normal(0, 1, (100, 2))*r.uniform(.2, 8, (100, 1)); p = np.sort(np.clip(truth[v][g]+off, 0, 130), -1); p[:, 1] += .1
        s = np.exp(-np.abs(off).sum(-1)/6)*r.uniform(.5, 1, 100); s = np.round(s, 3) if k%3 == 0 else s
        found[v], guesses[v] = np.c_[p, s], np.where(r.random(100) < .85, classes[v][g], r.integers(0, 20, 100))
    return truth, found, classes, guesses


@pytest.mark.parametrize('case', cases('metrics', 'average_recall'), ids=named)
def test_average_recall(case):
    "To the last digit: equal scores come in the reference's order"
    truth, found, *_ = example(); args, want = case['inputs']['args'], case['outputs']
    kw = dict(tious=args['temporal_iou_thresholds']) if 'temporal_iou_thresholds' in args else {}
    recall, average, per_video, auc = average_recall(truth, found, args.get('max_avg_proposals'), **kw)
    for got, name in ((recall, 'recall'), (average, 'average_recall'), (per_video, 'proposals_per_video'), (auc, 'auc')): close(got, want[name])


def test_detection_map(tmp_path):
    truth, found, classes, guesses = example()
    table = lambda o, labels, names: pd.concat([pd.DataFrame(a, columns=names).assign(video=v, label=[f'c{c}' for c in labels[v]]) for v, a in o.items()])
    (case,) = cases('metrics', 'ActivityNetLocalization/anet_a')
    close(detection_map(table(truth, classes, ['start', 'end']), table(found, guesses, ['start', 'end', 'score'])), case['outputs']['mAP'])
    for name, content in tables['transforms']['evaluation'].items(): (tmp_path/f'{name}.json').write_text(json.dumps(content), encoding='utf-8')
    (case,) = cases('metrics', 'ActivityNetLocalization/repo_data')
    close(detection_map(read_activitynet(tmp_path/'truth.json'), read_segment_results(tmp_path/'results.json')), case['outputs']['mAP'])


@pytest.mark.parametrize('case', cases('transforms', 'soft_nms'), ids=named)
def test_soft_nms(case):
    i, r = case['inputs'], generator('nms/'+case['name'].split('/')[1]); a, l, s = r.uniform(0, .8, i['n']), r.uniform(.02, .5, i['n']), r.uniform(0, 1, i['n'])
    got = soft_nms(np.c_[a, np.minimum(1, a+l), s], i['alpha'], i['low_threshold'], i['high_threshold'], i['top_k']+1)     # the reference gives one more
    close(got, case['outputs']['soft_nms'], atol=1e-8)


def test_overlap_of_segments():
    (case,) = cases('metrics', 'pairwise_temporal_iou/self=False'); a, b = (np.sort(generator(f'ptiou/{k}').uniform(0, 1, (n, 2)), -1) for k, n in (('c', 7), ('g', 4)))
    close(temporal_iou(b, a), case['outputs']['o0'], atol=1e-6)


@pytest.mark.parametrize('case', cases('transforms', 'GenerateLocalizationLabels'), ids=named)
def test_shares_of_a_video(case, tmp_path):
    (tmp_path/'a.json').write_text(json.dumps(dict(v_a=case['inputs'])), encoding='utf-8')
    df = read_activitynet(tmp_path/'a.json', clip=True)
    close(segment_shares(by_video(df)['v_a'], df['duration'].iloc[0]), case['outputs']['gt_bbox'], atol=1e-6)


@pytest.mark.parametrize('case', cases('transforms', 'bmn_labels'), ids=named)
def test_labels_of_bmn(case):
    overlap, start, end = bmn_labels([torch.tensor(case['inputs']['gt_bbox'])])
    for got, name in ((overlap, 'gt_iou_map'), (start, 'gt_start'), (end, 'gt_end')): check(got, case['outputs'][name], 1e-5, 1e-6)
    assert int((overlap > .5).sum()) == case['outputs']['gt_iou_map']['count_over_half']


@pytest.fixture(scope='module')
def network():
    net = bmn().eval(); load_weights(net, state_of(tables['bmn']))
    return net


def test_bmn(network, monkeypatch):
    case, loss = {c['name']: c for c in tables['bmn']['cases']}, BMNLoss()
    x = torch.from_numpy(generator('input/raw_feature').standard_normal((2, 400, 100)).astype(np.float32))
    with torch.no_grad(): out = network(x)
    for got, want in zip(out, case['forward']['outputs'].values()): check(got, want, 1e-3, 1e-4)
    segments = [torch.tensor(o) for o in case['loss']['inputs']['gt_bbox']]
    monkeypatch.setattr(torch, 'rand_like', lambda t, **kw: torch.full_like(t, .5, **kw))
    parts, want = loss(out, segments), {k: v['sample'][0] for k, v in case['loss']['outputs'].items()}
    scale = dict(loss_edges=('tem_loss', 1), loss_overlap=('pem_reg_loss', 10), loss_match=('pem_cls_loss', 1))
    for k, (name, weight) in scale.items(): assert float(parts[k]) == pytest.approx(weight*want[name], rel=1e-4)
    assert float(sum(parts.values())) == pytest.approx(want['total'], rel=1e-4)


def test_proposals_of_bmn(network):
    "Segments in seconds, as the reference writes them for the first video"
    (case,) = [c for c in tables['bmn']['cases'] if c['name'] == 'predict']
    x = torch.from_numpy(generator('input/raw_feature').standard_normal((2, 400, 100)).astype(np.float32))
    with torch.no_grad(): (found,) = find_proposals(network(x[:1]), [case['inputs']['meta']['duration_second']])
    close(found[:, [2, 0, 1]], case['outputs']['score_start_end_of_proposals'], case['atol'])


def test_presets():
    for name, params in (('bmn_2xb8-400x100-9e_activitynet-feature', 4978564), ('bmn_2xb8-2048x100-9e_activitynet-slowonly-k700-feature', 5294980)):
        assert sum(o.numel() for o in presets.find(name).model().parameters()) == params


def test_bmn_refuses_other_weights(network):
    state = state_of(tables['bmn'], complete=False); key = 'x_3d_p.0.weight'
    for broken in ({k: v for k, v in state.items() if k != key}, state | {key: state[key][:9]}, state | {'made_up.weight': torch.zeros(3)}):
        with pytest.raises(WeightsError): load_weights(network, broken)


def test_commands(tmp_path, capsys):
    "A table in a file, features beside it: trained, tested, and told what makes no sense here"
    (tmp_path/'features').mkdir()
    rows = [dict(video=f'v_{k}', start=2, end=9, label='loud', split='train' if k < 4 else 'valid', duration=20.) for k in range(6)]
    pd.DataFrame(rows).to_csv(tmp_path/'parts.csv', index=False)
    for o in rows: np.save(tmp_path/f'features/{o["video"]}.npy', np.random.default_rng(0).standard_normal((20, 16), np.float32))
    small = ['arch=bmn.bmn_slim', *(f'arch_kw.{o}' for o in ('n_features=16', 'n_snippets=20', 'nf=16', 'n_map=8', 'n_match=16', 'n_samples=8')),
             'loss_kw.n_snippets=20', 'batch=2', 'epochs=1']
    def said(*words): status = main([str(o) for o in words]); return status, ''.join(capsys.readouterr())
    for told in 'AR@10', 'is done already':
        status, text = said('train', 'bmn_activitynet_cuhk', tmp_path/'parts.csv', '--set', *small, '--workers', '0', '--out', tmp_path/'made')
        assert status == 0 and told in text and 'bmn_slim' in text and 'classes' not in text
    network = ('test', 'bmn_activitynet_cuhk', tmp_path/'parts.csv', '--set', *small, '--workers', '0', '--weights', tmp_path/'made/model.safetensors')
    status, text = said(*network)
    assert status == 0 and [o.split()[0] for o in text.splitlines()[-4:]] == ['loss', 'AR@1', 'AR@10', 'AR@100']
    assert said('test', tmp_path/'made', tmp_path/'parts.csv', '--workers', '0')[1].splitlines()[-3:] == text.splitlines()[-3:]
    assert 'leave --split, --views and --out away' in said(*network, '--views', '2x1')[1]
    pd.DataFrame(rows).assign(video=[f'{o["video"]}.npy' for o in rows]).to_csv(tmp_path/'features/snippets.csv', index=False)      # as `vidbook features` leaves it
    assert said('test', tmp_path/'made', tmp_path/'features/snippets.csv', '--workers', '0')[1].splitlines()[-3:] == text.splitlines()[-3:]
