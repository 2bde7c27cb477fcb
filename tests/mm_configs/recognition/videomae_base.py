_base_ = ['../_base_/default_runtime.py']

model = dict(
    type='Recognizer3D',
    backbone=dict(type='VisionTransformer', img_size=224, patch_size=16, embed_dims=768, depth=12, num_heads=12, mlp_ratio=4, qkv_bias=True,
                  num_frames=16, norm_cfg=dict(type='LN', eps=1e-6)),
    cls_head=dict(type='TimeSformerHead', num_classes=400, in_channels=768, average_clips='prob'),
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], format_shape='NCTHW'))
ann_file_test = 'data/kinetics400/kinetics400_val_list_videos.txt'
test_pipeline = [
    dict(type='DecordInit'), dict(type='SampleFrames', clip_len=16, frame_interval=4, num_clips=5, test_mode=True), dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 224)), dict(type='ThreeCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')
]
test_dataloader = dict(batch_size=8, dataset=dict(type='VideoDataset', ann_file=ann_file_test, pipeline=test_pipeline, test_mode=True))
