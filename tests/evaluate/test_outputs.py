"""The outputs of all exits on a set of images."""

import pytest

from pi_dynn import Session, load_bundle
from pi_dynn.data.folders import ImageFolder
from pi_dynn.errors import DatasetError
from pi_dynn.evaluate.outputs import collect_outputs


def test_a_part_without_images_is_one_clear_line(tmp_path):
    session = Session(load_bundle())
    with pytest.raises(DatasetError, match=f"{tmp_path}: this part of it holds no images; choose another"):
        collect_outputs(session, ImageFolder(tmp_path, session.manifest.labels, [], []))
