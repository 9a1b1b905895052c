"""What features are computed by: one function each, named by `function` in schemas/features.yaml.

A function takes what its entry's ``from`` gives it (`pictures_spark.pixels.features`) and returns a number or a text, or raises PixelFault
with the reason why there is none.
"""
