"""Power meters, sampling, and integration of samples to joules. Independent of networks; never imports torch.

with open_meter("ina219") as meter, build_sampler(meter, clock) as sampler:
    with sampler.span("work"):
        work()
trace = sampler.trace()
joules = trace.energy_j("work")
"""

from pi_dynn.power.checks import TraceQuality, aliasing_warning, check_trace
from pi_dynn.power.energy import (
    IdleNeighbours,
    IdlePower,
    RunEnergy,
    TrialEnergy,
    idle_neighbours,
    idle_power,
    improvement,
    run_energy,
    trial_energy,
)
from pi_dynn.power.meter import (
    ESTIMATED,
    MEASURED,
    SIMULATED,
    EnergyMeter,
    EnergyReading,
    MeterInfo,
    PowerSample,
    SampleFlags,
)
from pi_dynn.power.opening import meter_names, open_meter
from pi_dynn.power.sampler import Sampler, SteppedSampler, build_sampler
from pi_dynn.power.trace import Span, ThrottleMark, Trace, load_trace

__all__ = [
    "ESTIMATED",
    "MEASURED",
    "SIMULATED",
    "EnergyMeter",
    "EnergyReading",
    "IdleNeighbours",
    "IdlePower",
    "MeterInfo",
    "PowerSample",
    "RunEnergy",
    "SampleFlags",
    "Sampler",
    "Span",
    "SteppedSampler",
    "ThrottleMark",
    "Trace",
    "TraceQuality",
    "TrialEnergy",
    "aliasing_warning",
    "build_sampler",
    "check_trace",
    "idle_neighbours",
    "idle_power",
    "improvement",
    "load_trace",
    "meter_names",
    "open_meter",
    "run_energy",
    "trial_energy",
]
