# CLIP ViT-B/32, each frame by itself, in the space shared with its text (512 numbers).
extractor = dict(
    type='HuggingFaceFeatureExtractor', model='openai/clip-vit-base-patch32', fps=2.0, stride=1
)
