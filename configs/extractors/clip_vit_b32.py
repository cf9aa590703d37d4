# CLIP ViT-B/32 (512 numbers): each frame by itself; 77 tokens of text. The historical baseline.
# 151 million weights (605 MB); its code and weights are published under the MIT license.
extractor = dict(
    type='DualTower', model='openai/clip-vit-base-patch32', fps=2.0, stride=1, batch_size=32
)
