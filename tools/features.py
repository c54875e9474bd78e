"""Store the features of videos and images that the classifiers of a trained model read.

    python tools/features.py clips/ --run runs/camera_motion --output features
    python tools/features.py --cfg configs/ucf101.yaml --split train --run runs/k400_9x9x8 --output train

Exit status: 0; 1 if a file could not be read (the others were processed); 2 for an error in the command.
"""

from lookupvivit.cli.features import main

if __name__ == "__main__":
    main()
