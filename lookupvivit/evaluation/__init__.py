"""Evaluation of trained models, exact to the single video. No trainer is needed.

Tests of a dataset
    multi_view          run all views of all videos through a model, on any number of processes
    resume              keep the finished videos of a running test on disk, so that an interrupted test continues
    stored_predictions  the logits of every view of a finished test, and the scores of any subset of its views
    aggregate           tables of scores, classes and confusions from stored predictions, without torch
    metrics             classification metrics over arrays

A user's own files
    predictor           the classes of a video, an image or a folder, as a whole or over time; for one or many files
    stream              the classes of a video while its frames arrive, for any iterator of frames
    clip_classifier     a model with its preprocessing and class names, which both apply
    fixed_passes        forward passes that several files share, without an effect on their results
    prediction          the result for one file
    segments            a timeline: successive clips of one class, merged
    prediction_report   predictions as text, as JSON, as CSV and as a figure

Further
    image_outputs       logits and features of every image of a dataset
    array_files         .npz files that are written atomically and read without pickles
    run_summary         what a run directory contains: cost, accuracies and figures
"""
