"""Export a trained model to ONNX, and check the file against the model."""

import argparse

from data_pipelines.io.real_paths import require_not_among
from lookupvivit.cli.arguments import add_run_option, add_tokens_option, output_file
from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.errors import one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_run_option(parser)
    parser.add_argument("--onnx", type=output_file, required=True, metavar="FILE", help="the file to write")
    add_tokens_option(parser)
    help = "of weights and computation (default: fp32); inputs and outputs are float32"
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help=help)
    help = "the input is uint8 frames (batch, T, H, W, 3), which the file maps to [-1, 1]"
    parser.add_argument("--uint8", action="store_true", help=help)
    return parser.parse_args()


@ends_quietly()
def main() -> None:
    arguments = parse_args()
    from lookupvivit.weights.export import export_onnx, input_shape
    from lookupvivit.weights.files import DESCRIPTION, load_classifier, weights_file

    with one_line_errors("nothing was written"):
        weights = weights_file(arguments.run)
        written = [arguments.onnx, arguments.onnx.with_name(f"{arguments.onnx.name}.json")]
        require_not_among(written, [weights, weights.with_name(DESCRIPTION)])
        model = load_classifier(arguments.run)
        shape = input_shape(model)
        size, keep = arguments.tokens
        difference = export_onnx(model, arguments.onnx, shape, size, arguments.precision, arguments.uint8, keep=keep)
    _, channels, *size = shape
    name, axes = ("uint8 frames", (*size, channels)) if arguments.uint8 else ("video", (channels, *size))
    print(f"{arguments.onnx}: input {name} (batch, {', '.join(map(str, axes))}) with any batch size;", end=" ")
    print(f"largest difference to the model {difference:.1e}")


if __name__ == "__main__":
    main()
