_base_ = ['tsn_r50_1x1x3.py']

groups, width = 32, 4
checkpoint = f'https://download.openmmlab.com/mmclassification/v0/resnext/resnext101_{groups}x{width}d_b32x8_imagenet_20210506-e0fa3dd5.pth'
model = dict(backbone=dict(
    _delete_=True, type='mmcls.ResNeXt', depth=101, num_stages=4, out_indices=(3, ), groups=groups, width_per_group=width, style='pytorch',
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')))
