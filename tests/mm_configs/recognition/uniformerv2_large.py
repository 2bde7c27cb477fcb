_base_ = ['videomae_base.py']

num_frames = 16
model = dict(
    backbone=dict(_delete_=True, type='UniFormerV2', input_resolution=224, patch_size=14, width=1024, layers=24, heads=16, t_size=num_frames,
                  dw_reduction=1.5, backbone_drop_path_rate=0., temporal_downsample=False, no_lmhra=True, double_lmhra=True,
                  return_list=list(range(20, 24)), n_layers=4, n_dim=1024, n_head=16, mlp_factor=4., drop_path_rate=0., clip_pretrained=False,
                  mlp_dropout=[0.5] * 4),
    cls_head=dict(dropout_ratio=0.5, in_channels=1024),
    data_preprocessor=dict(mean=[114.75, 114.75, 114.75], std=[57.375, 57.375, 57.375]))
test_pipeline = [
    dict(type='DecordInit'), dict(type='UniformSample', clip_len=num_frames, num_clips=4, test_mode=True), dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 224)), dict(type='ThreeCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
