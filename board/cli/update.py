"""`aidpost board update`: releases and models, with a way back."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

from aidpost.board.cli import Settings
from aidpost.board.cli._common import json_option, load_configuration, print_json, settings_of
from aidpost.board.update.slots import Slots, version_key
from aidpost.errors import UpdateError, UsageError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
repository_option = click.option(
    "--repository", type=click.Path(path_type=Path), required=True, help="The folder that is served."
)
keys_option = click.option(
    "--keys", type=click.Path(path_type=Path), required=True, help="The folder of the signing keys: never served."
)


@click.group()
def update() -> None:
    """Updates of releases and models, with a way back."""


def _slots(settings: Settings) -> Slots:
    return Slots(Path(load_configuration(settings).update.folder))


def _source(settings: Settings, where: str):  # type: ignore[no-untyped-def]
    from aidpost.board.update import from_hub
    from aidpost.board.update.source import Source
    from aidpost.sync import _https, enrolment
    from aidpost.sync.clock import SystemClock

    section = load_configuration(settings).update
    folder, kept = Path(section.folder), settings.state_dir / from_hub.BUNDLE
    if not (where or section.source) and kept.exists():
        # what the hub sent by MQTT or stick, where it offers something new; else its address is asked
        with contextlib.suppress(UpdateError):
            sent = Source(str(kept), folder / "trust", folder / "downloads", Path(section.root_file))
            if any(one.kind == "model" or _is_newer(one.version, Slots(folder)) for one in sent.offers):
                return sent
    told = enrolment.told(settings.state_dir / enrolment.FOLDER)
    where = where or section.source or (f"{told.url}/updates" if told else "")
    if not where:
        cause = "no bundle was named, update.source is not set, and the device is not enrolled"
        raise UsageError(operation="updating", target="update.source", cause=cause, remedy="Name the bundle's file.")
    tls = None
    if told and where.startswith(f"{told.url}/"):
        tls = _https.context(told.authority, synced=SystemClock(Path("/")).synced())
    return Source(where, folder / "trust", folder / "downloads", Path(section.root_file), tls)


def _is_newer(version: str, slots: Slots) -> bool:
    serving = slots.named("current")
    return version not in slots.failures() and (not serving or version_key(version) > version_key(serving))


def _here(settings: Settings):  # type: ignore[no-untyped-def]
    from aidpost.board.update.install import Here

    configuration = load_configuration(settings)
    return Here(device=f"{configuration.clinic.id}/{configuration.device.name}")


def _healthy(settings: Settings):  # type: ignore[no-untyped-def]
    from aidpost.board.update.install import healthy

    return lambda slots: healthy(slots, settings.state_dir, settings.config_path)


@update.command()
@json_option
@settings_of
def status(settings: Settings, as_json: bool) -> None:
    """Which release serves, which is on trial, and which were taken back and why.

    Example: aidpost board update status
    """
    slots = _slots(settings)
    trial, serving = slots.trial(), slots.named("current")
    if as_json:
        print_json(
            {
                "schema": "aidpost.update/1",
                "current": serving,
                "previous": slots.named("previous"),
                "installed": slots.installed(),
                "trial": trial._asdict() if trial else None,
                "failed": slots.failures(),
            }
        )
        return
    click.echo(f"serves     {serving or 'none (not installed by a package)'}")
    click.echo(f"before     {slots.named('previous') or 'none'}")
    if trial:
        click.echo(f"on trial   {trial.new}, {trial.starts} starts without a confirmation")
    for version, why in slots.failures().items():
        click.echo(f"taken back {version}: {why}")


@update.command()
@click.argument("where", required=False, default="")
@click.option("--on-trial", is_flag=True, help="Leave it on trial until the service has started with it.")
@json_option
@settings_of
def install(settings: Settings, where: str, on_trial: bool, as_json: bool) -> None:
    """Install the newest release that this device may take, from WHERE (a bundle's file or a repository's address), or
    from update.source; try it, and go back if it is not well. Restart the service afterwards.

    Example: aidpost board update install /media/stick/aidpost.bundle
    """
    from aidpost.board.update.install import update as run

    slots = _slots(settings)
    before = slots.named("current")
    serving = run(_source(settings, where), slots, _here(settings), _healthy(settings), confirm=not on_trial)
    if as_json:
        print_json({"schema": "aidpost.update/1", "before": before, "current": serving})
    else:
        done = f"{serving} serves now; restart: systemctl restart aidpost" if serving != before else "nothing newer"
        click.echo(done)


@update.command()
@click.argument("where", required=False, default="")
@json_option
@settings_of
def models(settings: Settings, where: str, as_json: bool) -> None:
    """Install newer models; each serves only after its golden recordings passed on this board.

    Example: aidpost board update models /media/stick/aidpost.bundle
    """
    from aidpost.board.update.install import update_models

    served = update_models(_source(settings, where), _slots(settings), _here(settings))
    if as_json:
        print_json({"schema": "aidpost.update/1", "models": served})
    else:
        click.echo("\n".join(f"{one} serves now" for one in served) or "nothing newer")


@update.command()
@settings_of
def health(settings: Settings) -> None:
    """Whether this release is well here: configuration, kernels, runtime, models, store. Exit code 1 where it is not.

    Example: aidpost board update health
    """
    from aidpost.board.doctor import CHECKS, Surroundings, examine
    from aidpost.sync.clock import SystemClock

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    at = Surroundings(
        state_dir=settings.state_dir,
        configuration=load_configuration(settings),
        clock=SystemClock(Path("/")),
        credentials=Path(credentials) if credentials else None,
    )
    asked = {name: CHECKS[name] for name in ("kernels", "runtime", "models", "outbox")}
    broken = [one for one in examine(at, asked) if one.state in {"failed", "unknown"}]
    for one in broken:
        click.echo(f"{one.name}: {one.why}")
    sys.exit(1 if broken else 0)


@update.command()
@settings_of
def boot(settings: Settings) -> None:
    """After each start (the service does it): end what was interrupted, and settle a trial.

    Example: aidpost board update boot
    """
    from aidpost.board.update.install import settle

    slots = _slots(settings)
    if not slots.folder.is_dir():
        return
    with slots.locked():
        if said := slots.recover():
            click.echo(said)
        if slots.trial():
            click.echo(f"{settle(slots, _healthy(settings))} is well and confirmed")


@update.command()
@settings_of
def confirm(settings: Settings) -> None:
    """Confirm the release on trial, if it is well.

    Example: aidpost board update confirm
    """
    from aidpost.board.update.install import settle

    slots = _slots(settings)
    with slots.locked():
        click.echo(f"{settle(slots, _healthy(settings))} serves")


@update.command()
@click.option("--why", default="taken back by hand", show_default=True, help="Is kept, and shown by status.")
@click.option("--model", default="", metavar="NAME", help="Not the release, but this model that an update brought.")
@settings_of
def rollback(settings: Settings, why: str, model: str) -> None:
    """Let the release before serve again, or the model that came with the software. Restart the service afterwards.

    Example: aidpost board update rollback --why "the screen stays black"
    """
    slots = _slots(settings)
    with slots.locked():
        if model:
            taken = slots.roll_back_model(model, why)
            click.echo(f"{model} {taken} is taken back; restart: systemctl restart aidpost")
            return
        click.echo(f"{slots.roll_back(why)} serves; restart: systemctl restart aidpost")


@update.group()
def publish() -> None:
    """The other side: sign releases and models, for a web server and for sticks."""


@publish.command("init")
@repository_option
@keys_option
def publish_init(repository: Path, keys: Path) -> None:
    """A new repository with new keys; devices get metadata/1.root.json as /etc/aidpost/root.json.

    Example: aidpost board update publish init --repository updates --keys /media/safe/keys
    """
    from aidpost.board.update.publish import Repository

    Repository.create(repository, keys)
    click.echo(f"{repository / 'metadata/1.root.json'} is the root of trust that devices get")


@publish.command("add")
@click.argument("file", type=FILE)
@repository_option
@keys_option
@click.option("--kind", type=click.Choice(["release", "model"]), required=True, help="What it is.")
@click.option("--name", default="aidpost", show_default=True, help="The model's name.")
@click.option("--release", "version", required=True, help="Its version, as 1.2.0.")
@click.option("--python", default="", help="The Python that a release is for, as 3.11.")
@click.option("--machine", default="", help="The machine that a release is for, as aarch64.")
@click.option("--store-writes", type=int, default=0, help="The store's schema that a release writes.")
@click.option("--rollout", type=float, default=1.0, show_default=True, help="The share of devices, 0 to 1.")
def publish_add(
    file: Path,
    repository: Path,
    keys: Path,
    kind: str,
    name: str,
    version: str,
    python: str,
    machine: str,
    store_writes: int,
    rollout: float,
) -> None:
    """Sign a release (a tar of its wheels) or a model (a tar of its folder).

    Example: aidpost board update publish add r.tar --kind release --release 1.2.0 --python 3.11 --machine aarch64
    """
    from aidpost.board.update.publish import Repository
    from aidpost.board.update.source import Offer

    if kind == "release" and not (python and machine and store_writes):
        cause = "a release is for one Python and one machine, and writes one schema"
        raise UsageError(
            operation="publishing", target=str(file), cause=cause, remedy="--python, --machine, --store-writes"
        )
    target = "-".join(filter(None, (name, version, f"cp{python}" if python else "", machine))) + ".tar"
    offer = Offer(
        kind="release" if kind == "release" else "model",
        name=name,
        version=version,
        target=target,
        python=python,
        machine=machine,
        store_writes=store_writes,
        rollout=rollout,
    )
    Repository(repository, keys).add(offer, file)
    click.echo(f"{target} is on offer to {100 * rollout:g} % of the devices")


@publish.command("rollout")
@click.argument("name")
@click.argument("version")
@click.argument("share", type=float)
@repository_option
@keys_option
def publish_rollout(name: str, version: str, share: float, repository: Path, keys: Path) -> None:
    """The share of devices (0 to 1) that may take it from now on; 0 halts it.

    Example: aidpost board update publish rollout aidpost 1.2.0 0.1 --repository updates --keys keys
    """
    from aidpost.board.update.publish import Repository

    Repository(repository, keys).set_rollout(name, version, share)
    click.echo(f"{name} {version} is on offer to {100 * share:g} % of the devices")


@publish.command("bundle")
@click.argument("file", type=click.Path(path_type=Path))
@repository_option
def publish_bundle(file: Path, repository: Path) -> None:
    """Everything that is on offer, in one file for a stick.

    Example: aidpost board update publish bundle aidpost.bundle --repository updates
    """
    from aidpost.board.update.publish import Repository

    Repository(repository, repository).bundle(file)
    click.echo(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
