"""All benchmarks by name."""

from hourllava.errors import ConfigError
from hourllava.evaluation.benchmarks import (
    cg_bench,
    egoschema,
    hourvideo,
    longvideobench,
    lvbench,
    marathonworld,
    marathonworld_1,
    mlvu,
    needles,
    tempcompass,
    video_mme,
)
from hourllava.evaluation.benchmarks.benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (
        video_mme, tempcompass, longvideobench, lvbench, mlvu, egoschema, cg_bench, hourvideo, marathonworld,
        marathonworld_1, needles,
    )
}  # fmt: skip


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"there is no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
