# No weights: statistics of colour, outline and motion in steps of 0.75 s, made for Shapes.
extractor = dict(type='GridFeatureExtractor', fps=8.0, stride=6)
