"Skeletons against the reference (golden/skeleton): graphs, transforms, pipelines, networks, results; files that are not trusted"
import math, pickle

import numpy as np
import pytest
import torch
from test_golden import check, check_parameters, folder, generator, read, state_of

from vidbook import presets
from vidbook.callbacks.multiview import average_views
from vidbook.data.heatmaps import heat_maps
from vidbook.data.item import Framing
from vidbook.data.skeleton import PoseSpec
from vidbook.data.skeleton_ops import bones, centred, compact_box, framed, motion, streams, upright
from vidbook.io.skeleton import Skeleton, SkeletonError, read_pickle
from vidbook.layers.graph import adjacency, layout_of
from vidbook.pretrained import load_weights

kinds = dict(stgcn_spatial='distance', spatial='direction', binary_adj='binary')
drawn = [[0, 1], [0, 2], [1, 3], [2, 4], [0, 5], [5, 7], [7, 9], [0, 6], [6, 8], [8, 10], [5, 11], [11, 13], [13, 15], [6, 12], [12, 14], [14, 16], [11, 12]]
facts = read('skeleton/transforms')


@pytest.mark.parametrize('name, fact', read('skeleton/adjacency')['graphs'].items())
def test_graphs(name, fact):
    layout, kind, *far = name.split('/'); want = torch.zeros(fact['shape'])
    for k, j, i, value in fact['nonzero']: want[k, j, i] = value
    torch.testing.assert_close(adjacency(layout, kinds[kind], 3 if far else 1), want)


# ---- transforms ----------------------------------------------------------------------------------------------------------------
def drawn_input(spec):
    "Draws of a named generator: normal, uniform, or joints in a picture"
    g, shape = generator(spec['rng']), spec['shape']
    if spec['dist'] == 'normal': return g.standard_normal(shape).astype(np.float32)
    if spec['dist'] == 'uniform(0,1)': return g.uniform(0, 1, shape).astype(np.float32)
    w, h = spec['w'], spec['h']
    return np.stack([g.uniform(.2*w, .8*w, shape[:3]), g.uniform(.1*h, .9*h, shape[:3])], -1).astype(np.float32)


def cases(*ops): return pytest.mark.parametrize('case', [c for c in facts['cases'] if c.get('op') in ops], ids=lambda c: c['name'])
def same(got, want, case): check(torch.from_numpy(np.ascontiguousarray(got)), want, case['rtol'], case['atol'])


@cases('PreNormalize2D', 'PreNormalize3D')
def test_places_and_directions(case):
    points, args = drawn_input(case['inputs']['keypoint']), case['args']
    absent = case['inputs'].get('zeroed_person_frame') or ()
    for place in [(slice(None),)] if absent == 'all' else map(tuple, absent): points[place] = 0
    size = (args.get('img_shape') or [1080, 1920])[::-1]
    got = centred(points, size) if '2D' in case['op'] else upright(points, spine=(0, 1) if args.get('align_spine', True) else None)
    same(got, case['outputs']['keypoint'], case)


@cases('JointToBone', 'ToMotion', 'GenSkeFeat')
def test_streams(case):
    i, args = case['inputs'], case['args']; points = drawn_input(i['keypoint'])
    if 'keypoint_score' in i: points = np.concatenate([points, drawn_input(i['keypoint_score'])[..., None]], -1)
    made = dict(JointToBone=bones, ToMotion=motion).get(case['op'])
    got = made(points, args['dataset']) if made else streams(points, args['feats'], args['dataset'])
    same(got, next(iter(case['outputs'].values())), case)


@cases('PoseCompact')
def test_box_of_people(case):
    i, args, (h, w) = case['inputs'], case['args'], case['inputs']['img_shape']; points = drawn_input(i['keypoint'])
    for place in i['zeroed']: points[tuple(place)] = 0
    for place in i['nan']: points[tuple(place)] = np.nan
    box = compact_box(points, (w, h), args.get('padding', .25), args.get('threshold', 10), args.get('hw_ratio'), args.get('allow_imgpad', False))
    size = box[2]-box[0], box[3]-box[1]
    assert list(size[::-1]) == case['outputs']['img_shape']
    points = np.nan_to_num(points)                                          # a coordinate of 0 stays there in the reference: it is none
    same(np.where(points == 0, 0, framed(points, Framing(box, size), range(17))), case['outputs']['keypoint'], case)


