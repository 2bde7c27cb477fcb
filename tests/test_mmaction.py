"""Configurations in the format of MMAction2, written for these tests (mm_configs), become the presets that were published under their names.

They use what that format offers: bases, `_delete_`, `_base_.x`, `{{_base_.x}}`, arithmetic, f-strings, loops, comprehensions, `read_base`, and 0.x."""
import re
from pathlib import Path

import pytest
import torch

from vidbook import presets
from vidbook.io.mm_config import ConfigError, read_mm_config
from vidbook.presets.mmaction import import_mmaction

folder = Path(__file__).parent/'mm_configs'/'recognition'
k400 = 'kinetics400-rgb'
same = dict(
    tsn_r50_1x1x3=f'tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_{k400}', tsn_r101_1x1x8=f'tsn_imagenet-pretrained-r101_8xb32-1x1x8-100e_{k400}',
    tsn_dense_1x1x5=f'tsn_imagenet-pretrained-r50_8xb32-dense-1x1x5-100e_{k400}', tsn_densenet161=f'tsn_imagenet-pretrained-dense161_8xb32-1x1x3-100e_{k400}',
    tsn_swin=f'tsn_imagenet-pretrained-swin-transformer_8xb32-1x1x3-100e_{k400}', tsn_resnext=f'tsn_imagenet-pretrained-rn101-32x4d_8xb32-1x1x3-100e_{k400}',
    tsm_r50_1x1x8=f'tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_{k400}', tsm_r101_sthv2='tsm_imagenet-pretrained-r101_8xb16-1x1x8-50e_sthv2-rgb',
    tsm_nl_dot_product=f'tsm_imagenet-pretrained-r50-nl-dot-product_8xb16-1x1x8-50e_{k400}',
    tsm_mobilenetv2=f'tsm_imagenet-pretrained-mobilenetv2_8xb16-1x1x8-100e_{k400}',
    slowonly_4x16=f'slowonly_r50_8xb16-4x16x1-256e_{k400}', slowonly_r101_8x8=f'slowonly_r101_8xb16-8x8x1-196e_{k400}',
    i3d_32x2=f'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_{k400}', i3d_heavy=f'i3d_imagenet-pretrained-r50-heavy_8xb8-32x2x1-100e_{k400}',
    i3d_nl_gaussian=f'i3d_imagenet-pretrained-r50-nl-gaussian_8xb8-32x2x1-100e_{k400}', csn_ip_r152=f'ipcsn_ig65m-pretrained-r152-bnfrozen_32x2x1-58e_{k400}',
    c2d_r50=f'c2d_r50-in1k-pre_8xb32-8x8x1-100e_{k400}', swin_tiny=f'swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_{k400}',
    timesformer_joint=f'timesformer_jointST_8xb8-8x32x1-15e_{k400}', videomae_base=f'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400',
    uniformer_small=f'uniformer-small_imagenet1k-pre_16x4x1_{k400}', uniformerv2_large=f'uniformerv2-large-p14-res224_clip-kinetics710-pre_u16_{k400}',
    slowfast_8x8=f'slowfast_r50_8xb8-8x8x1-256e_{k400}', x3d_m=f'x3d_m_16x5x1_facebook-{k400}', mvit_small=f'mvit-small-p244_32xb16-16x4x1-200e_{k400}',
    trn_sthv2='trn_imagenet-pretrained-r50_8xb16-1x1x8-50e_sthv2-rgb', old_tsm_r50='tsm_r50_1x1x8_50e_kinetics400_rgb')
weights_only = 'videomae_base uniformer_small uniformerv2_large old_tsm_r50 x3d_m mvit_small trn_sthv2 slowfast_8x8 tsm_mobilenetv2 csn_ip_r152'.split()    # with another recipe, or none


def state_of(p):
    with torch.device('meta'): return {k: tuple(v.shape) for k, v in p.model().state_dict().items()}


def test_every_configuration_is_tried(): assert {p.stem for p in folder.glob('*.py')} == {*same, 'lazy_slowonly'}


@pytest.mark.parametrize('name', same)
def test_published(name):
    got, want = import_mmaction(folder/f'{name}.py'), presets.find(same[name])
    p = got.preset
    assert state_of(p) == state_of(want)
    for o in ('sample', 'views', 'average', 'short_side', 'labels', *(['size'] if want.fit else [])): assert getattr(p, o) == getattr(want, o), o
    assert p.spec_kw == want.spec_kw
    assert (p.test_sample or p.sample) == (want.test_sample or want.sample) and (p.test_size or p.size) == (want.test_size or want.size)
    for a, b in zip(p.mean+p.std, want.mean+want.std): assert abs(a-b) < 1e-3
    assert set(got.report.status) <= {'no effect', 'not used', 'differs', 'unresolved'} and not (got.report.status == 'unresolved').any()
    assert {w for w, s in zip(got.report['where'], got.report.status) if s == 'not used'} <= {'model.backbone.pretrained'}


