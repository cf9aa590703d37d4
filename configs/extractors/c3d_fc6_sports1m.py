# C3D trained on Sports-1M, layer fc6 after its ReLU, 4096 numbers: clips of 16 frames, one after
# another. Weights of MMAction2's zoo, of the backbone alone.
extractor = dict(
    type='RecognizerFeatureExtractor',
    config='mmaction::recognition/c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb.py',
    checkpoint='https://download.openmmlab.com/mmaction/recognition/c3d/'
    'c3d_sports1m_pretrain_20201016-dcc47ddc.pth',
    layer='backbone.fc6',
    activation='relu',
    ignored_weights=[r'backbone\.fc8\.'],  # the Sports-1M classes, where the file has them
    fps=30.0,
    stride=16,
)
