"""The pretrained camera motion model, `lookupvivit.load_model("camera_motion")`, and its evaluation.

weights/         the model: model.safetensors and model.json
MODEL_CARD.md    its data, training, accuracy, failures and licences
classes          the ten classes and their names
video_sets       labelled videos: of two renderers, of a virtual camera over real footage, and the user's own
second_renderer  a renderer that shares no code with the training renderer
evaluation       accuracy and confusions of a model on a set of videos
report           JSON, Markdown and a figure

Run `lookupvivit camera-motion --output FOLDER`.
"""
