_base_ = ['../_base_/models/tsm_r50.py', '../_base_/schedules/sgd_tsm_50e.py', '../_base_/default_runtime.py']

ann_file_train = 'data/kinetics400/kinetics400_train_list_videos.txt'
ann_file_val = ann_file_train.replace('train', 'val')
clip_len = 8


train_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=clip_len),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='MultiScaleCrop', input_size=224, scales=(1, 0.875, 0.75, 0.66), random_crop=False, max_wh_scale_gap=1, num_fixed_crops=13),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs')
]
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=clip_len, test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='TenCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs')
]
train_dataloader = dict(batch_size=16, num_workers=8, dataset=dict(type='VideoDataset', ann_file=ann_file_train, pipeline=train_pipeline))
test_dataloader = dict(batch_size=1, num_workers=8, dataset=dict(type='VideoDataset', ann_file=ann_file_val, pipeline=test_pipeline, test_mode=True))
auto_scale_lr = dict(enable=False, base_batch_size=128)
