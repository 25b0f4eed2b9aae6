"""Outputs at occupied paths, odd paths, arbitrary configurations, full disks, signals."""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.campaign.bench import Bench, Draw, Outcome, command_line, ending, image_folders
from tests.campaign.invariants import Expected, Violation, Watch, account
from tests.campaign.workplace import Ended, Workplace, workplace
from tests.unit.bad_exports import LABELS
from tests.unit.bad_values import NASTY, texts, trees
from tests.unit.disks import small_disk

CONFIG: dict[str, Any] = {"labels": LABELS, "max_bad_fraction": 1.0}
# Relative to the workplace's folder `work`, in which the step is run.
PATHS = [
    *("../data/export", "../data", "../data/export/train", "../data/export/train/new", "..", "."),
    *("../work", "/", "../documents", "../documents/2026", "../documents/new", "../out.txt"),
    *("../out.txt/new", "../data/thesis.txt", "../out/artifact", "../out/../data/export", "../link"),
    *("../link/new", "../loop", "../loop/new", "../dangling", "new", "a/b/c/d", "x" * 255, "x" * 256),
    *("x" * 5000, "x/" * 2100, "e\u0301", "étude 名", "a\nb", "\udcff", "-rf", "", " ", "~", "$HOME", "%s"),
    *("{}", "a,b", "[a]", "'", '"', "a=b", "null", "???", "${dataset.labels}", "gs://", "s3:", "/dev/null"),
    *("/dev/full", "/proc/self/fd/1", "/proc/self/x", "/sys/x", "../pipe", "../pipe/new", "../out/x.tmp"),
    *("../data/export/train/_annotations.csv", "../locked/new", "../locked", "../.out-12345678.tmp"),
    *("gs://bucket/x",),
]


def _is_argument(text: str) -> bool:
    """Whether a text can be a process's argument."""
    try:
        return "\0" not in text and len(os.fsencode(text)) < 100_000
    except UnicodeEncodeError:
        return False


paths = st.sampled_from(PATHS) | texts.filter(_is_argument)


def _furnish(place: Workplace) -> None:
    """Adds links, a pipe and a locked folder."""
    (place.root / "link").symlink_to("documents")
    (place.root / "loop").symlink_to("loop")
    (place.root / "dangling").symlink_to("nowhere/new")
    os.mkfifo(place.root / "pipe")
    (place.root / "locked").mkdir(mode=0o500)
    place.limits["restricted"] = True


def bad_paths(bench: Bench, draw: Draw) -> Outcome:
    """An output, a report or an export at an arbitrary path."""
    with workplace(bench.folder, bench.server, bench.exports["tensorflow"]) as place:
        _furnish(place)
        chosen = {"output": str(place.output), "report": str(place.report), "export": str(place.export)}
        name = draw(st.sampled_from(["output", "output", "report", "export"]))
        chosen[name] = draw(paths)
        own = [place.root / "work" / chosen[name] for name in ("output", "report")]
        # A link's target is replaced where it is.
        own += [Path(os.path.realpath(path)) for path in own]
        argv = ["ingest", f"--output={chosen['output']}", f"--report={chosen['report']}", "dataset=directory"]
        argv += [f"dataset.path={chosen['export']}", "dataset.labels=auto"]
        watch = Watch(place, own)
        ended = place.step(*argv, drawn=False)
        return ending(ended), watch.check(ended)


KEYS = [
    *("dataset.labels", "dataset.filename_pattern", "dataset.duplicate_boxes", "dataset.max_bad_fraction"),
    *("dataset.split", "dataset.split_fractions", "dataset.split_seed", "dataset.near_duplicate_distance"),
    *("dataset", "profile", "phases", "model", "dataset.path", "dataset.source", "dataset.fingerprint"),
    *("final", "seed", "training.batch_size", "model.weights", "records", "records.images_per_shard"),
    *("hydra.run.dir", "+dataset.more", "~dataset.path", "+phases.phase4", "++dataset.labels"),
    *("dataset@other", "dataset.split_fractions.train"),
]
VALUES = [
    *("[]", "[label0]", "[label0,label0]", "[a,b,'c,d']", "auto", "{a: 1}", "null", "true", "-1", "1e400"),
    *("nan", "???", "patient", "provided", "union", "directory", "roboflow", "bucket", "quick", "full"),
    *("joint", "0.5", "64", "[[a]]", "(?P<patient>.)(?P<slice>.)", "(", "(a+)+$", "${seed}", "${nowhere}"),
    *("${oc.env:HOME}", "1,2", "range(3)", "../x"),
]


def bad_configurations(bench: Bench, draw: Draw) -> Outcome:
    """Arbitrary overrides."""
    value = st.sampled_from(VALUES) | st.sampled_from(NASTY) | texts
    override = st.tuples(st.sampled_from(KEYS), value).map("=".join) | texts
    overrides = draw(st.lists(override.filter(_is_argument), min_size=1, max_size=2))
    with workplace(bench.folder, bench.server, bench.exports["coco"]) as place:
        watch = Watch(place)
        argv = [*command_line(place, {}), *overrides]
        # Overrides that draw patients, or access a service or a bucket, are not tested here.
        elsewhere = [each for each in argv if each.startswith(("dataset=", "dataset.source="))][1:]
        if elsewhere:
            return "well", []
        ended = place.step(*argv, drawn=False)
        return ending(ended), watch.check(ended)


