_base_ = ['tsm_r50_1x1x8.py']

model = dict(backbone=dict(pretrained='torchvision://resnet101', depth=101), cls_head=dict(num_classes=174))
ann_file_train = 'data/sthv2/sthv2_train_list_videos.txt'
labels = {86: 87, 93: 94, 166: 167}
flip_label_map = {**labels, **{b: a for a, b in labels.items()}}
train_pipeline = [dict(o, flip_label_map=flip_label_map) if o['type'] == 'Flip' else o for o in {{_base_.train_pipeline}}]
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=8, twice_sample=True, test_mode=True),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='ThreeCrop', crop_size=256),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs')
]
train_dataloader = dict(dataset=dict(ann_file=ann_file_train, pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
