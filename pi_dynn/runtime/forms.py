"""The forms a bundle's network can have: the names in manifests, in prose, and the endings of files."""

TORCHSCRIPT, ONNX, LITERT = "torchscript", "onnx", "litert"
FORM_NAMES = {TORCHSCRIPT: "TorchScript", ONNX: "ONNX", LITERT: "LiteRT"}
FORM_SUFFIXES = {ONNX: ".onnx.zip", LITERT: ".tflite.zip"}
