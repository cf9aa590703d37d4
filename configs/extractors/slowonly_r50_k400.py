# SlowOnly, ResNet-50, Kinetics-400, 2048 numbers: clips of 8 frames, every eighth one (64 frames).
extractor = dict(
    type='RecognizerFeatureExtractor',
    config='mmaction::recognition/slowonly/slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb.py',
    checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/slowonly/'
    'slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb/'
    'slowonly_r50_8xb16-8x8x1-256e_kinetics400-rgb_20220901-2132fc87.pth',
    fps=30.0,
    stride=16,
)
