# SigLIP 2 base, patches of 16 pixels, 224 x 224 (768 numbers): each frame by itself; 64 tokens of
# text, in many languages. 375 million weights (1.5 GB), Apache 2.0.
extractor = dict(
    type='DualTower', model='google/siglip2-base-patch16-224', fps=2.0, stride=1, batch_size=32
)
