# SigLIP base, patches of 16 pixels, 224 x 224, each frame by itself (768 numbers).
extractor = dict(
    type='HuggingFaceFeatureExtractor', model='google/siglip-base-patch16-224', fps=2.0, stride=1
)
