"""Every network of vidbook.models, and what is true of it: the tests are in test_models.py and test_foreign.py. A network that is missing here fails.

`slim`: the small ones for 64 pixels and a CPU, with which everything is tried. `full`: published sizes, an input and the shape of its features;
they are built without memory (device meta), so that any size may be here. `bases`: what the others are made of.
`weights`: files of other projects (golden/foreign) and whose weights they are; `starts`: what else begins with such a file."""
import importlib, inspect, pkgutil
from dataclasses import dataclass, field

import vidbook.models

modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(vidbook.models.__path__, 'vidbook.models.')]
found = {n: f for m in modules for n, f in inspect.getmembers(m, inspect.isfunction)
         if f.__module__ == m.__name__ and not n.startswith('_') and next(iter(inspect.signature(f).parameters), '') == 'n_out'}


@dataclass(frozen=True)
class Slim:
    "Facts of a small network"
    features: tuple                                                         # Shape of `.features` of a batch of two, or several shapes
    shape: tuple = (3, 8, 64, 64)                                           # Of one clip
    others: tuple = ((3, 1, 64, 64), (3, 5, 48, 80), (3, 16, 33, 47))       # Of clips that it takes, too
    refused: tuple = ()                                                     # Clips that it does not take, each with words of the error
    sees_order: bool = True                                                 # Of frames
    any_channels: bool = True                                               # Has an argument `c_in`
    eps: tuple = (1e-5,)                                                    # Of all its normalisations
    params: tuple = (.6e6, 1.3e6)                                           # Number of parameters with 5 classes, from and to
    lr: float = 2e-3                                                        # With which Adam learns four clips of noise by heart


@dataclass(frozen=True)
class Full:
    "A published size"
    features: tuple                                                         # Shape of `.features` of a batch of two, or several shapes
    shape: tuple = (3, 8, 224, 224)                                         # Of one clip


@dataclass(frozen=True)
class File:
    "What a file of another project is the weights of"
    arch: str
    kw: dict = field(default_factory=dict)                                  # Arguments of `arch`
    left: str = r'^head\.'                                                  # As a start: the entries that stay as they are (a pattern)


