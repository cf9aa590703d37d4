# MMN on ActivityNet's captions to be searched in a library of many videos: the contrastive space
# begins as the tower's, which tells videos apart.
_base_ = 'mmn_captions.py'

model = dict(
    backbone=dict(keep_features=True),
    neck=dict(embed_channels=384, features=384),
    text_encoder=dict(embed_channels=384, identity=True),
)