def bad_parameters(bench: Bench, draw: Draw) -> Outcome:
    """An arbitrary config of a step, as passed by a component."""
    keys = [
        "labels",
        "filename_pattern",
        "duplicate_boxes",
        "max_bad_fraction",
        "split",
        "path",
        "source",
        "x",
    ]
    changes = draw(
        st.dictionaries(st.sampled_from(keys), trees | st.sampled_from(VALUES), min_size=1, max_size=2)
    )
    with workplace(bench.folder, bench.server, bench.exports["voc"]) as place:
        watch = Watch(place)
        config = {"source": "directory", "path": str(place.export), **CONFIG, **changes}
        if config["source"] in ("roboflow", "bucket", "synthetic"):
            return "well", []
        ended = place.ingest(config)
        return ending(ended), watch.check(ended)


def full_disks(bench: Bench, draw: Draw) -> Outcome:
    """An almost full disk for outputs or temporary files, or a limit on file sizes."""
    export_format = draw(st.sampled_from(["tensorflow", "tfrecord", "yolo"]))
    how = draw(st.sampled_from(["limit", "output", "temporary"]))
    size = draw(st.integers(0, 40))
    with workplace(bench.folder, bench.server, bench.exports[export_format]) as place, ExitStack() as stack:
        if how == "limit":
            place.limits["largest_file"] = size * 100
        else:
            folder = place.root / "out" if how == "output" else place.root / "tmp" / "disk"
            try:
                stack.enter_context(small_disk(folder, 4 * (size + 1)))
            except pytest.skip.Exception:
                place.limits["largest_file"] = size * 100
            if how == "temporary":
                place.environment["TMPDIR"] = str(folder)
        watch = Watch(place)
        argv = command_line(place, {})
        by_command = draw(st.integers(0, 9)) == 0
        ended = place.step(*argv) if by_command else place.ingest(_config(place))
        found = watch.check(ended)
        if ended.code == 0:
            found += account(place.output, Expected(entries=1, folders=image_folders(place, export_format)))
    return ending(ended), found


def _config(place: Workplace) -> dict[str, Any]:
    return {"source": "directory", "path": str(place.export), **CONFIG}


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]


def signals(bench: Bench, draw: Draw) -> Outcome:
    """A signal at a random moment; then the same step again, which succeeds and leaves no draft."""
    number, after = draw(st.sampled_from(SIGNALS)), draw(st.floats(0.01, 0.4))
    with workplace(bench.folder, bench.server, bench.exports["tfrecord"]) as place:
        watch = Watch(place)
        place.limits |= {"signal": int(number), "after": after}
        ended = place.ingest(_config(place))
        found = watch.check(ended, number)
        place.limits.clear()
        return ending(ended), found + _again(watch, place.ingest(_config(place)))


def _again(watch: Watch, ended: Ended) -> list[Violation]:
    """The violations after the next start of a step."""
    found = watch.check(ended)
    if ended.code:
        found.append(Violation("silent", f"the next start ends with code {ended.code}: {ended.said[-300:]}"))
    return found


def killed_processes(bench: Bench, draw: Draw) -> Outcome:
    """The command in its own process, which is sent a signal; then the same command again."""
    number, after = draw(st.sampled_from(SIGNALS)), draw(st.floats(0.0, 2.5))
    with workplace(bench.folder, bench.server, bench.exports["coco"]) as place:
        watch = Watch(place)
        events = place.root / "out.txt.jsonl"
        place.environment["BRAIN_TUMOR_EVENTS"] = str(events)
        process = place.start(*command_line(place, {}))
        # Python itself handles an interrupt while it still imports the step's packages.
        while not events.exists() and process.poll() is None:
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        try:
            said, _ = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            said, _ = process.communicate(timeout=120)
        events.unlink(missing_ok=True)
        found = watch.check(Ended(process.returncode, said), number)
        place.environment.clear()
        again = _again(watch, place.step(*command_line(place, {}), drawn=False))
        return ending(Ended(process.returncode, said)), found + again


def processes(bench: Bench, draw: Draw) -> Outcome:
    """The command in its own process, on a bad export."""
    from tests.campaign.annotations import SPOILERS

    export_format = draw(st.sampled_from(["tensorflow", "coco", "yolo", "voc"]))
    path, spoil = SPOILERS[export_format]
    content, entries = spoil(draw, bench.exports[export_format][path])
    config = {"max_bad_fraction": draw(st.sampled_from([1.0, 0.0]))}
    with workplace(bench.folder, bench.server, bench.exports[export_format] | {path: content}) as place:
        watch = Watch(place)
        ended = place.process(*command_line(place, config))
        found = watch.check(ended)
        if ended.code == 0 and not found:
            found += account(
                place.output, Expected(True, entries, folders=image_folders(place, export_format))
            )
        return ending(ended), found


Case = Callable[[Bench, Draw], Outcome]