slim = dict(
    tsn_slim=Slim((2, 192, 8, 2, 2), sees_order=False),
    tsm_slim=Slim((2, 192, 8, 2, 2)),
    tsm_mobileone_slim=Slim((2, 384, 8, 2, 2), params=(.2e6, .6e6)),
    **{name: Slim((2, 192, 8, 2, 2), others=((3, 8, 48, 80), (3, 8, 33, 47)), refused=(((3, 5, 64, 64), 'n_frames=5'), ((3, 16, 64, 64), 'n_frames=16')))
       for name in ('tanet_slim', 'tin_slim', 'trn_slim')},
    tpn_slim=Slim(((2, 80, 8, 4, 4), (2, 160, 8, 2, 2)), params=(.6e6, 1.5e6)),
    slowonly_slim=Slim((2, 192, 8, 2, 2)),
    c2d_slim=Slim((2, 192, 4, 2, 2), others=((3, 2, 64, 64), (3, 5, 48, 80), (3, 16, 33, 47)), sees_order=False,
                  refused=(((3, 1, 64, 64), 'takes 2 or more'),)),
    omnisource_slim=Slim((2, 192, 8, 2, 2), lr=5e-3),
    slowfast_slim=Slim(((2, 192, 2, 2, 2), (2, 24, 8, 2, 2)), others=((3, 4, 64, 64), (3, 12, 48, 80), (3, 16, 33, 47)),
                       refused=(((3, 6, 64, 64), 'give a multiple of 4'),)),
    i3d_slim=Slim((2, 192, 4, 2, 2), others=((3, 2, 64, 64), (3, 5, 48, 80), (3, 16, 33, 47)), refused=(((3, 1, 64, 64), 'takes 2 or more'),)),
    csn_slim=Slim((2, 768, 1, 2, 2), eps=(1e-3,)),
    r2plus1d_slim=Slim((2, 128, 1, 2, 2), eps=(1e-3, 1e-5)),
    x3d_slim=Slim((2, 432, 8, 2, 2)),
    c3d_slim=Slim((2, 192), (3, 16, 64, 64), others=(), refused=(((3, 8, 64, 64), 'takes clips of 3 channels, 16 frames'), ((3, 16, 64, 48), '64x64 pixels')),
                  eps=(), lr=5e-4),
    audio_slim=Slim((2, 640, 8, 10), (1, 64, 80), others=((1, 16, 80), (1, 101, 40))),
    audio_tsn_slim=Slim((2, 128, 2, 3), (1, 64, 80), others=((1, 16, 80), (1, 101, 40)), params=(.2e6, .5e6)),
    stgcn_slim=Slim((2, 2, 160, 8, 17), (2, 32, 17, 3), others=((1, 7, 17, 3), (3, 16, 17, 3)), refused=(((2, 32, 25, 3), 'made for 17 joints of 3'),),
                    any_channels=False),
    posec3d_slim=Slim((2, 384, 4, 4, 4), (17, 8, 32, 32), others=((17, 1, 32, 32), (17, 5, 24, 40)), params=(.3e6, .6e6)),
    mvit_slim=Slim(((2, 160, 4, 4, 4), (2, 160)), eps=(1e-6,)),
    swin_slim=Slim((2, 128, 4, 4, 4)),
    inception_i3d_slim=Slim((2, 288, 2, 2, 2), (3, 16, 64, 64), eps=(1e-3,)),
    uniformer_slim=Slim((2, 192, 4, 2, 2), refused=(((3, 8, 31, 64), 'from 32 x 32 on'),)),
    uniformerv2_slim=Slim((2, 128), others=((3, 1, 64, 64), (3, 11, 64, 64)), refused=(((3, 8, 48, 64), 'positions for pictures of 64 x 64'),),
                          sees_order=False),                                # before it has learnt something: a mean over the frames
    videomae_slim=Slim((2, 128), others=((3, 8, 48, 80),), eps=(1e-6,), lr=1e-3,
                       refused=(((3, 4, 64, 64), 'n_frames=4'), ((3, 8, 60, 64), 'cannot be cut into pieces'), ((2, 8, 64, 64), 'c_in=2'))),
    timesformer_slim=Slim((2, 96), others=((3, 8, 48, 80),), eps=(1e-6,), lr=1e-3, sees_order=False,       # times are alike before it has learnt
                          refused=(((3, 4, 64, 64), 'n_frames=4'), ((3, 8, 60, 64), 'cannot be cut into pieces'), ((2, 8, 64, 64), 'c_in=2'))),
)

