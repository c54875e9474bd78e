"""Export a trained model to ONNX, and check the file against the model.

python tools/export.py --run runs/camera_motion --onnx camera_motion.onnx --compressed-size 2x4x4
"""

from lookupvivit.cli.export import main

if __name__ == "__main__":
    main()
