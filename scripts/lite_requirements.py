"""Print what `setup.sh --lite` installs: all that setup.cfg asks for but torch and what needs it, and LiteRT.

python scripts/lite_requirements.py [EXTRA ...]
"""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

LEFT_OUT = ("torch", "torchvision", "safetensors", "onnx", "pi_dynn")  # onnx makes graphs and does not run them

config = ConfigParser()
config.read(Path(__file__).resolve().parents[1] / "setup.cfg", encoding="utf-8")
extras, lines = config["options.extras_require"], config["options"]["install_requires"].splitlines()
names = ["litert", *sys.argv[1:]]
for name in names:  # which grows by the extras inside of extras
    if name not in extras:
        sys.exit(f"there is no extra {name!r}: choose from {', '.join(extras)}")
    lines += extras[name].splitlines()
    inner = re.findall(r"pi_dynn\[(.*)\]", extras[name])
    names += [other for group in inner for other in group.split(",") if other not in names]
wanted = {line.strip() for line in lines if re.match(r"\w", line.strip())}
print("\n".join(sorted(line for line in wanted if re.split(r"[^\w-]", line)[0] not in LEFT_OUT)))
