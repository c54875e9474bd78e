"""From attention and predictions to arrays, figures and videos. `attention_maps` and `time_format` need no
matplotlib.

Attention
    attention_maps     attention of the compressed tokens as arrays
    attention_grid     the arrays drawn over the frames of a clip
    attention_files    figures, videos and TensorBoard images of one video

Other figures
    confusion_figure   a confusion matrix
    prediction_figure  the classes of one video, over time or as bars

Basics
    time_format        times as text
    canvas             figures of an exact size in pixels, image resizing, PNG files
    labelled_grid      tiles in rows and columns with labels and colour bars
    video_writer       MP4 and GIF files
"""
