_base_ = ['../_base_/default_runtime.py']

model = dict(
    type='Recognizer3D',
    backbone=dict(type='TimeSformer', pretrained='https://download.openmmlab.com/mmaction/recognition/timesformer/vit_base_patch16_224.pth', num_frames=8, img_size=224, patch_size=16, embed_dims=768,
                  in_channels=3, dropout_ratio=0., transformer_layers=None, attention_type='joint_space_time', norm_cfg=dict(type='LN', eps=1e-6)),
    cls_head=dict(type='TimeSformerHead', num_classes=400, in_channels=768, average_clips='prob'),
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[255 / 2] * 3, std=[255 / 2] * 3, format_shape='NCTHW'))
data_root = 'data/kinetics400/videos_train'
sample = 'SampleFrames'
train_pipeline = [
    dict(type='DecordInit'), dict(type=sample, clip_len=8, frame_interval=32, num_clips=1), dict(type='DecordDecode'),
    dict(type='RandomRescale', scale_range=(256, 320)), dict(type='RandomCrop', size=224), dict(type='Flip', flip_ratio=0.5),
    dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')
]
test_pipeline = [
    dict(type='DecordInit'), dict(type=sample, clip_len=8, frame_interval=32, num_clips=1, test_mode=True), dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 224)), dict(type='ThreeCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')
]
train_dataloader = dict(batch_size=8, dataset=dict(type='VideoDataset', pipeline=train_pipeline))
test_dataloader = dict(batch_size=1, dataset=dict(type='VideoDataset', pipeline=test_pipeline, test_mode=True))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=15, val_begin=1, val_interval=1)
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=1e-4, nesterov=True),
    paramwise_cfg=dict(custom_keys={f'.backbone.{name}': dict(decay_mult=0.0) for name in ('cls_token', 'pos_embed', 'time_embed')}),
    clip_grad=dict(max_norm=40, norm_type=2))
param_scheduler = [dict(type='MultiStepLR', begin=0, end=15, by_epoch=True, milestones=[5, 10], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=64)
