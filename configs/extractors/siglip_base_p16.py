# SigLIP base, patches of 16 pixels, 224 x 224 (768 numbers): each frame by itself; 64 tokens of
# text. 203 million weights (813 MB), Apache 2.0. Its sentences need the package sentencepiece.
extractor = dict(
    type='DualTower', model='google/siglip-base-patch16-224', fps=2.0, stride=1, batch_size=32
)
