_base_ = ['tsn_r50_1x1x3.py']

model = dict(backbone=dict(_delete_=True, type='torchvision.densenet161', pretrained=True), cls_head=dict(in_channels=2208))
