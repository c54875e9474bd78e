"""Export a trained model to ONNX, and check the file against the model.

python tools/export.py --run runs/camera_motion --onnx camera_motion.onnx --compressed-size 2x4x4
"""

import argparse
from pathlib import Path

from lookupvivit.cli.arguments import give_up
from lookupvivit.models.perceiver import Perceiver
from lookupvivit.weights.export import export_onnx
from lookupvivit.weights.files import load_classifier


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory, such as runs/camera_motion")
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--compressed-size", type=int, nargs=3, metavar=("T", "H", "W"), help="default: the model's")
    return parser.parse_args()


def main() -> None:
    arguments = parse_args()
    try:
        model = load_classifier(arguments.run)
        frames, height, width = model.input_size
        tubelet = model.tubelet if isinstance(model, Perceiver) else model.embedding.tubelet
        is_image = tubelet[0] == 1 and frames == 1
        shape = (1, 3, height, width) if is_image else (1, 3, frames, height, width)
        difference = export_onnx(model, arguments.onnx, shape, arguments.compressed_size)
    except (ValueError, OSError) as error:
        give_up(error)
    print(f"{arguments.onnx}: input video (batch, {', '.join(map(str, shape[1:]))}) with any batch size;", end=" ")
    print(f"largest difference to the model {difference:.1e}")


if __name__ == "__main__":
    main()