@cases('GeneratePoseTarget')
def test_heat_maps(case):
    i, args, want = case['inputs'], case['args'], case['outputs']['imgs']; points, scores = (drawn_input(i[k]) for k in ('keypoint', 'keypoint_score'))
    for place in i['score_zeroed']: scores[tuple(place)] = 0
    for place, value in i['keypoint_set'].items(): points[tuple(map(int, place.split(',')))] = value
    if not args.get('use_score', True): scores = np.ones_like(scores)
    scale = args.get('scaling', 1); size = [int(n*scale+.5) for n in i['img_shape'][::-1]]
    parts = [None]*args.get('with_kp', True)+[drawn]*args.get('with_limb', False)
    maps = [heat_maps(torch.from_numpy(points*scale), torch.from_numpy(scores), size, args['sigma'], o) for o in parts]
    maps = maps[0] if len(maps) == 1 else torch.cat([torch.maximum(*maps), torch.zeros_like(maps[0])])      # the reference draws one over the other
    if args.get('double'): maps = torch.cat([maps, maps.flip(-1)[list(layout_of('coco').mirror)]], 1)
    maps = maps.transpose(0, 1).numpy(); assert list(maps.shape) == want['shape']
    np.testing.assert_allclose([maps[tuple(o[:4])] for o in want['at']], [o[4] for o in want['at']], case['rtol'], case['atol'])
    assert math.isclose(maps.sum(), want['sum'], rel_tol=1e-4)


def item_of(index):
    "The skeletons that the recorded pipelines were given"
    m, t, h, w = ((1, 70, 240, 320), (2, 130, 360, 640))[index]; g = generator(f'input/poseitem{index}')
    start = np.stack([g.uniform(.2*w, .8*w, (m, 1, 17)), g.uniform(.1*h, .9*h, (m, 1, 17))], -1)
    points = (start+np.cumsum(g.normal(0, 1, (m, t, 17, 2)), 1)).astype(np.float32)
    return Skeleton(points, g.uniform(.05, 1, (m, t, 17)).astype(np.float32), (w, h))