full = dict(
    tsn_r50=Full((2, 2048, 8, 7, 7)),
    tsn_r101=Full((2, 2048, 8, 7, 7)),
    **{f'tsn_{name}': Full((2, 2048, 8, 7, 7)) for name in ('r152', 'resnext50', 'resnext101', 'wide_r50', 'mobileone_s4')},
    **{f'tsn_{name}': Full((2, 512, 8, 7, 7)) for name in ('r18', 'r34')},
    **{f'tsn_{name}': Full((2, nf, 8, 1, 1)) for name, nf in (('densenet121', 1024), ('densenet161', 2208), ('swin_t', 768), ('swin_s', 768),
                                                             ('swin_b', 1024), ('swin_l', 1536))},
    tsn_mobilenetv2=Full((2, 1280, 8, 7, 7)),
    tsn_mobileone_s0=Full((2, 1024, 8, 7, 7)),
    tsm_mobilenetv2=Full((2, 1280, 8, 7, 7)),
    tsm_mobileone_s4=Full((2, 2048, 16, 7, 7), (3, 16, 224, 224)),
    **{name: Full((2, 2048, 8, 7, 7)) for name in ('tsm_r50_nl', 'tanet_r50', 'tin_r50', 'trn_r50')},
    **{f'tpn_{name}_r50': Full(((2, 1024, 8, 14, 14), (2, 2048, 8, 7, 7))) for name in ('tsm', 'slowonly')},
    tsm_r50=Full((2, 2048, 8, 7, 7)),
    tsm_r101=Full((2, 2048, 8, 7, 7)),
    slowonly_r50=Full((2, 2048, 8, 7, 7)),
    slowonly_r101=Full((2, 2048, 8, 7, 7)),
    omnisource_r50=Full((2, 2048, 8, 7, 7)),
    slowonly_r50_nl=Full((2, 2048, 8, 7, 7)),
    c2d_r50=Full((2, 2048, 4, 7, 7)),
    c2d_r50_nopool=Full((2, 2048, 8, 7, 7)),
    c2d_r101_nopool=Full((2, 2048, 8, 7, 7)),
    slowfast_r50_4x16=Full(((2, 2048, 4, 7, 7), (2, 256, 32, 7, 7)), (3, 32, 224, 224)),
    slowfast_r50_8x8=Full(((2, 2048, 8, 7, 7), (2, 256, 32, 7, 7)), (3, 32, 224, 224)),
    slowfast_r101_8x8=Full(((2, 2048, 8, 7, 7), (2, 256, 32, 7, 7)), (3, 32, 224, 224)),
    slowfast_r101_r50_4x16=Full(((2, 2048, 4, 7, 7), (2, 256, 32, 7, 7)), (3, 32, 224, 224)),
    slowfast_r152_r50_4x16=Full(((2, 2048, 4, 7, 7), (2, 256, 32, 7, 7)), (3, 32, 224, 224)),
    slowfast_r101_16x8=Full(((2, 2048, 16, 7, 7), (2, 256, 64, 7, 7)), (3, 64, 224, 224)),
    i3d_r50=Full((2, 2048, 4, 7, 7), (3, 32, 224, 224)),
    i3d_r50_heavy=Full((2, 2048, 16, 7, 7), (3, 32, 224, 224)),
    i3d_r50_nl=Full((2, 2048, 4, 7, 7), (3, 32, 224, 224)),
    csn_r50=Full((2, 2048, 4, 7, 7), (3, 32, 224, 224)),
    csn_r101=Full((2, 2048, 4, 7, 7), (3, 32, 224, 224)),
    csn_r152=Full((2, 2048, 4, 7, 7), (3, 32, 224, 224)),
    r2plus1d_r34=Full((2, 512, 1, 7, 7)),
    r2plus1d_18=Full((2, 512, 2, 7, 7), (3, 16, 112, 112)),
    r3d_18=Full((2, 512, 2, 7, 7), (3, 16, 112, 112)),
    mc3_18=Full((2, 512, 16, 7, 7), (3, 16, 112, 112)),
    r2plus1d_r50=Full((2, 2048, 4, 7, 7), (3, 16, 224, 224)),
    x3d_xs=Full((2, 432, 4, 5, 5), (3, 4, 160, 160)),
    x3d_s=Full((2, 432, 13, 5, 5), (3, 13, 160, 160)),
    x3d_m=Full((2, 432, 16, 7, 7), (3, 16, 224, 224)),
    x3d_l=Full((2, 432, 16, 10, 10), (3, 16, 312, 312)),
    c3d=Full((2, 4096), (3, 16, 112, 112)),
    audio_r50=Full((2, 1024, 8, 10), (1, 64, 80)),
    audio_tsn_r18=Full((2, 512, 2, 3), (1, 64, 80)),
    stgcn=Full((2, 2, 256, 25, 17), (2, 100, 17, 3)),
    posec3d=Full((2, 512, 24, 7, 7), (17, 48, 56, 56)),
    posec3d_deep=Full((2, 512, 24, 7, 7), (17, 48, 56, 56)),
    mvit_small=Full(((2, 768, 8, 7, 7), (2, 768)), (3, 16, 224, 224)),
    mvit_small_maskfeat=Full(((2, 768, 8, 7, 7), (2, 768)), (3, 16, 224, 224)),
    mvit_base=Full(((2, 768, 16, 7, 7), (2, 768)), (3, 32, 224, 224)),
    mvit_large=Full(((2, 1152, 20, 10, 10), (2, 1152)), (3, 40, 312, 312)),
    mvit_v1_b_16=Full(((2, 768, 1, 7, 7), (2, 768)), (3, 1, 224, 224)),
    mvit_v1_b_16x4=Full(((2, 768, 8, 7, 7), (2, 768)), (3, 16, 224, 224)),
    mvit_v1_b_32x3=Full(((2, 768, 16, 7, 7), (2, 768)), (3, 32, 224, 224)),
    mvit_v1_b_32x3_deep=Full(((2, 768, 16, 7, 7), (2, 768)), (3, 32, 224, 224)),
    swin_tiny=Full((2, 768, 16, 7, 7), (3, 32, 224, 224)),
    swin_small=Full((2, 768, 16, 7, 7), (3, 32, 224, 224)),
    swin_base=Full((2, 1024, 16, 7, 7), (3, 32, 224, 224)),
    swin_large=Full((2, 1536, 16, 7, 7), (3, 32, 224, 224)),
    inception_i3d=Full((2, 1024, 8, 7, 7), (3, 64, 224, 224)),
    inception_i3d_flow=Full((2, 1024, 8, 7, 7), (2, 64, 224, 224)),
    uniformer_s=Full((2, 512, 8, 7, 7), (3, 16, 224, 224)),
    uniformer_b=Full((2, 512, 16, 7, 7), (3, 32, 224, 224)),
    uniformerv2_b16=Full((2, 768)),
    uniformerv2_l14=Full((2, 1024)),
    videomae_s=Full((2, 384), (3, 16, 224, 224)),
    videomae_b=Full((2, 768), (3, 16, 224, 224)),
    videomae_l=Full((2, 1024), (3, 16, 224, 224)),
    mae_vit_b=Full((2, 768), (3, 16, 224, 224)),
    timesformer_divided=Full((2, 768)),
    timesformer_joint=Full((2, 768)),
    timesformer_space=Full((2, 768)),
)

