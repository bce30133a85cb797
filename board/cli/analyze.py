"""`aidpost analyze`: files in, findings out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from aidpost.board.analysis import Outcome, analyze_ecgs, analyze_photographs, models_for
from aidpost.board.cli import Settings, print_error
from aidpost.board.cli._common import load_configuration, print_json, settings_of
from aidpost.firmware_bridge.clock import SystemClock
from aidpost.records import Eye

UNREADABLE = 3

paths_argument = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
jsonl_option = click.option("--jsonl", "as_jsonl", is_flag=True, help="One JSON object a line, errors too.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object; for one input only.")


@click.group()
def analyze() -> None:
    """Interpret ECG recordings or fundus photographs from files."""


def _show(outcomes: Iterator[Outcome], as_json: bool, as_jsonl: bool, line: Any) -> None:
    """Print each outcome as it comes; exit with 3 where an input was unreadable, else with the gravest error's code."""
    worst = 0
    for number, outcome in enumerate(outcomes):
        if as_json and number:
            raise click.UsageError("--json gives one object, and there are several inputs: use --jsonl")
        if outcome.error is not None:
            worst = max(worst, outcome.error.exit_code)
            if as_jsonl or as_json:
                print_json({"source": outcome.source, "error": outcome.error.to_dict()})
            else:
                print_error(outcome.error)
        elif as_jsonl or as_json:
            print_json(outcome.result)
        else:
            click.echo(line(outcome.result))
    if worst:
        sys.exit(worst)


def _common_lines(result: dict[str, Any]) -> list[str]:
    lines = [f"  {finding['severity']}: {finding['text']}" for finding in result["findings"]]
    return [*lines, f"  triage: {result['triage']} (preliminary, not a diagnosis)"]


def _ecg_line(result: dict[str, Any]) -> str:
    rhythm, quality = result["rhythm"], result["quality"]
    bpm = result["measurements"]["heart_rate_bpm"]
    rate = "rate not measured" if bpm is None else f"{bpm:.0f}/min"
    name = rhythm["label"] or "no answer"
    remarks = ", ".join(quality["reasons"]) or "no remarks"
    parts = [
        f"{result['source']}: lead {result['lead']}, {result['duration_s']:.0f} s at {result['fs_hz']:g} Hz",
        f"  quality: {'usable' if quality['usable'] else 'not usable'} ({remarks})",
        f"  rhythm: {name}, {rate}, {len(result['beats']['sample'])} beats",
    ]
    return "\n".join(parts + _common_lines(result))


def _fundus_line(result: dict[str, Any]) -> str:
    quality, dr = result["quality"], result["dr"]
    grade = "not graded" if dr is None or dr["grade"] is None else f"grade {dr['grade']}"
    parts = [
        f"{result['source']}: {result['eye'] or 'eye unknown'}, {result['width']} x {result['height']}",
        f"  quality: {quality['label']} ({', '.join(quality['reasons']) or 'no remarks'})",
        f"  diabetic retinopathy: {grade}",
    ]
    return "\n".join(parts + _common_lines(result))


@analyze.command()
@paths_argument
@click.option("--lead", help="The lead to interpret; by default the best of the usual ones.")
@click.option("--waves", is_flag=True, help="Say where P, QRS and T of each beat begin, peak and end.")
@json_option
@jsonl_option
@settings_of
def ecg(
    settings: Settings, paths: tuple[Path, ...], lead: str | None, waves: bool, as_json: bool, as_jsonl: bool
) -> None:
    """Interpret ECGs: WFDB, EDF, DICOM waveform, CSV; folders too.

    Example: aidpost analyze ecg recordings/ --jsonl
    """
    configuration = load_configuration(settings)
    models = models_for(configuration.inference, settings.state_dir)
    outcomes = analyze_ecgs(paths, models, SystemClock(boot=0).now(), configuration.limits, lead, waves=waves)
    _show(outcomes, as_json, as_jsonl, _ecg_line)


@analyze.command()
@paths_argument
@click.option("--eye", type=click.Choice([eye.value for eye in Eye]), help="Which eye it is; never guessed.")
@click.option("--heatmap", "heatmap_dir", type=click.Path(path_type=Path), help="A folder for the heatmaps.")
@click.option("--force", is_flag=True, help="Grade a rejected photograph too.")
@json_option
@jsonl_option
@settings_of
def fundus(
    settings: Settings,
    paths: tuple[Path, ...],
    eye: str | None,
    heatmap_dir: Path | None,
    force: bool,
    as_json: bool,
    as_jsonl: bool,
) -> None:
    """Interpret fundus photographs: JPEG, PNG; folders too.

    Example: aidpost analyze fundus left.jpg --eye left --heatmap maps/
    """
    configuration = load_configuration(settings)
    outcomes = analyze_photographs(
        paths,
        models_for(configuration.inference, settings.state_dir),
        SystemClock(boot=0).now(),
        configuration.limits,
        eye=Eye(eye) if eye else None,
        heatmap_dir=heatmap_dir,
        force=force,
    )
    _show(outcomes, as_json, as_jsonl, _fundus_line)
