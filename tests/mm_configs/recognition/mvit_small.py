_base_ = ['uniformer_small.py']

model = dict(
    backbone=dict(_delete_=True, type='MViT', arch='small', drop_path_rate=0.2),
    cls_head=dict(_delete_=True, type='MViTHead', in_channels=768, num_classes=400, label_smooth_eps=0.1, average_clips='prob'))
_sample = dict(_base_.test_pipeline[1], num_clips=5)
test_dataloader = dict(dataset=dict(pipeline=[_sample if o['type'] == 'SampleFrames' else o for o in _base_.test_pipeline]))
train_dataloader = dict(dataset=dict(type='RepeatAugDataset', num_repeats=2, sample_once=True))
