_base_ = ['tsn_r50_1x1x3.py']

size = 'base'
model = dict(
    backbone=dict(_delete_=True, type=f'timm.swin_{size}_patch{2**2}_window7_224', pretrained=True, feature_shape='NHWC'),
    cls_head=dict(in_channels=dict(tiny=768, small=768, base=1024)[size]))
