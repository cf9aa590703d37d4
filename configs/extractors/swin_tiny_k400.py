# Video Swin-T, Kinetics-400, 768 numbers: clips of 32 frames, every second one (64 frames).
extractor = dict(
    type='RecognizerFeatureExtractor',
    config='mmaction::recognition/swin/'
    'swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb.py',
    checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/swin/'
    'swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb/'
    'swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb_20220930-241016b2.pth',
    fps=30.0,
    stride=16,
)
