"""Features of videos and images, kept on disk. Modules in reading order:

extractor   clips through a model: what its classifiers read, and the tokens of chosen blocks
folders     one .npz file per video, and features.json with the settings that they have in common
extract     every video of a folder or dataset, resumable and on any number of ranks

Run `python tools/features.py VIDEO ... --run RUN --output FOLDER`.
"""
