"""Training, sweeps and reports."""

from functools import partial

from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.results import Results
from tests.bench.summary.words import TIMES, at_least, at_most, count, number, percent, times

REPORT_TARGET_S, OF_BARE = 180, 0.93


def read_training(size: int, results: Results) -> Figures:
    table = results["train_cpu"].where(size=size)
    ours = table.where(what="Ray Train")
    rate = ours.median("images_per_s")
    beside, alone = (
        table.where(what=what).median("images_per_s") for what in ("bare loop, Ray idle beside it", "bare loop")
    )
    return Figures(
        f"{number(rate)} images/s; waits for data {percent(ours.median('wait_share'))} of the time",
        times(rate / beside, "a bare PyTorch loop beside an idle Ray"),
        times(rate / alone, f"a bare PyTorch loop alone on the machine ({number(alone)} images/s); ")
        + at_least(rate / alone, OF_BARE, TIMES),
    )


def read_profile(results: Results) -> Figures:
    table = results["train_profile"]
    ours, bare = (table.where(what=what).median("milliseconds") for what in ("step of Learner", "bare step"))
    worker, computing = (
        table.where(what=what).median("machine_percent")
        for what in ("ray::RayTrainWorker", "ray::RayTrainWorker, its computing threads")
    )
    others = sum(table.values("machine_percent")) - worker - computing
    return Figures(
        f"{number(ours)} ms a step; the worker has {number(worker)} % of the machine's CPU time, "
        f"{number(computing)} % in the threads that compute",
        times(ours / bare, "a bare step, in turns with it in one process"),
        f"the other processes, of which Ray has about twenty, take {number(others)} %",
    )


def read_trial(results: Results) -> Figures:
    table = results["trial"]
    trial, bare = table.median("trial_s"), table.median("bare_s")
    return Figures(
        f"{number(trial)} s",
        times(trial / bare, f"the bare training ({number(bare)} s)"),
        f"{number(table.median('over_s'))} s above the bare training",
    )


def read_sweep(results: Results) -> Figures:
    table = results["sweep"]
    trials, default = table.where(what="trial"), table.where(what="default")
    epochs = trials.values("epochs")
    best = max(trials.values("val_macro_auroc"))
    return Figures(
        f"val macro-AUROC {best:.3f} by the best of {len(epochs)} trials, "
        f"{count(sum(epochs))} of {count(len(epochs) * max(epochs))} epochs run",
        f"{default.median('val_macro_auroc'):.3f} with the demo's hand-chosen settings",
    )


def read_report(results: Results) -> Figures:
    table = results["report"]
    test, both = table.least("images"), table.most("images")
    return Figures(
        f"{number(test.median('seconds'))} s for {count(test.median('images'))} predictions, "
        f"{number(both.median('seconds'))} s for {count(both.median('images'))}",
        limit=at_most(both.median("seconds"), REPORT_TARGET_S, "s"),
    )


def read_bootstrap(results: Results) -> Figures:
    table = results["bootstrap"]
    ours, once, loop = (
        table.where(what=what)
        for what in (
            "report: AUROC, AUPRC, macro, micro",
            "the same without intervals",
            "scikit-learn in a loop, multiplied up",
        )
    )
    seconds, resamples = ours.median("seconds"), count(ours.median("resamples_timed"))
    corpus = f"{count(ours.median('images'))} {TIMES} {count(ours.median('findings'))} predictions"
    return Figures(
        f"{number(seconds)} s for {resamples} resamples of {corpus}",
        f"scikit-learn in a loop takes {times(loop.median('seconds') / seconds, 'the time')}",
        times(seconds / once.median("seconds"), "the time without resamples"),
    )


ENTRIES = (
    *(
        Entry(f"Training on CPU, {size} px", "train", partial(read_training, size), "train_cpu")
        for size in (112, 224, 320)
    ),
    Entry("Training on CPU, where the time goes", "train_profile", read_profile),
    Entry("A trial in a sweep", "trial", read_trial),
    Entry("Sweep on phantoms", "sweep", read_sweep),
    Entry("Evaluation report with intervals, start included", "report", read_report),
    Entry("Bootstrap of AUROC and AUPRC", "bootstrap", read_bootstrap),
)
