"""Draw where a LookupViT attends in videos and images: figures as in Fig. 1a, 6 and 7 of the paper, and videos.

    python tools/visualize_attention.py holiday.mp4 --run runs/camera_motion --blocks 0,3
    python tools/visualize_attention.py holiday.mp4 --run runs/camera_motion --tokens 0,1,2 3,1,2 --heads 0,2
    python tools/visualize_attention.py photo.jpg --run runs/imagenet_multires --sizes 1x3x3,1x7x7 --image-sizes 224,384

Exit status: 0; 1 if a file could not be read (the others were processed); 2 for an error in the command.
"""

from lookupvivit.cli.attention import main

if __name__ == "__main__":
    main()