bases = {'tsm_mobileone', 'tanet_resnet', 'tin_resnet', 'trn_resnet', 'tpn_tsm', 'tpn_slowonly', 'videomae', 'timesformer', 'uniformer', 'uniformerv2', 'tsn_resnet', 'tsm_resnet', 'slowonly_resnet', 'csn_resnet', 'x3d', 'audio_resnet', 'c2d_resnet', 'i3d_resnet', 'swin_transformer', 'mvit', 'slowfast_resnet', 'omnisource_resnet'}

# What takes more than clips is tried with its task: test_retrieval.py, test_detection.py, test_localization.py
tasks = {'clip4clip', 'clip4clip_b16', 'clip4clip_b32', 'clip4clip_slim', 'clip4clip_conv_slim', 'bmn', 'bmn_slim', 'roi_slowonly_slim', 'roi_slowfast_slim',
         'roi_slowonly_r50', 'roi_slowonly_r50_nl', 'roi_slowonly_r101', 'roi_slowfast_r50_4x16', 'roi_slowfast_r50_8x8'}

weights = {
    'mmaction2-0.x__tsn_r18_1x1x8_100e_hvu_action_rgb': File('tsn_resnet', dict(n_out=739, depth=18)),
    'mmaction2-0.x__slowonly_r50_8x8x1_256e_minikinetics_omnisource_rgb': File('slowonly_resnet', dict(n_out=200)),
    'pyslowfast__SLOW_8x8_R50': File('slowonly_r50'),
    'pytorchvideo__slow_r50': File('slowonly_r50'),
    'pyslowfast__SLOW_4x16_R50': File('slowonly_r50'),
    'mmaction2-0.x__slowfast_multigrid_r50_8x8x1_358e_kinetics400_rgb': File('slowfast_r50_8x8', dict(lateral_bn=True)),
    'mmaction2-0.x__slowfast_r152_r50_4x16x1_256e_kinetics400_rgb': File('slowfast_r152_r50_4x16'),
    **{f'pyslowfast__{name}': File(arch, dict(lateral_bn=True, spread=True, **kw)) for name, arch, kw in (
        ('SLOWFAST_4x16_R50', 'slowfast_r50_4x16', {}), ('SLOWFAST_8x8_R50', 'slowfast_r50_8x8', {}),
        ('SSv2_SLOWFAST_16x8_R50', 'slowfast_r50_8x8', dict(n_out=174)),
        ('SLOWFAST_NLN_8x8_R50', 'slowfast_r50_8x8', dict(kernel=5, non_local=dict(pool_first=True, scale=True), non_local_at=((), (1, 3), (1, 3, 5), ()))))},
    'pyslowfast__SLOWFAST_16x8_R101_50_50_c2': File('slowfast_r101_16x8'),
    'pytorchvideo__slowfast_r50': File('slowfast_r50_8x8', dict(lateral_bn=True, spread=True)),
    'pytorchvideo__slowfast_r101': File('slowfast_r101_8x8', dict(lateral_bn=True, spread=True, kernel=5)),
    'pytorchvideo__slowfast_16x8_r101_50_50': File('slowfast_r101_16x8'),
    'pyslowfast__C2D_8x8_R50': File('c2d_r50', dict(pool_pad=1)),
    'pytorchvideo__c2d_r50': File('c2d_r50', dict(pool_pad=1)),
    'pyslowfast__I3D_8x8_R50': File('i3d_r50', dict(stem=(5, 1), pool=(1, 2))),
    'pytorchvideo__i3d_r50': File('i3d_r50', dict(stem=(5, 1), pool=(1, 2))),
    'pyslowfast__I3D_NLN_8x8_R50': File('i3d_r50', dict(stem=(5, 1), pool=(1, 2), non_local=dict(pool_first=True, scale=True))),
    'pytorchvideo__csn_r101': File('csn_r101', dict(eps=1e-5)),
    'pytorchvideo__r2plus1d_r50': File('r2plus1d_r50'),
    **{f'torchvision__{name}': File(name) for name in ('r2plus1d_18', 'r3d_18', 'mc3_18')},
    **{f'pyslowfast__X3D_{size}': File(f'x3d_{size.lower()}') for size in ('XS', 'S', 'M', 'L')},
    **{f'pytorchvideo__x3d_{size}': File(f'x3d_{size}') for size in ('xs', 's', 'm', 'l')},
    **{f'pytorchvideo__efficient_x3d_{size}': File(f'x3d_{size}') for size in ('xs', 's')},
    'pyslowfast__MVITv2_S_16x4': File('mvit_small'),
    'pyslowfast__SSv2_MVITv2_S_16x4': File('mvit_small', dict(n_out=174)),
    'pyslowfast__MVITv2_B_32x3': File('mvit_base'),
    'pyslowfast__MVITv2_L_40x3': File('mvit_large'),
    'pyslowfast__MVIT_B_16x4_CONV': File('mvit_v1_b_16x4'),
    'pyslowfast__MVIT_B_32x3_CONV': File('mvit_v1_b_32x3_deep'),
    'pytorchvideo__mvit_base_16': File('mvit_v1_b_16'),
    'pytorchvideo__mvit_base_16x4': File('mvit_v1_b_16x4'),
    'pytorchvideo__mvit_base_32x3': File('mvit_v1_b_32x3'),
    'torchvision__mvit_v1_b': File('mvit_v1_b_16x4'),
    'torchvision__mvit_v2_s': File('mvit_small'),
    **{f'torchvision__swin3d_{size[0]}': File(f'swin_{size}') for size in ('tiny', 'small', 'base')},
    'pytorch-i3d__inception_i3d_rgb': File('inception_i3d'),
    'pytorch-i3d__inception_i3d_flow': File('inception_i3d_flow'),
    **{f'{source}__resnet{depth}': File('tsn_resnet', dict(n_out=1000, depth=depth))
       for source, depths in (('torchvision', (18, 34, 50, 101, 152)), ('timm', (50, 101, 152))) for depth in depths},
    **{f'{source}__{name}': File(arch, dict(n_out=1000, **kw)) for source, name, arch, kw in (
        ('torchvision', 'densenet121', 'tsn_densenet121', {}), ('torchvision', 'densenet161', 'tsn_densenet161', {}), ('timm', 'densenet121', 'tsn_densenet121', {}),
        ('timm', 'densenet161', 'tsn_densenet161', {}), ('torchvision', 'mobilenet_v2', 'tsn_mobilenetv2', {}), ('timm', 'mobilenetv2_100', 'tsn_mobilenetv2', {}),
        ('timm', 'mobileone_s0', 'tsn_mobileone_s0', {}), ('timm', 'mobileone_s4', 'tsn_mobileone_s4', {}), ('torchvision', 'resnext50_32x4d', 'tsn_resnext50', {}),
        ('torchvision', 'resnext101_32x8d', 'tsn_resnext101', dict(per_group=8)), ('timm', 'resnext50_32x4d', 'tsn_resnext50', {}),
        ('timm', 'resnext101_32x4d', 'tsn_resnext101', {}), ('torchvision', 'wide_resnet50_2', 'tsn_wide_r50', {}))},
    **{f'videomae__finetune_vit_{size}_patch16_224': File(f'videomae_{size[0]}') for size in ('small', 'base', 'large')},
    **{f'hf__videomae_{size}_finetuned': File(f'videomae_{size[0]}') for size in ('small', 'base')},
    'pyslowfast__k400_VIT_B_16x4_FT': File('mae_vit_b'),
    'hf__timesformer_base_divst': File('timesformer_divided'),
    'hf__timesformer_base_joint_space_time': File('timesformer_joint'),
    'hf__timesformer_base_space_only': File('timesformer_space'),
    **{f'timm__vit_{name}_224': File('timesformer_space', dict(n_out=1000, **kw)) for name, kw in (          # of one frame it is an image network
        ('tiny_patch16', dict(dim=192, n_heads=3)), ('small_patch16', dict(dim=384, n_heads=6)), ('base_patch16', {}), ('base_patch32', dict(patch=32)))},
}

