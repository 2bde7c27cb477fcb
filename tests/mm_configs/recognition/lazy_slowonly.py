from mmengine.config import read_base

with read_base():
    from ..recognition.slowonly_4x16 import *

from mmaction.models import ResNet3dSlowOnly, I3DHead

n_classes = 101
model.update(dict(
    backbone=dict(type=ResNet3dSlowOnly, depth=50, lateral=False, inflate=(0, 0, 1, 1)),
    cls_head=dict(type=I3DHead, in_channels=2048, num_classes=n_classes, dropout_ratio=0.5, average_clips='prob')))
ann_file_train = 'data/ucf101/ucf101_train_split_1_videos.txt'
