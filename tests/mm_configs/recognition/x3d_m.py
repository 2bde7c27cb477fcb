_base_ = ['videomae_base.py']

model = dict(
    backbone=dict(_delete_=True, type='X3D', gamma_w=1, gamma_b=2.25, gamma_d=2.2),
    cls_head=dict(_delete_=True, type='X3DHead', in_channels=432, num_classes=400, spatial_type='avg', dropout_ratio=0.5, fc1_bias=False, average_clips='prob'),
    data_preprocessor=dict(mean=[114.75] * 3, std=[57.38] * 3))
test_pipeline = [
    dict(type='DecordInit'), dict(type='SampleFrames', clip_len=16, frame_interval=5, num_clips=10, target_fps=30, test_mode=True), dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 256)), dict(type='ThreeCrop', crop_size=256), dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
