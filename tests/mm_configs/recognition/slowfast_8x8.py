_base_ = ['slowonly_4x16.py']

_pathway = dict(type='resnet3d', depth=50, pretrained=None, conv1_stride_t=1, pool1_stride_t=1, norm_eval=False)
model = dict(
    backbone=dict(
        _delete_=True, type='ResNet3dSlowFast', pretrained=None, resample_rate=32 // 8, speed_ratio=4, channel_ratio=8,
        slow_pathway=dict(_pathway, lateral=True, fusion_kernel=7, conv1_kernel=(1, 7, 7), dilations=(1, ) * 4, inflate=(0, 0, 1, 1)),
        fast_pathway=dict(_pathway, lateral=False, base_channels=64 // 8, conv1_kernel=(5, 7, 7))),
    cls_head=dict(_delete_=True, type='SlowFastHead', in_channels=2304, num_classes=400, spatial_type='avg', dropout_ratio=0.5, average_clips='prob'))
_sample = dict(_base_.sample, clip_len=32, frame_interval=2)
_pipelines = [[dict(_sample, **{k: o[k] for k in ('num_clips', 'test_mode') if k in o}) if o['type'] == 'SampleFrames' else o for o in p]
              for p in (_base_.train_pipeline, _base_.test_pipeline)]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=_pipelines[0]))
test_dataloader = dict(dataset=dict(pipeline=_pipelines[1]))
