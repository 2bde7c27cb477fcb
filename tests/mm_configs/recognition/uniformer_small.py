_base_ = ['videomae_base.py']

model = dict(
    backbone=dict(_delete_=True, type='UniFormer', depth=[3, 4, 8, 3], embed_dims=[64, 128, 320, 512], head_dim=64, drop_path_rate=0.1),
    cls_head=dict(_delete_=True, type='I3DHead', dropout_ratio=0., num_classes=400, in_channels=512, average_clips='prob'),
    data_preprocessor=dict(mean=[114.75] * 3, std=[57.375] * 3))
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(num_clips=4)
test_pipeline[4] = dict(type='CenterCrop', crop_size=224)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
