_base_ = ['slowonly_4x16.py']

model = dict(backbone=dict(depth=101))
_sample = dict(_base_.sample, clip_len=8, frame_interval=8)
train_dataloader = dict(dataset=dict(pipeline=[_sample if o.get('type') == 'SampleFrames' else o for o in _base_.train_pipeline]))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(_sample, num_clips=10, test_mode=True) if o.get('type') == 'SampleFrames' else o for o in _base_.test_pipeline]))
total, warm = 196, _base_.warm
train_cfg = dict(max_epochs=total)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=warm),
    dict(type='CosineAnnealingLR', T_max=total - warm, eta_min=0, by_epoch=True, begin=warm, end=total)
]
