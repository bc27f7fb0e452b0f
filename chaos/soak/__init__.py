"""The conductor of a soak: load for days, faults on a schedule, a minute at a time into the evidence.

    plan      written down before the start, never changed after it: seed, hours, rate, every fault and every round with its time
    clock     the run's own: the real one, or a simulated one that goes faster (`--compress`)
    minutes   what one minute is kept as; where a run that was killed left off
    conduct   load, faults, rounds and gauges, in the order of the plan
    modelled  a service that is only a model, for tests of all of this

What is recorded is judged by `chaos.checks.longrun`, and by nothing in here.
"""

from __future__ import annotations
