_base_ = ['i3d_32x2.py']

model = dict(backbone=dict(inflate=(1, 1, 1, 1), conv1_stride_t=1, pool1_stride_t=1, with_pool2=True))
