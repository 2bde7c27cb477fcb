"""The presets against what was published: golden/zoo_recognition.json.gz holds addresses, results and recipes of MMAction2's configurations, 1.x and 0.x."""
import math, re

import pytest
import torch
from test_golden import read

from vidbook import presets

zoo = read('zoo_recognition')
new = [e for e in zoo['new'] if not e.get('duplicate')]
old = {name: [e for e in zoo['old'] if e['config'] == name] for name in dict.fromkeys(e['config'] for e in zoo['old'])}      # a name may have several rows


def name_of(e): return e['config']+(f':{e["variant"]}' if 'variant' in e else '')
def known(name):
    try: return presets.find(name)
    except KeyError: return None


def test_every_configuration_is_a_preset(): assert [name_of(e) for e in new if not known(name_of(e))] == []
def test_every_older_name_is_a_preset(): assert [name for name in old if not known(name)] == []


# ---- facts that have one form -----------------------------------------------------------------------------------------------------
# the reference's index gives this network the file of the base one; its own is in the table beside it
_small = 'videomaev2/{0}/{0}_20230510-25c748fd.pth'.format('vit-small-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400')
misprinted = {'vit-small-p16_videomaev2-vit-g-dist-k710-pre_16x4x1_kinetics-400': f'https://download.openmmlab.com/mmaction/v1.0/recognition/{_small}'}


def weights_of(e):
    "Address, top-1 and top-5 of a row; rows with two protocols name the better one first"
    found = [r['metrics'] for r in e.get('results', ())] or [{}]
    return misprinted.get(e['config'], (e.get('weights_url') or '').strip('()') or None), found[0].get('Top 1 Accuracy'), found[0].get('Top 5 Accuracy', found[0].get('top5 accuracy'))


def own_weights(p): return p.urls[0] if p.urls else None, p.metrics.get('top1'), p.metrics.get('top5')


def close(a, b): return len(a) == len(b) and all(math.isclose(x, y, abs_tol=1e-3) for x, y in zip(a, b))


def check_sampling(sampling, facts):
    "Frames of a clip, where they lie, how often"
    kinds = dict(SampleFrames='segments', DenseSampleFrames='dense', UniformSample='uniform', UniformSampleFrames='uniform')
    assert sampling.kind == kinds[facts['transform']]
    assert sampling.clip.clip_len == facts['clip_len'] and sampling.clip.interval in (1, facts.get('frame_interval', 1))
    if facts['clip_len'] > 1 and 'frame_interval' in facts: assert sampling.clip.interval == facts['frame_interval']
    assert sampling.twice == bool(facts.get('twice_sample'))


def check_views(p, facts):
    "Clips and crops of the test, and the size that it sees"
    crops = dict(CenterCrop=1, ThreeCrop=3, TenCrop=10)[facts['crop']['transform']]
    assert p.views.crops == crops and (p.test_size or p.size) == facts['crop']['crop_size']
    assert p.short_side == facts['spatial'][0]['scale'][1]
    sampling = p.test_sample or p.sample
    n = facts['sampling'].get('num_clips', 1)
    assert (sampling.clip.n, p.views.clips) in ((n, 1), (1, n)), (sampling, p.views)


# ---- transforms and recipes -------------------------------------------------------------------------------------------------------
def tfms_of(spatial):
    "Published steps as names of transforms; the decoder does the first resizing, crops bring their size"
    names = [s.get('op', s['transform']) for s in spatial if s['transform'] != 'Resize']
    return [dict(RandomRescale='RandomResize').get(n, n) for n in names]


def check_tfms(p, facts):
    names = [n for n, _ in p.train_tfms if n != 'Resize']; published = tfms_of(facts['spatial'])
    assert [n for n in names if n != 'Blend'] == published
    for (name, kw), s in zip([t for t in p.train_tfms if t[0] not in ('Blend', 'Resize')], [s for s in facts['spatial'] if s['transform'] != 'Resize']):
        if name == 'MultiScaleCrop':
            assert kw.get('n_fixed', 5) == s.get('num_fixed_crops', 5)
            assert list(kw.get('scales', (1, .875, .75, .66))) == s['scales'] and kw.get('max_gap', 1) == s['max_wh_scale_gap']


