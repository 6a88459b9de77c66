"""The forms a bundle's network can have: the names in manifests, in prose, and the endings of files."""

TORCHSCRIPT, ONNX, LITERT = "torchscript", "onnx", "litert"
FORM_NAMES = {TORCHSCRIPT: "TorchScript", ONNX: "ONNX", LITERT: "LiteRT"}
FORM_SUFFIXES = {ONNX: ".onnx.zip", LITERT: ".tflite.zip"}


def form_of_file(name: str) -> str:
    """The form that the ending of a bundle's file name stands for."""
    return next((form for form, suffix in FORM_SUFFIXES.items() if name.endswith(suffix)), TORCHSCRIPT)
