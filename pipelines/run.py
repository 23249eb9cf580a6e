"""Run the chain in one Ray: (phantom,) etl, train, evaluate, score, and the endpoint.

`python -m pipelines.run +experiment=demo` is `make demo`. With `serve.stay=false` it ends after the last stage;
otherwise the endpoint stays up until Ctrl-C. If the gate refuses the first model, that one scores and is served all the
same, marked "not champion".
"""

import shlex
import time
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc
from rich.table import Table

import serve.deployments.app as endpoint
from chestai import RESEARCH_USE
from chestai.cli.console import Screen
from chestai.cli.main import main
from chestai.cli.summary import Stage, Summary, build_stage_table
from chestai.config.schema import Config
from chestai.evaluation.champion_status import why_not_champion
from chestai.lake.lake import Lake
from chestai.model.bundle import Bundle
from chestai.model.registry import CHAMPION, Registry
from pipelines import etl, evaluate, phantom, score, train
from pipelines.cluster import get_log_folder, ray_cluster
from pipelines.scoring.corpus import find_corpus
from pipelines.scoring.ledger import read_scores
from serve.auth.bootstrap import create_first_admin
from serve.inference.lake_scores import import_scores

MOST_URGENT = 10


def run(config: Config, screen: Screen) -> None:
    """Run the stages one after another with the same config, then start the endpoint."""
    stages: list[tuple[str, Stage]] = [
        ("etl", etl.run),
        ("train", train.run),
        ("evaluate", evaluate.run),
        ("score", score.run),
    ]
    if config.source.synthetic:
        stages.insert(0, ("phantom", phantom.run))
    summaries: list[Summary] = []
    with ray_cluster(config.cluster):
        for name, stage in stages:
            screen.say(f"{name} ...")
            summaries.append(stage(config, screen))
            facts = summaries[-1].facts
            screen.say(f"{name} {summaries[-1].seconds:.1f} s: {facts['headline']}")
            if name == "evaluate":
                config = _choose_model(config, facts["version"], screen)
        started = time.monotonic()
        url, model = endpoint.deploy(config)
        try:
            mark = _mark(why_not_champion(Registry(config.tracking, Lake(config.lake)), model.version))
            facts = {"headline": f"{url}, version {model.version}{mark}"}
            summaries.append(Summary("serve", 1, "endpoint", time.monotonic() - started, facts))
            screen.say(f"worklist: {import_scores(config, screen):,} images of offline scoring recorded")
            if config.auth.required:
                create_first_admin(config, screen.say)
            _print_summary(config, screen, summaries, url)
            if config.serve.stay:
                screen.say("The endpoint stays up: Ctrl-C ends it.")
                while True:
                    time.sleep(3600)
        finally:
            endpoint.stop()


def _choose_model(config: Config, candidate: int | None, screen: Screen) -> Config:
    """Return the config of scoring and endpoint: without a champion they take the candidate, and say so."""
    registry = Registry(config.tracking, Lake(config.lake))
    champion = registry.champion()
    if candidate is None or candidate == champion:
        return config
    reason = why_not_champion(registry, candidate)
    lake = shlex.quote(f"lake={config.lake}")
    by_hand = f"to promote it by hand: `python -m pipelines.promote {lake} model={candidate} force=true`"
    if champion is not None:
        screen.say(f"version {candidate} was not promoted: {reason}; version {champion} scores and serves; {by_hand}")
        return config
    screen.say(f"version {candidate} scores and serves{_mark(reason)}; {by_hand}")
    pinned = {"model": str(candidate)}
    score, endpoint = (
        part.model_copy(update=pinned if part.model == CHAMPION else {}) for part in (config.score, config.serve)
    )
    return config.model_copy(update={"score": score, "serve": endpoint})


def _mark(reason: str | None) -> str:
    return "" if reason is None else f", not champion: {reason}"


def _print_summary(config: Config, screen: Screen, summaries: Sequence[Summary], url: str) -> None:
    """Print the stages, the model, the most urgent images, and commands to try."""
    lake = Lake(config.lake)
    evaluation = next(summary for summary in summaries if summary.stage == "evaluate").facts
    screen.console.print(build_stage_table(summaries))
    data = "SYNTHETIC phantoms" if config.source.synthetic else config.source.format
    screen.say(f"{evaluation['split']} macro-AUROC {evaluation['macro_auroc']} (95 %, patients resampled) on {data}")
    screen.say(f"registry: {evaluation['model']}; {evaluation['verdict']}")
    screen.say(f"model card: {evaluation['model_card']}")
    model = Registry(config.tracking, lake).load(config.score.model)
    part = config.score
    corpus = find_corpus(part.corpus, lake, part.match, part.split, part.prefixes)
    scores = read_scores(Lake(config.score.out or config.lake), model.version, corpus.rows)
    rows = scores.filter(pc.field("not_scored").is_null()).slice(0, MOST_URGENT).to_pylist()
    queue = [(row, _find_drivers(model.bundle, row)) for row in rows]
    screen.console.print(_make_queue_table(queue))
    if not queue:
        screen.say("No image could be scored; the score stage's report says why.")
        return
    first, drivers = queue[0]
    image_id, label = first["image_id"], drivers[0][0]
    path = corpus.rows.filter(pc.field("image_id") == image_id)["path"][0].as_py()
    curl = 'curl -s -H "X-API-Key: $KEY"' if config.auth.required else "curl -s"
    screen.say(f"Readers' page: {url}/ui/")
    screen.say("Try:")
    film = shlex.quote(f"file=@{path}")
    screen.say(f"  {curl} -F {film} {url}/infer")
    screen.say(f"  {curl} -F {film} -H 'Accept: image/png' '{url}/infer?explain={label}' -o overlay.png")
    if corpus.snapshot is not None:
        screen.say(f"  {curl} '{url}/images/{image_id}/heatmap?label={label}' -o heatmap.png")
    screen.say(f"  curl -s {url}/health/ready    (interactive: {url}/docs)")
    screen.say(f"  .venv/bin/mlflow ui --backend-store-uri {shlex.quote(Registry(config.tracking, lake).uri)}")
    screen.say(f"reports: {lake.uri('reports')}   log: {screen.log}   Ray's logs: {get_log_folder()}")
    screen.say(RESEARCH_USE)


def _find_drivers(bundle: Bundle, row: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the findings that make an image urgent, by the triage rule that scored it."""
    findings = bundle.card.findings
    return bundle.triage.find_drivers([row[f"prob_{finding}"] for finding in findings], findings)


def _make_queue_table(queue: Sequence[tuple[dict[str, Any], list[tuple[str, float]]]]) -> Table:
    table = Table("image", "bucket", "score", "driven by (weight x probability)", title_justify="left")
    table.title = f"the {len(queue)} most urgent images"
    for row, drivers in queue:
        contributions = ", ".join(f"{finding} {weighted:.2f}" for finding, weighted in drivers)
        table.add_row(row["image_id"], row["bucket"], f"{row['triage_score']:.3f}", contributions)
    return table


if __name__ == "__main__":
    main("pipelines.run", run)
