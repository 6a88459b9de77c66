"""The 33 known ways to measure energy wrongly, and where each is held off.

One line for each: the tests that fail when it comes back, or the reason why it is not of this room.

 1 byte order: ina/test_smbus.py::test_bytes_are_swapped_both_ways
 2 sign and shift: test_chip.py::test_negative_words_are_twos_complement,
   ina/test_ina219.py::test_power_of_a_constant_load
 3 reversed shunt: ina/test_ina219.py::test_reversed_leads_are_refused_in_words, test_hwmon.py::test_reversed_leads
 4 clipped, OVF=0: ina/test_ina219.py::test_a_clipped_sample_is_flagged_though_nothing_overflowed,
   test_integrate.py::test_unusable_samples_are_left_out
 5 OVF: ina/test_ina219.py::test_math_overflow_spoils_only_the_registers_we_do_not_use
 6 chip reset: ina/test_ina219.py::test_a_reset_is_seen_at_the_next_sample_and_put_right,
   ina/test_ina219.py::test_a_reset_without_a_load_is_seen_too
 7 stale reads: ina/test_ina219.py::test_a_stale_register_is_not_a_sample,
   test_chip.py::test_registers_are_stale_between_conversions
 8 old mode: ina/test_ina219.py::test_the_first_conversion_after_a_new_configuration_is_dropped
 9 calibration range: ina/test_ina219.py::test_calibration_word_is_even_and_in_range,
   ina/test_ina219.py::test_impossible_settings_are_refused
10 NACK and time-outs: ina/test_ina219.py::test_a_lost_transfer_is_repeated_and_counted,
   ina/test_ina219.py::test_an_unplugged_chip_ends_in_an_error_with_its_cause,
   test_checks.py::test_each_fault_is_a_reason
11 three messages: ina/test_smbus.py::test_each_failure_to_open_the_bus_has_its_own_cure,
   ina/test_smbus.py::test_a_chip_held_by_the_kernel_is_not_touched
12 import anywhere: test_opening.py::test_importing_needs_no_bus_no_linux_and_no_torch
13 closing, forks: ina/test_ina219.py::test_closing_puts_the_chip_back_as_it_was,
   ina/test_ina219.py::test_a_forked_child_does_not_touch_the_chip,
   ina/test_ina219.py::test_a_failed_opening_closes_the_bus
14 monotonic clock: test_pitfalls.py::test_nothing_here_reads_a_clock_of_its_own
15 middle of the window: ina/test_ina219.py::test_samples_are_stamped_at_the_middle_of_their_window,
   test_estimate.py::test_power_between_idle_and_full
16 trapezoid: test_integrate.py::test_equal_neighbours_are_all_kept, test_integrate.py::test_a_straight_line_is_exact,
   test_trace.py::test_columns_that_do_not_fit, test_checks.py::test_gaps_at_the_edges_count
17 two samples: test_integrate.py::test_a_window_without_two_samples_is_an_error_not_zero
18 counters: test_integrate.py::test_a_counter_is_unwrapped, test_rapl.py::test_the_counter_wraps,
   test_rapl.py::test_a_domain_without_a_range_is_left_out_not_counted_as_zero,
   test_integrate.py::test_a_counter_that_falls_was_not_unwrapped
19 figures of merit: test_checks.py::test_a_good_trace_and_its_figures
20 aliasing: test_checks.py::test_point_samples_in_step_with_the_inferences,
   test_must_show.py::test_it_is_the_rephasing_that_breaks_the_step
21 integer units: test_hwmon.py::test_ina219_behind_the_kernel_on_a_pi, test_rapl.py::test_only_packages_are_counted
22 warm-up: not here, this room knows no inferences; the energy job warms up every depth before its first span
23 trials: test_energy.py::test_a_run_is_the_mean_of_its_trials_with_an_interval;
   their length and number are the energy job's
24 idle on both sides: test_energy.py::test_idle_power_is_described_by_all_its_windows,
   test_energy.py::test_an_interval_above_zero_or_not_resolved
25 gross and net: test_energy.py::test_net_energy_is_what_the_work_added
26 governor: ../test_board.py::test_each_board_by_its_files, ../test_board.py::test_advice_has_a_cure_for_each_trouble
27 throttling: test_checks.py::test_a_sticky_bit_set_before_does_not_hide_a_new_event,
   test_sampler.py::test_throttled_in_the_middle_is_seen,
   ../test_board.py::test_throttle_from_the_file_the_firmware_or_the_alarm
28 threads and load: ../test_board.py::test_advice_has_a_cure_for_each_trouble;
   torch's threads are the session's to record
29 cool-down: not here, waiting between trials is the energy job's; the snapshot gives it the temperature
30 order of models: not here, the energy job interleaves the baseline A B B A
31 scope: ../cli/test_report.py::test_unlike_meters_are_not_compared
32 simulated is said: test_trace.py::test_only_a_measurement_is_measured,
   test_opening.py::test_a_fake_is_no_required_meter,
   test_replay.py::test_a_replay_is_never_a_measurement, test_opening.py::test_auto_never_tries_a_fake_or_a_replay
33 interrupted: test_sampler.py::test_interrupted_work_is_marked; n, trials and time left are the energy job's
"""

import ast
import re
from pathlib import Path

import pi_dynn.power

HERE = Path(__file__).parent
ROOM = Path(pi_dynn.power.__file__).parent


def test_every_pitfall_is_in_the_list():
    assert [int(number) for number in re.findall(r"^ ?(\d+) ", __doc__, re.MULTILINE)] == list(range(1, 34))


def test_every_test_in_the_list_exists():
    references = re.findall(r"((?:\.\./)?(?:\w+/)?test_\w+\.py)::(test_\w+)", __doc__)
    assert len(references) > 40
    for file, name in references:
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (file, name)


def test_every_pitfall_has_a_test_or_says_whose_it_is():
    for entry in re.split(r"^ ?\d+ ", __doc__, flags=re.MULTILINE)[1:]:
        assert "::test_" in entry or "not here, " in entry, entry


def test_nothing_here_reads_a_clock_of_its_own():
    """Time comes from the injected clock, whose real form is perf_counter_ns (see pi_dynn.clock)."""
    for path in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {"time", "datetime"} & set(names), path
