_base_ = ['../_base_/models/slowonly_r50.py', '../_base_/default_runtime.py']

clip_len, frame_interval = 4, 64 // 4
ann_file_train = 'data/kinetics400/kinetics400_train_list_videos.txt'
decode = dict(type='DecordDecode')
sample = dict(type='SampleFrames', clip_len=clip_len, frame_interval=frame_interval, num_clips=1)
end = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]
train_pipeline = [
    dict(type='DecordInit'), sample, decode,
    dict(type='Resize', scale=(-1, 256)),
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5)
] + end
test_pipeline = [
    dict(type='DecordInit'), dict(sample, num_clips=10, test_mode=True), decode,
    dict(type='Resize', scale=(-1, 256)),
    dict(type='ThreeCrop', crop_size=256), *end
]
train_dataloader = dict(batch_size=16, dataset=dict(type='VideoDataset', ann_file=ann_file_train, pipeline=train_pipeline))
test_dataloader = dict(batch_size=1, dataset=dict(type='VideoDataset', pipeline=test_pipeline, test_mode=True))

total, warm = 256, 34
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=total, val_begin=1, val_interval=5)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1 * 2, momentum=0.9, weight_decay=1e-4), clip_grad=dict(max_norm=40, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=warm),
    dict(type='CosineAnnealingLR', T_max=total - warm, eta_min=0, by_epoch=True, begin=warm, end=total)
]
auto_scale_lr = dict(enable=False, base_batch_size=16 * 8)