def rate(schedulers, t, n, base):
    "Learning rate at iteration t, n of them an epoch, after MMEngine's schedulers, each of which changes what the one before gave"
    lr = base
    for s in schedulers:
        step, unit = (t, n) if s.get('convert_to_iter_based') or not s['by_epoch'] else (t//n, 1)
        begin, end = s.get('begin', 0)*unit, s.get('end', 1e9)*unit
        if step < begin: continue
        i = min(step, end-1)-begin
        if s['type'] == 'LinearLR': lr *= s['start_factor']+(1-s['start_factor'])*min(1, i/max(1, end-begin-1))
        elif s['type'] == 'MultiStepLR': lr *= s['gamma']**sum(i >= m*unit for m in s['milestones'])
        else:
            low, length = s.get('eta_min', s.get('eta_min_ratio', 0)*base), s.get('T_max', s.get('end', 0)-s.get('begin', 0))*unit
            lr = low+(lr-low)*(1+math.cos(math.pi*min(i, length)/length))/2
    return lr


def check_schedule(p, recipe):
    "The same rate at some iterations, to a hundredth of the highest"
    n, base = 10, p.base_lr
    assert p.fit.epochs == recipe['max_epochs']
    for t in range(3, int(recipe['max_epochs']*n), max(1, int(recipe['max_epochs']*n/60))):
        assert math.isclose(p.fit.at(t, n, base), rate(recipe['schedule'], t, n, base), abs_tol=.01*base), t/n


def check_recipe(p, recipe):
    opt = dict(recipe['optimizer'])
    assert p.opt == opt.pop('type') and p.base_lr == opt.pop('lr') and p.weight_decay == opt.pop('weight_decay')
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in p.opt_kw.items()} == opt or opt == dict(betas=[.9, .999])
    assert p.batch == recipe['batch_size_per_gpu'] and p.accumulate == recipe.get('accumulative_counts', 1)
    if 'auto_scale_lr' in recipe: assert p.base_batch == recipe['auto_scale_lr']['base_batch_size']
    assert (p.clip_grad or None) == (recipe.get('clip_grad') or {}).get('max_norm')
    assert bool(p.rules) == bool(recipe.get('paramwise_cfg')), (p.rules, recipe.get('paramwise_cfg'))
    assert [n for n, _ in p.train_tfms if n == 'Blend'] == ['Blend']*('blending' in recipe)
    check_schedule(p, recipe)


@pytest.mark.parametrize('e', [e for e in new if known(name_of(e))], ids=name_of)
def test_configuration(e):
    p = presets.find(name_of(e)); recipe = e.get('recipe') or {}
    assert p.mm.partition(':')[0] == e['config'] and p.task == e['task'] and p.paper == e.get('paper_url', p.paper)
    assert own_weights(p) == weights_of(e)
    if 'mean' in recipe: assert all(close((*own,)*(len(told)//len(own)), told) for own,told in ((p.mean, recipe['mean']), (p.std, recipe['std'])))
    as_published = p.modality == 'RGB' and 'tested here' not in (p.note or '')                      # a deviation has a note
    if as_published and recipe.get('test'): check_sampling(p.test_sample or p.sample, recipe['test']['sampling']); check_views(p, recipe['test'])
    if p.modality == 'RGB' and recipe.get('train'): check_sampling(p.sample, recipe['train']['sampling']); check_tfms(p, recipe['train'])
    if 'schedule' in recipe: check_recipe(p, recipe)
    else: assert p.fit is None


@pytest.mark.parametrize('name', [n for n in old if known(n)])
def test_older_name(name):
    p = presets.find(name)
    rows = [e for e in old[name] if weights_of(e) == own_weights(p)]
    assert rows, (own_weights(p), [weights_of(e) for e in old[name]])
    recipe = rows[0].get('recipe') or {}
    if 'mean' in recipe: assert all(close((*own,)*(len(told)//len(own)), told) for own,told in ((p.mean, recipe['mean']), (p.std, recipe['std'])))
    crop = next((s for s in recipe.get('test') or () if re.fullmatch('(Center|Three|Ten)Crop', s['transform'])), None)
    if crop and p.modality == 'RGB': assert p.views.crops == dict(CenterCrop=1, ThreeCrop=3, TenCrop=10)[crop['transform']]


true_size = {'swin-small-p244-w877_in1k-pre_32xb4-amp-32x2x1-30e_kinetics710-rgb': '49.8M'}      # there with the number of Swin-L


def count(published):
    "'32.45M' as a number"
    return float(published[:-1])*1e6 if isinstance(published, str) else published


wrong_size = {'ircsn_sports1m-pretrained-r152-bnfrozen_32x2x1-58e_kinetics400-rgb',       # printed with the size of ip-CSN; its network is that of ircsn_r152
              'slowonly_r50_8xb16-8x8x1-256e_imagenet-kinetics400-rgb'}                   # printed with that of SlowOnly, without OmniSource's two heads


@pytest.mark.parametrize('e', {(p.arch, str(p.arch_kw), len(p.vocab)): e for e in new
                               if e.get('params') and e['config'] not in wrong_size and (p := known(name_of(e)))}.values(), ids=name_of)
def test_size(e):
    "As many parameters as published, to 2 %"
    with torch.device('meta'): net = presets.find(name_of(e)).model()
    assert math.isclose(sum(p.numel() for p in net.parameters()), count(true_size.get(name_of(e), e['params'])), rel_tol=.02)
