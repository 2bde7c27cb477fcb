_base_ = ['tsn_r50_1x1x3.py']

model = dict(type='Recognizer3D', backbone=dict(type='C2D'), cls_head=dict(_delete_=True, type='I3DHead', num_classes=400, in_channels=2048, spatial_type='avg', dropout_ratio=0.5, average_clips='prob'),
             data_preprocessor=dict(format_shape='NCTHW'))
train_pipeline = _base_.train_pipeline
train_pipeline[1] = dict(type='SampleFrames', clip_len=8, frame_interval=8, num_clips=1)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=8, frame_interval=8, num_clips=10)
test_pipeline[3:5] = [dict(type='Resize', scale=(-1, 224)), dict(type='ThreeCrop', crop_size=224)]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
