"""Print the classes that a trained model predicts for videos, images and folders; for long videos also over time.

    python tools/predict.py holiday.mp4 --run runs/camera_motion
    python tools/predict.py clips/ 'videos/*.mkv' --run runs/camera_motion --output predictions --json predictions.json

Exit status: 0; 1 if a file could not be read (the others were processed); 2 for an error in the command.
"""

from lookupvivit.cli.predict import main

if __name__ == "__main__":
    main()
