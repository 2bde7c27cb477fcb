default_scope = 'mmaction'
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='auto'), logger=dict(type='LoggerHook', interval=20))
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))
log_level = 'INFO'
load_from = None
resume = False