clip_leaves = r'^head\.|^backbone\.(queries|clip_token|balance|norm)'   # What UniFormerV2 adds to CLIP's image tower
starts = [
    *((f'torchvision__resnet{depth}', File(arch, dict(depth=depth))) for depth in (18, 101) for arch in ('tsm_resnet', 'slowonly_resnet')),
    *(('timm__resnet50', File(arch)) for arch in ('tsm_r50', 'slowonly_r50')),
    ('pyslowfast__k400_MVITv2_S_16x4_MaskFeat_PT', File('mvit_small_maskfeat', left=r'^head\.|^backbone.norm3')),
    *((f'timm__swin_{size}_patch4_window7_224', File(f'swin_{size}')) for size in ('tiny', 'small', 'base', 'large')),
    *((f'timm__swin_{size}_patch4_window7_224', File(f'tsn_swin_{size[0]}')) for size in ('tiny', 'small', 'base', 'large')),
    *((f'{source}', File('tsm_mobilenetv2')) for source in ('torchvision__mobilenet_v2', 'timm__mobilenetv2_100')),
    ('timm__mobileone_s4', File('tsm_mobileone_s4')),
    ('torchvision__resnet50', File('tanet_r50', left=r'^head\.|tam')),
    ('torchvision__resnet50', File('tin_r50', left=r'^head\.|shift')),
    ('torchvision__resnet50', File('trn_r50')),
    ('torchvision__resnet18', File('tsn_resnet', dict(depth=18, c_in=10), r'^head\.|^backbone.conv1.conv')),
    *((f'{source}__ViT-B-{patch}', File('uniformerv2_b16', dict(patch=patch), clip_leaves)) for source in ('openai-clip', 'open_clip') for patch in (16, 32)),
    ('openai-clip__ViT-L-14', File('uniformerv2_l14', dict(size=336), clip_leaves)),
    ('timm__vit_base_patch16_224', File('timesformer_divided', left=r'^head\.|temporal_fc|time_embed')),
    ('timm__vit_base_patch16_224', File('videomae_b')),
    ('pyslowfast__k400_VIT_B_16x4_MAE_PT', File('mae_vit_b')),
    ('pyslowfast__k400_VIT_B_16x4_MAE_PT', File('mae_vit_b', dict(size=160, n_frames=32))),
    *((f'{source}_videomae_base{end}', File('videomae_b', left=r'^head\.|fc_norm'))
      for source, end in (('videomae__pretrain', '_patch16_224'), ('hf_', '_pretrain'))),
    ('videomae__pretrain_videomae_small_patch16_224', File('videomae_s', left=r'^head\.|fc_norm')),
]
