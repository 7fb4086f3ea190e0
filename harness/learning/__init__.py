"""Machinery that methods and evaluators share: the outer loop, students, experts, training and gradient matching.

Shapes are written in this order and with these names, here and in the built-in components:

======== ==================================================================================================
name     meaning
======== ==================================================================================================
n        images of a batch or a set; (n, c, h, w) are network inputs, float32, normalised
c, h, w  channels, height and width in pixels of an image; a `Shape` is (c, h, w)
classes  classes of the problem; logits are (n, classes), labels (n,) indices or (n, classes) weights
ipc      synthetic images per class; a distilled set of hard labels has n = classes * ipc, class by class
======== ==================================================================================================

A gradient of a network is a list of tensors, each of the shape of its weight. The gradient of images has the images'
shape.
"""
