"""Look at a folder: which source reads it, what its tables and folders mean, and a configuration to start from."""

from collections import Counter
from pathlib import PurePosixPath

from chestai.cli.console import Screen
from chestai.config import load as conf
from chestai.config.schema import Config
from chestai.errors import UserError
from pipelines.data.files import InputFolder, has_image_suffix
from pipelines.spark.sources.dicom import may_be_dicom
from pipelines.spark.sources.folder_inspection.candidates import Candidate, find_candidates
from pipelines.spark.sources.folder_inspection.proposal import Proposal, find_tables, write_settings
from pipelines.spark.sources.folder_layout import find_split, is_mask, is_neutral

MAX_FOLDERS = 20


def inspect_folder(config: Config, screen: Screen, root: str, name: str | None = None) -> None:
    """Print what a folder holds and how to read it, and write `conf/source/<name>.yaml` if a name is given.

    Raises:
        UserError: There is no such folder, or the file exists already.
    """
    folder = InputFolder.open(root, key="inspect")
    images = folder.list_images(lambda file: has_image_suffix(file) or may_be_dicom(file))
    paths = images["path"].to_pylist()
    screen.say(f"{folder.uri}: {len(paths):,} files that may be images: {_count_suffixes(paths)}")
    for line in describe_folders(paths):
        screen.say(f"  {line}")
    candidate = next(find_candidates(folder.uri), None)
    tables = find_tables(folder, paths)
    if candidate is not None and candidate.name == "folders" and tables and tables[0].share > 0:
        candidate = None  # a table says more than the names of folders
    for table in tables:
        _describe_table(table, screen)
    if candidate is not None:
        _describe_source(candidate, screen)
        settings: dict[str, object] = {"name": name or candidate.name, "root": folder.uri}
        text = write_settings(settings, candidate.name, f"Made by inspect from {folder.uri}")
        _offer(screen, text, f"source={candidate.name} source.root={conf.quote(folder.uri)}", name)
    elif tables and tables[0].share > 0:
        screen.say(f"source: none of the known forms: use table, by {tables[0].table}")
        text = write_settings(
            tables[0].to_settings(name or "table", folder.uri), "table", f"Made by inspect from {folder.uri}: check it"
        )
        _offer(screen, text, None, name)
    else:
        screen.say("source: none: use table, once a label table names these images; no folder is a class")


def describe_folders(paths: list[str]) -> list[str]:
    """Say what the folders of the images mean, the fullest first."""
    counts = Counter(str(PurePosixPath(path).parent) for path in paths)
    lines = [f"{folder}/: {count:,}{_explain(folder)}" for folder, count in counts.most_common(MAX_FOLDERS)]
    return lines + ([f"and {len(counts) - MAX_FOLDERS:,} more folders"] if len(counts) > MAX_FOLDERS else [])


def _explain(folder: str) -> str:
    parts = [part for part in folder.split("/") if part != "."]
    meant = []
    for part in parts:
        if is_mask(part):
            meant.append(f"{part} = masks, not read")
        elif split := find_split(part):
            meant.append(f"{part} = {split}")
        elif not is_neutral(part) and len(parts) <= 4:
            meant.append(f"{part} = perhaps a class")
    return f" ({'; '.join(meant)})" if meant else ""


def _count_suffixes(paths: list[str]) -> str:
    counts = Counter(PurePosixPath(path).suffix.lower() or "without suffix" for path in paths)
    return ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(5)) or "none"


def _describe_table(table: Proposal, screen: Screen) -> None:
    screen.say(f"{table.table}: {table.rows:,} rows")
    for column in table.roles:
        screen.say(f"  {column.column}: {column.role or 'not known'}; {column.evidence}")


def _describe_source(candidate: Candidate, screen: Screen) -> None:
    read = "" if candidate.read is None else f", {candidate.read:,} of them with labels"
    screen.say(f"source: {candidate.name}: {candidate.source.note}; {candidate.images:,} images{read}")
    screen.say(f"  findings: {', '.join(candidate.source.vocabulary)}")
    screen.say(f"  official split: {'yes' if candidate.source.has_official_split else 'none'}")
    for guess in candidate.source.guesses:
        screen.say(f"  guessed: {guess.line}")


def _offer(screen: Screen, text: str, words: str | None, name: str | None) -> None:
    """Print or write the configuration, and the command that uses it."""
    if name is None:
        screen.say(f"\n{text}")
        command = f"etl {words}" if words else "etl inspect DIR NAME`, then `python -m pipelines.etl source=NAME"
        screen.say(f"next: `python -m pipelines.{command}`")
        return
    path = conf.CONF / "source" / f"{name}.yaml"
    if path.exists():
        raise UserError(f"{path} exists: choose another name")
    path.write_text(text)
    screen.say(f"wrote {path}\nnext: python -m pipelines.etl source={name}")
