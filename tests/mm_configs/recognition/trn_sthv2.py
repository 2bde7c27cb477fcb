_base_ = ['tsm_r101_sthv2.py']

model = dict(
    backbone=dict(_delete_=True, type='ResNet', pretrained='torchvision://resnet50', depth=50, norm_eval=False, partial_bn=True),
    cls_head=dict(_delete_=True, type='TRNHead', num_classes=174, in_channels=2048, num_segments=8, spatial_type='avg', relation_type='TRNMultiScale',
                  hidden_dim=256, dropout_ratio=0.8, init_std=0.001, average_clips='prob'))
