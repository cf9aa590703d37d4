# As c3d_fc6_sports1m.py, but layer fc7 after its ReLU: what the backbone gives.
_base_ = 'c3d_fc6_sports1m.py'
extractor = dict(layer='backbone', activation=None)
