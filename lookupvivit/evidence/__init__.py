"""Measurements of the claims in docs/EVIDENCE.md that need no training.

rendered          clips of a still camera from the camera_motion renderer
object_clips      clips with the mask of an object that moves, and the same clips with the object frozen
object_attention  the attention that the object receives, per block
object_report     JSON, Markdown and a figure
static_footage    tokens, time and logits of motion-based token keeping before a still camera
static_report     JSON and Markdown

Run `lookupvivit object-attention --output FOLDER` and `lookupvivit static-footage --output FOLDER`.
"""
