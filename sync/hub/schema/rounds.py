"""Learning together: rounds, who takes part, what came up."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, Uuid

from aidpost.sync.hub.schema.base import metadata

rounds = Table(
    "rounds",
    metadata,
    # of one model, each goes on from the one before
    Column("id", Uuid, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("model", String(64), nullable=False),
    Column("base", String(64), nullable=False),
    Column("previous", Uuid),
    Column("state", String(16), nullable=False),  # open, closed, void
    Column("phase", String(16), nullable=False),  # keys, shares, answer, reveal
    Column("until_ms", BigInteger, nullable=False),  # when the phase ends, whoever is missing
    Column("phase_ms", BigInteger, nullable=False),
    Column("call", LargeBinary, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("opened_by", String(64), nullable=False),
    Column("ended_ms", BigInteger),
    Column("answers", Integer, nullable=False, default=0),
    Column("head", LargeBinary),  # what it made
    Column("memory", LargeBinary),  # what the strategy remembers
    Column("reason", String(500), nullable=False, default=""),
    # of the head as a candidate: none, passed, failed, shadowed, exported
    Column("candidate", String(16), nullable=False, default="none"),
    Column("verdict", Text, nullable=False, default=""),
    Index("rounds_model", "model", "number"),
)

round_devices = Table(
    "round_devices",
    metadata,
    Column("round", Uuid, ForeignKey("rounds.id"), primary_key=True),
    Column("device", String(64), ForeignKey("devices.name"), primary_key=True),
)

round_records = Table(
    "round_records",
    metadata,
    # what came up, the first of each kind
    Column("round", Uuid, ForeignKey("rounds.id"), primary_key=True),
    Column("device", String(64), ForeignKey("devices.name"), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("refused", String(300), nullable=False, default=""),
    Column("counted", Uuid),  # the round whose head it is in
)
