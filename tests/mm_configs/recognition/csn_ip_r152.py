_base_ = ['i3d_32x2.py']

model = dict(
    backbone=dict(_delete_=True, type='ResNet3dCSN', pretrained2d=False, pretrained='https://download.openmmlab.com/mmaction/recognition/csn/ipcsn_from_scratch_r152_ig65m_20210617-c4b99d38.pth',
                  depth=152, with_pool2=False, bottleneck_mode='ip', norm_eval=True, bn_frozen=True, zero_init_residual=False),
    cls_head=dict(init_std=0.01))
train_pipeline = [dict(type='RandomResizedCrop') if o['type'] == 'MultiScaleCrop' else o for o in _base_.train_pipeline]
train_dataloader = dict(batch_size=12, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_epochs=58)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=16),
    dict(type='MultiStepLR', begin=0, end=58, by_epoch=True, milestones=[32, 48], gamma=0.1)
]
auto_scale_lr = dict(base_batch_size=96)
