_base_ = ['tsm_r50_1x1x8.py']

model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2TSM', shift_div=8, num_segments=8, is_shift=True, pretrained='mmcls://mobilenet_v2'),
    cls_head=dict(num_segments=8, in_channels=1280))
test_pipeline = _base_.test_pipeline
del test_pipeline[4]
test_pipeline.insert(4, dict(type='ThreeCrop', crop_size=256))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