@pytest.mark.parametrize('name', [n for n in same if n not in weights_only])
def test_recipe(name):
    p, want = import_mmaction(folder/f'{name}.py').preset, presets.find(same[name])
    for o in ('opt', 'base_lr', 'base_batch', 'batch', 'weight_decay', 'accumulate'): assert getattr(p, o) == getattr(want, o), o
    assert bool(p.rules) == bool(want.rules) and p.fit.epochs == want.fit.epochs
    for t in range(0, int(p.fit.epochs*10), 7): assert abs(p.fit.at(t, 10)-want.fit.at(t, 10)) < .01


def test_older():
    p = import_mmaction(folder/'old_tsm_r50.py').preset
    assert (p.base_lr, p.batch, p.clip_grad, p.fit.epochs, p.views.crops, len(p.rules)) == (.01, 8, 20, 50, 1, 3)
    assert [p.fit.at(e*10, 10) for e in (0, 19, 20, 40)] == pytest.approx([1, 1, .1, .01])


def test_read_base():
    got = import_mmaction(folder/'lazy_slowonly.py')
    assert got.preset.labels == 'ucf101' and got.preset.fit.epochs == 256 and got.preset.arch_kw['depth'] == 50


def test_own_configuration(tmp_path):
    "Something of one's own is told, and the rest works: a checkpoint is loaded, class names are asked for"
    own = tmp_path/'own.py'
    own.write_text(f'''_base_ = {str(folder/"tsm_r50_1x1x8.py")!r}
from my_project import make
custom_imports = dict(imports=['my_project'])
ann_file_train = 'my/list.txt'
ann_file_val = 'my/other.txt'
train_dataloader = dict(dataset=dict(ann_file=ann_file_train))
model = dict(cls_head=dict(num_classes=3))
train_pipeline = _base_.train_pipeline
train_pipeline.insert(3, dict(type='MyBlur', sigma=make(2)))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
''')
    got = import_mmaction(own, labels=('a', 'b', 'c'))
    assert 'train_pipeline[3].type' in set(got.report['where']) and got.preset.vocab == ('a', 'b', 'c')
    assert {*got.report[got.report.status == 'unresolved'].value} == {'make(2)'}
    assert (import_mmaction(own).report['where'] == 'class names').any()
    state = {k.replace('head.', 'cls_head.'): v for k, v in got.preset.model().state_dict().items()}
    torch.save(dict(meta={}, state_dict=state), tmp_path/'epoch_50.pth')
    net = import_mmaction(own, tmp_path/'epoch_50.pth', labels=('a', 'b', 'c')).preset.model(pretrained=True)
    assert torch.equal(net.head.fc_cls.weight, state['cls_head.fc_cls.weight'])
    with pytest.raises(ConfigError, match='2 class names for 3 classes'): import_mmaction(own, labels=('a', 'b'))


def test_what_comes_several_times(tmp_path):
    "Repeated augmentation is taken over; what repeats otherwise is told"
    own, base = tmp_path/'own.py', f'_base_ = {str(folder/"mvit_small.py")!r}\n'
    inner = "dict(type='RepeatAugDataset', num_repeats=3)"
    own.write_text(base+f"train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=10, dataset={inner}))\n")
    got = import_mmaction(own)
    told = got.report[got.report.status == 'differs'].set_index('where').value
    assert told['train_dataloader.dataset.times'] == '10' and 'train_dataloader.dataset.sample_once' in told
    assert got.preset.clip_spec().repeats == 3 and got.preset.clip_spec().train_pipeline().repeats == 3


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'evil.py').write_text("import os\nos.mkdir('was_here')\nx = __import__('os').mkdir('was_here')\nmodel = dict(type='Recognizer2D', y=os.mkdir('was_here'))\n"
                                    "class A:\n    os.mkdir('was_here')\n@os.mkdir('was_here')\ndef f(): pass\nz = f'{os.mkdir(\"was_here\")}'\nw = [os.mkdir('was_here') for i in (1,)]\n")
    found = read_mm_config(tmp_path/'evil.py')
    assert [p.name for p in tmp_path.iterdir()] == ['evil.py'] and len(found.unresolved) == 5
