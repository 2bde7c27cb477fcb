_base_ = ['tsm_r50_1x1x8.py']

stages = [3, 4, 6, 3]
model = dict(backbone=dict(
    non_local=tuple(tuple(int(i % 2 == 0 and s in (1, 2)) for i in range(n)) for s, n in enumerate(stages)),
    non_local_cfg=dict(sub_sample=True, use_scale=False, norm_cfg=dict(type='BN3d', requires_grad=True), mode='dot_product')))
