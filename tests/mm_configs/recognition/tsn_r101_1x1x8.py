_base_ = ['tsn_r50_1x1x3.py']

model = dict(backbone=dict(pretrained='https://download.pytorch.org/models/resnet101-cd907fc2.pth', depth=101))
train_pipeline = [dict(step, num_clips=8) if step['type'] == 'SampleFrames' else step for step in _base_.train_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
