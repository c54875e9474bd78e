"""Test camera motion models, by default the shipped one.

    python tools/test_camera_motion.py --output runs/camera_motion_test
    python tools/test_camera_motion.py --run runs/camera_motion --run camera_motion --dataset data/camera_motion
    python tools/test_camera_motion.py --labels my_videos/labels.csv

The first command renders its videos into the output folder. Labels are a CSV file with the columns path, start, end
(seconds, or both empty) and class. All commands write 1x1.json, 1x1.md and 1x1_confusion.png, named after
the views.
"""

from lookupvivit.cli.camera_motion import main

if __name__ == "__main__":
    main()