@pytest.mark.parametrize('case', [c for c in facts['cases'] if c['name'].startswith('pipeline/')], ids=lambda c: c['name'])
def test_pipelines(case):
    "Tests of published configurations, from joints to what the network sees; of views in a mirror the dots end elsewhere, by a pixel"
    preset = presets.find(case['inputs']['config']); spec = preset.clip_spec(); several = '/test_pipeline/' in case['name']
    x = spec.test_pipeline(preset.views if several else None)(item_of(case['inputs']['index']))
    seen = spec.normalize()(x if several else x[None]).as_subclass(torch.Tensor).double().numpy()
    [want] = [v for v in case['outputs'].values() if isinstance(v, dict)]; assert list(seen.shape) == want['shape']
    at = np.linspace(0, seen.size-1, 64).astype(int); mirrored = (at >= seen.size//2) & (several and spec.double)
    got, value = seen.ravel()[at], np.array(want['sample'])
    np.testing.assert_allclose(got[~mirrored], value[~mirrored], case['rtol'], case['atol'])
    np.testing.assert_allclose(got[mirrored], value[mirrored], atol=.012)
    assert math.isclose(seen.sum(), want['sum'], rel_tol=1e-3 if mirrored.any() else 1e-4)


# ---- networks and results ------------------------------------------------------------------------------------------------------
zoo = {e['config']: e for e in read('skeleton/zoo')}
networks = {n: read(f'skeleton/{n}') for n in (p.name.removesuffix('.json.gz') for p in sorted((folder/'skeleton').iterdir())) if 'u48' in n or 'u100' in n}


def drawn_tensor(spec): return torch.from_numpy(generator(spec['rng']).standard_normal(spec['shape']).astype(np.float32))


@pytest.mark.parametrize('name', [n for n, fact in networks.items() if fact['cases']])
@torch.no_grad()
def test_network(name):
    fact = networks[name]; preset = presets.find(fact['config']); net = preset.model().eval()
    check_parameters(net, fact)
    load_weights(net, state_of(fact))
    forward, loss, views = ({c['name']: c for c in fact['cases']}[n] for n in ('forward', 'loss', 'predict_2clips'))
    x = drawn_tensor(next(iter(forward['inputs'].values())))[:, 0]; logits = net(x)
    for got, key in ((net.features(x), 'feat'), (logits, 'cls_score')): check(got, forward['outputs'][key], forward['rtol'], forward['atol'])
    losses = preset.loss()(logits, torch.tensor(loss['inputs']['labels']))
    for key, want in loss['outputs'].items(): check(losses[key], want, loss['rtol'], loss['atol'])
    [clips] = drawn_tensor(next(v for v in views['inputs'].values() if isinstance(v, dict)))
    want = views['outputs']['pred_score']
    check(average_views(net(clips)[None], preset.average)[0], want, 5e-3, min(views['atol'], 1e-3*want['std']))


@pytest.mark.parametrize('name', [n for n, fact in networks.items() if not fact['cases']])
def test_manifest(name):
    with torch.device('meta'):
        net = presets.find(networks[name]['config']).model()
        load_weights(net, {k: torch.empty(shape, dtype=getattr(torch, kind)) for k, shape, kind in networks[name]['state']})
    check_parameters(net, networks[name])


def published(steps, name): return next((o for o in steps if o['transform'] == name), {})


@pytest.mark.parametrize('e', zoo.values(), ids=lambda e: e['config'])
def test_presets_are_as_published(e):
    p, r = presets.find(e['config']), e['recipe']; spec, train, test = p.clip_spec(), r['train'], r['test']
    assert p.urls[0] == e['weights_url'] and [*p.metrics.values()] == [*e['results'][0]['metrics'].values()] and p.paper == e['paper_url']
    assert abs(sum(o.numel() for o in p.model().parameters())/1e6-float(e['params'].rstrip('M'))) < .06
    opt = r['optimizer']; assert (p.base_lr, p.weight_decay, p.opt_kw.get('nesterov', False)) == (opt['lr'], opt['weight_decay'], opt.get('nesterov', False))
    assert p.batch == r.get('batch_size_per_gpu', p.batch) and p.base_batch == 8*p.batch and p.fit.epochs == r['max_epochs']*r.get('repeat_times', 10)
    assert p.clip_grad == (r['clip_grad'] or {}).get('max_norm') and p.init == r['load_from']
    if not train: return                                                        # the record of one configuration ends here
    assert (spec.sample.kind, spec.sample.clip.clip_len, p.views.clips) == ('whole', train['sampling']['clip_len'], test['sampling']['num_clips'])
    if p.arch.__name__ == 'stgcn':
        assert [*spec.streams] == published(train['spatial'], 'GenSkeFeat')['feats'] and spec.layout == published(train['spatial'], 'GenSkeFeat')['dataset']
        return
    target = published(test['spatial'], 'GeneratePoseTarget')
    assert (spec.heat == 'limbs', spec.double) == (target['with_limb'], target['double']) and target.get('sigma', .6) == spec.sigma
    if spec.limbs: assert [*map(list, spec.limbs)] == target['skeletons']
    sides = [o['scale'] for o in train['spatial'] if o['transform'] == 'Resize']
    assert sides[1] == [spec.size]*2 and max(published(test['spatial'], 'Resize')['scale']) == spec.test_size     # the size before the cut: mere rounding
    assert dict(spec.train_tfms)['RandomResizedCrop']['area'] == tuple(published(train['spatial'], 'RandomResizedCrop')['area_range'])


by_pipeline = {repr(p.clip_spec()): p for p in map(presets.find, zoo)}


@pytest.mark.parametrize('p', by_pipeline.values(), ids=lambda p: p.name)
def test_every_preset_makes_its_clips(p):
    spec, person, rng = p.clip_spec(), item_of(0), np.random.default_rng(0)
    if spec.layout == 'nturgb+d': person = Skeleton(rng.normal(0, 1, (2, 50, 25, 3)).astype(np.float32))
    def seen(pipeline, split, seed=0):
        x = pipeline(person, np.random.default_rng(seed))
        return spec.normalize()(x[None], split_idx=split)[0] if spec.heat else x
    train, test = seen(spec.train_pipeline(), 0), seen(spec.test_pipeline(), 1)
    joints, n = len(layout_of(spec.layout)), p.sample.clip.clip_len
    assert train.shape == spec.shape() == ((17, n, p.size, p.size) if spec.heat else (2, n, joints, 3))
    assert test.shape == spec.shape(test=True) == ((17, n, p.test_size, p.test_size) if spec.heat else (2, n, joints, 3))
    assert torch.equal(train, seen(spec.train_pipeline(), 0)) and not torch.equal(train, seen(spec.train_pipeline(), 0, 1))
    assert train.isfinite().all() and train.std() > .01 and (not spec.heat or 0 <= train.min() < train.max() <= 1)


# ---- what must not happen ---------------------------------------------------------------------------------------
class Evil:
    def __init__(self, folder): self.folder = folder
    def __reduce__(self): return open, (str(self.folder/'evil'), 'w')


def test_pickles_run_nothing(tmp_path):
    for what in (Evil(tmp_path), dict(annotations=[Evil(tmp_path)]), np.array([Evil(tmp_path)], object), np.random.default_rng(0), range, torch.zeros(2)):
        for protocol in range(6):
            (tmp_path/'a.pkl').write_bytes(pickle.dumps(what, protocol))
            with pytest.raises(SkeletonError, match='is not read'): read_pickle(tmp_path/'a.pkl')
    assert not (tmp_path/'evil').exists()


def test_damaged_pickles_are_told(tmp_path):
    rng, whole = np.random.default_rng(0), pickle.dumps(dict(annotations=[dict(frame_dir='a', keypoint=np.ones((1, 3, 17, 2), np.float16))]))
    for n in range(0, len(whole)-1, 7): (tmp_path/'a.pkl').write_bytes(whole[:n]); pytest.raises(SkeletonError, read_pickle, tmp_path/'a.pkl')
    for _ in range(300):
        data = bytearray(whole); data[rng.integers(len(data))] = rng.integers(256)
        (tmp_path/'a.pkl').write_bytes(data)
        try: read_pickle(tmp_path/'a.pkl')
        except SkeletonError: pass


def test_a_skeleton_of_another_layout_is_refused():
    with pytest.raises(Exception, match="give layout='nturgb\\+d'"): PoseSpec().test_pipeline()(Skeleton(np.ones((1, 9, 25, 3), np.float32)))
