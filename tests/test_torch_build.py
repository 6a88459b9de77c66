"""A torch that would kill Python is refused before it is imported."""

import sys

import pytest

from pi_dynn.errors import TorchUnusable
from pi_dynn.torch_build import check_torch, cuda_hint, size_thread_teams

CPU_BUILD = ("filelock", 'nvidia-cudnn-cu12==9; platform_system == "Linux" and platform_machine == "x86_64"')
CUDA_BUILD = ("filelock", 'nvidia-cudnn-cu13==9; platform_system == "Linux"')


@pytest.fixture
def board(tmp_path):
    """A root whose processor has the given features."""

    def build(features: str):
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nFeatures\t: {features}\n\nFeatures\t: {features}\n")
        return tmp_path

    return build


def test_torch_2_6_and_2_10_are_refused_on_a_pi_4_only(board):
    cortex_a72 = board("fp asimd evtstrm crc32 cpuid")
    with pytest.raises(TorchUnusable, match=r"torch 2\.10\.0\+cpu dies .* pip install 'torch>=2\.7,<2\.10'"):
        check_torch(cortex_a72, "aarch64", ("2.10.0+cpu", CPU_BUILD))
    with pytest.raises(TorchUnusable, match="2.6.0"):
        check_torch(cortex_a72, "aarch64", ("2.6.0", CPU_BUILD))
    for version in ("2.9.1", "2.11.0", "2.13.0+cpu", "", "unknown"):
        check_torch(cortex_a72, "aarch64", (version, CPU_BUILD))
    check_torch(cortex_a72, "x86_64", ("2.10.0", CPU_BUILD))
    check_torch(board("fp asimd atomics cpuid"), "aarch64", ("2.10.0", CPU_BUILD))


def test_a_board_that_tells_nothing_is_not_refused(tmp_path):
    check_torch(tmp_path, "aarch64", ("2.10.0", CPU_BUILD))


@pytest.mark.parametrize("installed", [("2.13.0", CUDA_BUILD), ("2.13.0+cu130", CPU_BUILD)])
def test_cuda_builds_are_hinted_at_on_arm(installed):
    assert "CUDA build" in cuda_hint("aarch64", installed)
    assert cuda_hint("x86_64", installed) is None
    assert cuda_hint("aarch64", ("2.9.1", CPU_BUILD)) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["classify", "--threads", "3", "x.jpg"], {"OMP_NUM_THREADS": "3"}),
        (["classify", "--threads=1"], {"OMP_NUM_THREADS": "1"}),
        (["benchmark", "--threads", "1,2"], {}),
        (["classify", "--threads"], {}),
        (["classify"], {}),
    ],
)
def test_threads_reach_openmp_before_torch_loads_it(arguments, expected, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    environ: dict[str, str] = {}
    size_thread_teams(arguments, "aarch64", environ)
    assert environ == expected
    own = {"OMP_NUM_THREADS": "2"}
    size_thread_teams(arguments, "aarch64", own)
    assert own == {"OMP_NUM_THREADS": "2"}
    size_thread_teams(arguments, "x86_64", environ := {})
    assert environ == {}
