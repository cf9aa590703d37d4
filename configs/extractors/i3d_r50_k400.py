# I3D, ResNet-50, Kinetics-400, 2048 numbers: clips of 32 frames, every second one (64 frames).
extractor = dict(
    type='RecognizerFeatureExtractor',
    config='mmaction::recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py',
    checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/i3d/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb/'
    'i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb_20220812-e213c223.pth',
    fps=30.0,
    stride=16,
)
